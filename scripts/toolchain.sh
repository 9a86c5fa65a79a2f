# Sourced: chooses the Rust toolchain that can build both halves.
# shellcheck shell=bash

# The name under which the setup links the distribution's compiler, where rustup cannot add the wasm target.
fallback_toolchain=debian

# Whether the selected compiler has a standard library of its own version for the browser: an empty crate compiles.
# The output goes to a folder of its own, because rustc replaces whatever stands at the path, a device too.
has_wasm_target() {
  local folder compiled=no
  folder=$(mktemp -d)
  if rustc --crate-name probe --crate-type lib --emit metadata --target wasm32-unknown-unknown --out-dir "$folder" - \
    </dev/null >"$folder/log" 2>&1; then compiled=yes; fi
  rm -rf "$folder"
  [ "$compiled" = yes ]
}

# Whether the selected compiler is at least the version that Cargo.toml names.
has_rust_version() {
  local wanted found
  wanted=$(wanted_rust_version)
  found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ "$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n1)" = "$wanted" ]
}

wanted_rust_version() { awk -F'"' '/^rust-version/ { print $2; exit }' Cargo.toml; }

is_usable() { has_rust_version && has_wasm_target; }

# Runs one of these functions under the fallback, and leaves the choice as it was.
with_fallback() {
  local -x RUSTUP_TOOLCHAIN=$fallback_toolchain
  "$@"
}

# Runs a command under the toolchain that was chosen before the fallback.
with_default() {
  if [ "${RUSTUP_TOOLCHAIN:-}" = "$fallback_toolchain" ]; then env -u RUSTUP_TOOLCHAIN "$@"; else "$@"; fi
}

# Selects the fallback only where the chosen compiler will not do and the fallback was set up.
choose_toolchain() {
  if is_usable; then return 0; fi
  if with_fallback is_usable; then export RUSTUP_TOOLCHAIN=$fallback_toolchain; fi
}
