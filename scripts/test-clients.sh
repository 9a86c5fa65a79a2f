#!/usr/bin/env bash
# Proves that programs which speak OpenAI's API work with the server: starts it with the mini model, runs tests/clients against
# it, and closes with how many passed and failed. `scripts/setup.sh clients` comes first. $BINARY is another server.
. "$(dirname "$0")/lib.sh"

binary=$(realpath "${BINARY:-$target/release/xverse-chat}")
export XVERSE_BINARY=$binary
export XVERSE_ACCESS_TOKEN=a-token-for-tests
export PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1
folder=$(mktemp -d)
export HF_HOME=$folder/huggingface
pids=()
mini=(--model_path models/xverse-mini)
passed=0
failed=0

stop() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" || true; done
  rm -rf "$folder"
}
trap stop EXIT

# start NAME FLAG…: a server of its own, its address in $url when it is ready.
start() {
  local name=$1 log=$folder/$1.log deadline=$((SECONDS + 60))
  shift
  env -u XVERSE_ACCESS_TOKEN "$binary" --port 0 --data_dir "$folder/$name" "$@" >"$log" 2>&1 &
  pids+=($!)
  url=""
  until [ -n "$url" ] && curl --fail --silent --output "$folder/answer" "$url/readyz"; do
    if ! kill -0 "${pids[-1]}" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
      cat "$log" >&2
      die "the server with ${*:-no flags} is not ready"
    fi
    sleep 0.1
    url=$(sed -n 's:^.*listening on \(http.//[0-9.]*\:[0-9]*\).*$:\1:p' "$log")
  done
}

# changed SETTING VALUE: Leptos.toml with another value, which works from any folder.
changed() {
  sed -e "s:^site-root = .*:site-root = \"$PWD/$site\":" -e "s:^$1 = .*:$1 = $2:" Leptos.toml
}

# count KIND FROM: adds the number before or after a word in what the runner printed last.
count_pytest() {
  awk -v kind="$1" '{ for (i = 2; i <= NF; i++) if ($i ~ "^" kind ",?$") n = $(i - 1) } END { print n + 0 }' "$folder/output"
}
count_node() { awk -v kind="$1" '$2 == kind { n = $3 } END { print n + 0 }' "$folder/output"; }

# suite WHAT COUNT FAILED-WORDS… -- COMMAND…: one that broke before it could count, or ran nothing, failed.
suite() {
  local what=$1 count=$2 bad=0 good=0 status word words=()
  shift 2
  while [ "$1" != -- ]; do
    words+=("$1")
    shift
  done
  shift
  begin "$what"
  set +e
  "$@" 2>&1 | tee "$folder/output"
  status=${PIPESTATUS[0]}
  set -e
  good=$("$count" "${words[0]}")
  for word in "${words[@]:1}"; do bad=$((bad + $("$count" "$word"))); done
  if [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ "$good" = 0 ]; }; then bad=1; fi
  passed=$((passed + good))
  failed=$((failed + bad))
  if [ "$bad" = 0 ]; then end "passed"; else end "FAILED"; fi
}

[ -x "$tools/clients/bin/python" ] || die "the clients are not here" "scripts/setup.sh clients"
[ -x "$binary" ] || die "$binary is not there" "make build"

steps clients 3
begin "servers on the mini model: a usual one, one before it, a slow one, one with an access token"
start usual "${mini[@]}"
export XVERSE_URL=$url
start front --upstream "$XVERSE_URL"
export XVERSE_FRONT_URL=$url
# Twenty milliseconds a step, so that there is a middle to leave in; few places, so that they can all be taken.
changed min_step_ms 20 >"$folder/slow.toml"
start slow "${mini[@]}" --config "$folder/slow.toml" --max_running 4 --max_waiting 2
export XVERSE_SLOW_URL=$url
start guarded "${mini[@]}" --access_token "$XVERSE_ACCESS_TOKEN"
export XVERSE_GUARDED_URL=$url
end "done"

suite "OpenAI's client for Python, curl, lm-eval" count_pytest passed failed error errors -- \
  "$tools/clients/bin/python" -m pytest -p no:cacheprovider --quiet --tb=short tests/clients
suite "OpenAI's client for Node.js" count_node pass fail cancelled -- \
  node --test --test-reporter=spec tests/clients/*.test.mjs

say "$passed passed, $failed failed"
[ "$failed" = 0 ]
