#!/usr/bin/env bash
# Fuzzes with coverage feedback: `fuzz.sh [TARGET|all] [RUNS] [MAX_LEN]`, five million runs each if nothing is said.
# Needs a stable Rust and a C++ compiler; builds everything once more, about ten minutes the first time on two cores.
# What it learns stays in target/fuzz/corpus, what it finds goes to target/fuzz/findings; put a finding beside the fix, into
# tests/fuzz/corpus under a name that says what it is, and `make test` replays it from then on.
. "$(dirname "$0")/lib.sh"
. scripts/packages.sh

package=tests/fuzz
wanted=${1:-all}
runs=${2:-5000000}
max_len=${3:-}

have c++ || need_packages "a C++ compiler" g++

targets=()
for file in "$package"/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
if [ "$wanted" != all ]; then
  [ -f "$package/targets/$wanted.rs" ] || die "there is no target $wanted, expected all or one of: ${targets[*]}"
  targets=("$wanted")
fi

# With --target the flags below are not for what runs while building. The same versions as the program's are fuzzed: only
# what the fuzzer needs beside them is added to the copy.
host=$(rustc -vV | awk '/^host:/ { print $2 }')
output=$target/fuzz
cp Cargo.lock "$package/Cargo.lock"
sancov="-Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  sancov+=" -Cllvm-args=-sanitizer-coverage-$option"
done
say "building the fuzzers"
for name in "${targets[@]}"; do
  RUSTFLAGS="--cfg fuzzing $sancov" CARGO_TARGET_DIR=$output \
    cargo build --release --target "$host" --manifest-path "$package/Cargo.toml" --bin "$name"
done

# Some targets write files, which belong into memory where there is room for them.
if [ -z "${TMPDIR:-}" ] && [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi

# length_of TARGET: bytes that say enough; texts are slow for what they are long.
length_of() {
  case $1 in
  detokenizer | markdown_blocks | prompt_builder | tokenizer_round_trip) printf 256 ;;
  *) printf 2048 ;;
  esac
}

for name in "${targets[@]}"; do
  learnt=$output/corpus/$name
  findings=$output/findings/$name
  mkdir -p "$learnt" "$findings"
  options=(-runs="$runs" -max_len="${max_len:-$(length_of "$name")}" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1)
  if [ -f "$package/dictionaries/$name.dict" ]; then options+=(-dict="$package/dictionaries/$name.dict"); fi
  say "fuzzing $name: $runs runs"
  "$output/$host/release/$name" "$learnt" "$package/corpus/$name" "${options[@]}" -artifact_prefix="$findings/" ||
    die "$name found something, see above" "the input is in $findings"
done
