#!/usr/bin/env bash
# Formats the Rust code, or with --check says what is not formatted.
. "$(dirname "$0")/lib.sh"
. scripts/toolchain.sh

# The compiler that the distribution carries has no rustfmt, so this one is always the default toolchain's.
for manifest in Cargo.toml tests/fuzz/Cargo.toml; do with_default cargo fmt --manifest-path "$manifest" -- "$@"; done
