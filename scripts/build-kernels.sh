#!/usr/bin/env bash
# Compiles the kernels for CUDA cards into target/kernels: one file for all kinds of cards, and a report of what each kernel takes.
# XVERSE_CUDA_ARCHS chooses the kinds, such as "80 90". `build-kernels.sh --check` also compares the report with the kept one.
. "$(dirname "$0")/lib.sh"
. scripts/cuda-toolkit.sh

architectures=${XVERSE_CUDA_ARCHS:-80 89 90 120}
source=src/engine/backend/cuda/kernels
kernels=target/kernels
flags=(-std=c++20 -O3 --threads 2)

# What decides what comes out.
made_from() { cat "$source"/*.c* "$source"/*.h scripts/build-kernels.sh; printf '%s\n' "$architectures"; nvcc --version; }

# A line a kernel, from what the assembler says: registers, spilled bytes, bytes of local memory.
resources() {
  awk '
    /Compiling entry function/ { split($0, quoted, "'"'"'"); name = quoted[2] }
    /bytes stack frame/ {
      for (i = 1; i <= NF; i++) if ($i == "stack") stack = $(i - 2); else if ($i == "stores,") spilled = $(i - 3)
    }
    /Used [0-9]+ registers/ {
      for (i = 1; i <= NF; i++) if ($i == "Used") registers = $(i + 1)
      printf "%s registers=%d spilled=%d local=%d\n", name, registers, spilled, stack
    }
  ' | LC_ALL=C sort
}

ensure_cuda_toolkit
mkdir -p "$kernels"
digest=$(made_from | sha256sum)
compare() {
  if [ "${1:-}" != --check ]; then return 0; fi
  diff "$source/resources.txt" "$kernels/resources.txt" ||
    die "the kernels take other resources than the kept report says" "cp $kernels/resources.txt $source/, where that is meant"
}

if [ "$(cat "$kernels/made-from" 2>/dev/null)" = "$digest" ]; then
  compare "$@"
  exit 0
fi
rm -f "$kernels/made-from"
for architecture in $architectures; do
  flags+=(-gencode "arch=compute_$architecture,code=sm_$architecture")
done
nvcc "${flags[@]}" -fatbin -o "$kernels/kernels.fatbin" "$source/kernels.cu"
# The report is of one kind of card, so that it can be compared.
nvcc -std=c++20 -O3 -arch=sm_90 -cubin -Xptxas -v -o "$kernels/kernels.cubin" "$source/kernels.cu" 2>&1 | resources >"$kernels/resources.txt"
printf '%s' "$architectures" >"$kernels/architectures"
printf '%s\n' "$digest" >"$kernels/made-from"
compare "$@"
