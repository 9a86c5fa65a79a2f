# Sourced by every script here: where things are, and how progress is told.
# shellcheck shell=bash

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Tools that the setup installs for this project alone; `make clean-tools` removes them.
tools=$PWD/.tools
export PATH="$tools/bin:$PATH"

# shellcheck disable=SC2034  # used by the scripts that source this
# Where cargo writes. The served files stay in the checkout, where Leptos.toml expects them.
target=${CARGO_TARGET_DIR:-target}
# shellcheck disable=SC2034
site=target/site

have() { command -v "$1" >/dev/null 2>&1; }

say() { printf '%s\n' "$*"; }

# die WHAT [HINT]
die() {
  printf 'error: %s\n' "$1" >&2
  if [ $# -gt 1 ]; then printf 'hint: %s\n' "$2" >&2; fi
  exit 1
}

# lock_version CRATE: the version that Cargo.lock pins.
lock_version() {
  awk -v name="$1" '$1 == "name" { found = $3 == "\"" name "\"" } found && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' Cargo.lock
}

duration() {
  if [ "$1" -ge 60 ]; then printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); else printf '%d s' "$1"; fi
}

steps_of=""
steps_total=0
step_index=0

# steps NAME COUNT: how many steps follow.
steps() {
  steps_of=$1
  steps_total=$2
  step_index=0
}

# step WHAT COMMAND…: says what happens now, and about how long it takes where that is long; runs it; says how long it took.
step() {
  local what=$1 started=$SECONDS
  shift
  step_index=$((step_index + 1))
  printf '%s [%d/%d] %s\n' "$steps_of" "$step_index" "$steps_total" "$what"
  "$@"
  printf '%s [%d/%d] done in %s\n' "$steps_of" "$step_index" "$steps_total" "$(duration $((SECONDS - started)))"
}
