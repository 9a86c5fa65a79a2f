# Sourced by scripts that compile for CUDA cards: finds nvcc, or gets it from PyPI's wheels; no card and no driver is needed.
# shellcheck shell=bash disable=SC2154

cuda_wheels=(
  nvidia-cuda-nvcc==13.0.88
  nvidia-nvvm==13.0.88
  nvidia-cuda-crt==13.0.88
  nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96
)

# has_cuda_toolkit: whether there is an nvcc of CUDA 13 already.
has_cuda_toolkit() {
  local folder
  for folder in "$tools"/cuda/lib/python3*/site-packages/nvidia/cu13/bin "${CUDA_HOME:-/usr/local/cuda}/bin"; do
    if [ -x "$folder/nvcc" ]; then PATH=$folder:$PATH; fi
  done
  have nvcc && nvcc --version | grep -q "release 13\."
}

ensure_cuda_toolkit() {
  if has_cuda_toolkit; then return 0; fi
  say "  installing CUDA's compiler with pip, 300 MB"
  have "${CXX:-c++}" || die "no C++ compiler found" "install g++"
  python3 -m venv "$tools/cuda" || die "no Python with venv found" "install python3-venv, or CUDA 13 by hand"
  "$tools/cuda/bin/pip" install --quiet --no-deps "${cuda_wheels[@]}"
  has_cuda_toolkit || die "CUDA's compiler was installed and is not found" "remove $tools/cuda and try again"
}
