#!/usr/bin/env bash
# Runs a command with the toolchain and the tools that the project's own scripts use:
#   scripts/with-toolchain.sh cargo leptos serve --release -- --port 36000
. "$(dirname "$0")/lib.sh"
. scripts/toolchain.sh

choose_toolchain
exec "$@"
