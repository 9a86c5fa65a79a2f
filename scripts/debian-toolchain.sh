#!/usr/bin/env bash
# Sets up the compiler that Debian carries for its browsers, for where rustup cannot add the wasm target: installs it,
# builds the standard library for wasm with it, once, and links it into rustup as `debian`.
. "$(dirname "$0")/lib.sh"
. scripts/toolchain.sh
. scripts/packages.sh

rustc=/usr/bin/rustc
cargo=/usr/bin/cargo

install_compiler() {
  need_packages "a Rust compiler with its library's source" \
    rustc-web cargo-web rust-web-clippy rust-web-src rust-web-llvm
  # `rust-lld` points at the linker of the release of LLVM that this compiler was built with: `lld-22`, which is itself a
  # link once it is installed.
  local release
  release=$(readlink /usr/bin/rust-lld | sed -n 's:.*lld-\([0-9]*\)$:\1:p')
  [ -n "$release" ] || die "/usr/bin/rust-lld does not lead to a release of LLVM"
  need_packages "the wasm linker" "lld-$release"
}

# Cargo builds the standard library beside an empty crate; what it built goes where the compiler looks for it.
build_wasm_library() {
  local crate=$tools/wasm-library libdir built
  rm -rf "$crate"
  mkdir -p "$crate/src"
  printf '#![no_std]\n' >"$crate/src/lib.rs"
  cat >"$crate/Cargo.toml" <<'TOML'
[package]
name = "empty"
version = "0.0.0"
edition = "2024"

[profile.release]
panic = "abort"

[workspace]
TOML
  (cd "$crate" && RUSTC=$rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=target "$cargo" build --quiet --release \
    -Z build-std=std,panic_abort --target wasm32-unknown-unknown)
  built=$crate/target/wasm32-unknown-unknown/release/deps
  rm "$built"/libempty-*.rlib
  libdir=$($rustc --print target-libdir --target wasm32-unknown-unknown)
  as_root rm -rf "$libdir"
  as_root mkdir -p "$libdir"
  as_root cp "$built"/*.rlib "$libdir/"
  rm -rf "$crate"
}

if with_fallback is_usable; then exit 0; fi
install_compiler
say "  building the standard library for wasm, about a minute"
build_wasm_library
rustup toolchain link "$fallback_toolchain" "$($rustc --print sysroot)"
with_fallback is_usable || die "Debian's Rust is set up and still cannot build for wasm" "see: RUSTUP_TOOLCHAIN=$fallback_toolchain rustc --version"
