#!/usr/bin/env bash
# What a browser loads to bring the page to life must stay small: the script and the wasm together, as brotli sends them.
. "$(dirname "$0")/lib.sh"

budget_kb=220

size=$(cat "$site/pkg/xverse-chat.js.br" "$site/pkg/xverse-chat.wasm.br" | wc -c)

say "script and wasm: $((size / 1000)) KB with brotli, at most $budget_kb KB"
[ "$size" -le $((budget_kb * 1000)) ] || die "the page's script and wasm take $size bytes, at most ${budget_kb}000 expected" \
  "see what grew in target/front-pkg, and mind new dependencies with the feature hydrate"
