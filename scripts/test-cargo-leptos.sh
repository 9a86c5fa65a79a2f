#!/usr/bin/env bash
# Proves that `cargo leptos serve --release -- FLAGS` builds, serves the page with what it loads, and stops.
. "$(dirname "$0")/lib.sh"
. scripts/toolchain.sh

model=models/xverse-mini
# From a finished build this is a minute; the limit is for a first one.
deadline=$((SECONDS + 2700))
log=$(mktemp)
answer=$(mktemp)
data=$(mktemp -d)
pid=""

stop() {
  if [ -n "$pid" ] && kill "$pid" 2>/dev/null; then wait "$pid" || true; fi
  rm -rf "$log" "$answer" "$data"
}
trap stop EXIT

# wait_for WHAT COMMAND…: until it holds, the program ends or time is up.
wait_for() {
  local what=$1
  shift
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
      tail -n 40 "$log" >&2
      die "cargo leptos serve: no $what"
    fi
    sleep 0.2
  done
}

listening() { grep -q 'listening on http://' "$log"; }

# fetch PATH PATTERN: the answer is a 200 and holds the pattern.
fetch() {
  curl --fail --silent --show-error --output "$answer" "$base$1"
  grep --text --quiet -- "$2" "$answer" || die "GET $1: $2 not found in the answer"
  say "GET $1: as expected"
}

choose_toolchain
cargo leptos serve --release -- --port 0 --model_path "$model" --tokenizer_path "$model" --data_dir "$data" >"$log" 2>&1 &
pid=$!

wait_for "listening line" listening
base=$(grep -o 'http://[0-9.]*:[0-9]*' < <(grep 'listening on' "$log") | head -n1)
wait_for "readiness" curl --fail --silent "$base/readyz"
fetch / '<html'
fetch / '/pkg/xverse-chat.wasm'
fetch /pkg/xverse-chat.js 'hydrate'
fetch /pkg/xverse-chat.wasm 'asm'
fetch /pkg/xverse-chat.css '{'

kill "$pid"
wait "$pid" || true
pid=""
if curl --silent "$base/healthz" >/dev/null; then die "the server still answers after cargo leptos was stopped"; fi
say "stopped"
