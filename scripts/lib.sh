# Sourced by every script here: where things are, and how progress is told.
# shellcheck shell=bash

set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Tools that the setup installs for this project alone; `make clean-tools` removes them.
export tools=$PWD/.tools
export PATH="$tools/bin:$PATH"

# Where cargo writes. The served files stay in the checkout, where Leptos.toml expects them.
export target=${CARGO_TARGET_DIR:-target}
export site=target/site

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
  awk -v name="\"$1\"" '$1 == "name" { found = $3 == name } found && $1 == "version" { gsub(/"/, "", $3); print $3; exit }' Cargo.lock
}

# The browser for the tests: $CHROMIUM where it is set, else the first of the usual names, else Playwright's own, else nothing.
browser() {
  local name own
  own=$(cd end2end && node -p 'require("@playwright/test").chromium.executablePath()' 2>/dev/null) || own=""
  for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome-stable google-chrome "$own"; do
    if command -v "$name"; then return 0; fi
  done
}

duration() {
  if [ "$1" -ge 60 ]; then printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); else printf '%d s' "$1"; fi
}

steps_of=""
steps_total=0
step_index=0
step_started=0

# steps NAME COUNT: how many steps follow.
steps() {
  steps_of=$1
  steps_total=$2
  step_index=0
}

# begin WHAT: says what happens now, and about how long it takes where that is long.
begin() {
  step_index=$((step_index + 1))
  step_started=$SECONDS
  printf '%s [%d/%d] %s\n' "$steps_of" "$step_index" "$steps_total" "$1"
}

# end HOW: says how the step ended, and after how long.
end() {
  printf '%s [%d/%d] %s after %s\n' "$steps_of" "$step_index" "$steps_total" "$1" "$(duration $((SECONDS - step_started)))"
}

# step WHAT COMMAND…
step() {
  begin "$1"
  shift
  "$@"
  end "done"
}
