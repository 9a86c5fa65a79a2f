#!/usr/bin/env bash
# Runs every check there is, all of them even where one fails, and closes with how many passed and failed.
. "$(dirname "$0")/lib.sh"
. scripts/toolchain.sh
. scripts/cuda-toolkit.sh

passed=0
failed=0
skipped=0
status=0
failures=()
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# attempt WHAT COMMAND…: runs it with what it prints both shown and kept in $output, and leaves how it ended in $status.
# Never call it as a condition: `set -e` would then not hold inside the command.
attempt() {
  local what=$1
  shift
  begin "$what"
  set +e
  (
    set -e
    "$@"
  ) 2>&1 | tee "$output"
  status=${PIPESTATUS[0]}
  set -e
  if [ "$status" = 0 ]; then
    end "passed"
  else
    end "FAILED"
    failures+=("$what")
  fi
}

# check WHAT COMMAND…: counts as one.
check() {
  attempt "$@"
  if [ "$status" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}

# suite WHAT COUNT COMMAND…: counts as many as COUNT, which prints `PASSED FAILED`, reads in the output.
suite() {
  local what=$1 count=$2 suite_passed suite_failed
  shift 2
  attempt "$what" "$@"
  read -r suite_passed suite_failed < <("$count")
  # One that broke before it could count its failures is a failure all the same, and so is one that ran nothing.
  if [ "$status" != 0 ] && [ "$suite_failed" = 0 ]; then suite_failed=1; fi
  if [ "$status" = 0 ] && [ "$suite_passed" = 0 ]; then
    suite_failed=1
    failures+=("$what: it ran no test")
  fi
  passed=$((passed + suite_passed))
  failed=$((failed + suite_failed))
}

# skip WHAT WHY
skip() {
  begin "$1"
  end "skipped, $2"
  skipped=$((skipped + 1))
}

# Each test binary closes with `test result: ok. 12 passed; 0 failed; …`.
count_cargo() {
  awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }' "$output"
}

# Playwright closes with lines like `  2 failed` and `  12 passed (30.1s)`; a flaky one passed in the end.
count_playwright() {
  awk '
    $1 ~ /^[0-9]+$/ && $2 == "passed" { passed = $1 }
    $1 ~ /^[0-9]+$/ && $2 == "flaky" { flaky = $1 }
    $1 ~ /^[0-9]+$/ && ($2 == "failed" || $2 == "interrupted") { failed += $1 }
    END { print passed + flaky, failed + 0 }
  ' "$output"
}

lint_scripts() { shellcheck .ci/run scripts/*.sh; }

lint_server() { cargo clippy --locked --features ssr --all-targets -- -D warnings; }

lint_page() { cargo clippy --locked --features hydrate --lib --target wasm32-unknown-unknown -- -D warnings; }

check_kernels() { scripts/build-kernels.sh --check; }

card_tests() { cargo test --locked --release --no-fail-fast --features cuda --test server cards::; }

lint_cuda() { cargo clippy --locked --features cuda --all-targets -- -D warnings; }

build_documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --features ssr; }

check_dependencies() {
  cargo deny --locked --features ssr,hydrate check bans licenses sources
  say "advisories were not checked: their database is not fetched here"
}

rust_tests() { cargo test --locked --release --no-fail-fast --features ssr; }

check_browser_tests() { npm run --prefix end2end --silent check; }

browser_tests() {
  local chromium
  chromium=$(browser)
  cd end2end
  CHROMIUM=$chromium npx --no-install playwright test --reporter=list
}

# Its last line is like `12 passed, 0 failed`.
count_clients() { awk '/^[0-9]+ passed, [0-9]+ failed$/ { passed = $1; failed = $3 } END { print passed + 0, failed + 0 }' "$output"; }

client_tests() {
  scripts/setup.sh clients
  scripts/test-clients.sh
}

choose_toolchain
steps test 16

check "formatting" scripts/fmt.sh --check
check "shell scripts" lint_scripts
check "dependencies: licences, bans and sources" check_dependencies
check "release build of server and page: half an hour the first time on two cores" scripts/build.sh
check "size of the page's script and wasm" scripts/check-size.sh
check "lints of the server and its tests: about eight minutes the first time" lint_server
check "lints of the page: about three minutes the first time" lint_page
if has_cuda_toolkit; then
  check "kernels for cards, and what they take" check_kernels
  check "lints of the server with the backend for cards" lint_cuda
else
  skip "kernels for cards, and what they take" "CUDA's compiler is not here (make cuda gets it)"
  skip "lints of the server with the backend for cards" "CUDA's compiler is not here"
fi
check "documentation" build_documentation
check "types of the browser tests" check_browser_tests
suite "unit and integration tests: about ten minutes after a change" count_cargo rust_tests
suite "browser tests" count_playwright browser_tests
if has_cuda_toolkit; then
  suite "the server with the backend for cards, on a stand-in for a card" count_cargo card_tests
else
  skip "the server with the backend for cards" "CUDA's compiler is not here"
fi
if [ -d "$tools/clients" ]; then
  suite "OpenAI's clients, curl and lm-eval against the server" count_clients client_tests
else
  skip "OpenAI's clients, curl and lm-eval against the server" "they are not here (make test-clients gets them, 700 MB)"
fi
if have cargo-leptos; then
  check "cargo leptos serve" scripts/test-cargo-leptos.sh
else
  skip "cargo leptos serve" "cargo-leptos is not installed (cargo install cargo-leptos takes about half an hour)"
fi

say
for failure in "${failures[@]}"; do say "failed: $failure"; done
say "all of it took $(duration $SECONDS)"
if [ "$skipped" -gt 0 ]; then
  say "$passed passed, $failed failed, $skipped skipped"
else
  say "$passed passed, $failed failed"
fi
[ "$failed" = 0 ]
