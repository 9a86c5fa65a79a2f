#!/usr/bin/env bash
# Builds the release server, and the page that it serves into target/site. XVERSE_FEATURES=cuda adds the backend for cards.
. "$(dirname "$0")/lib.sh"
. scripts/toolchain.sh

name=xverse-chat
staging=target/front-pkg

# What the compiler's default features for this target let it emit; cargo-leptos gets the same list from Cargo.toml.
wasm_opt_flags=(
  -Oz
  --enable-bulk-memory
  --enable-multivalue
  --enable-mutable-globals
  --enable-nontrapping-float-to-int
  --enable-reference-types
  --enable-sign-ext
)

build_server() {
  cargo build --release --locked --features "${XVERSE_FEATURES:-ssr}" --bin "$name"
}

build_wasm() {
  cargo build --profile wasm-release --locked --features hydrate --lib --target wasm32-unknown-unknown
}

# Makes the page's script and the small wasm from the compiler's, unless they were made from that very file.
bind_wasm() {
  local compiled=$target/wasm32-unknown-unknown/wasm-release/xverse_chat.wasm made_from
  made_from=$(cat "$compiled" scripts/build.sh Cargo.lock | sha256sum)
  if [ "$(cat "$staging/made-from" 2>/dev/null)" = "$made_from" ]; then return 0; fi
  rm -rf "$staging"
  mkdir -p "$staging"
  wasm-bindgen --target web --no-typescript --out-name "$name" --out-dir "$staging" "$compiled"
  # Without `_bg`: the name that Leptos asks for when LEPTOS_OUTPUT_NAME is set while it is compiled.
  wasm-opt "${wasm_opt_flags[@]}" "$staging/${name}_bg.wasm" -o "$staging/$name.wasm"
  rm "$staging/${name}_bg.wasm"
  printf '%s\n' "$made_from" >"$staging/made-from"
}

# inline_css FILE: the file with every `@import "other.css";` line replaced by what it names.
inline_css() {
  local line folder
  folder=$(dirname "$1")
  while IFS= read -r line || [ -n "$line" ]; do
    if [[ $line =~ ^@import[[:space:]]+\"([^\"]+)\"\;[[:space:]]*$ ]]; then
      inline_css "$folder/${BASH_REMATCH[1]}"
    elif [[ $line == @import* ]]; then
      die "cannot inline \`$line\`" 'write @import "file.css"; alone on its line'
    else
      printf '%s\n' "$line"
    fi
  done <"$1"
}

# Drops comments, indentation and empty lines.
squeeze_css() {
  sed -z 's:/\*[^*]*\*\+\([^/*][^*]*\*\+\)*/::g' | sed -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//' -e '/^$/d'
}

# Compresses the files as well as can be, once; the server sends what is there.
compress() {
  # shellcheck disable=SC2016
  node -e '
    const { readFileSync, writeFileSync } = require("node:fs");
    const { brotliCompressSync, gzipSync } = require("node:zlib");
    for (const path of process.argv.slice(1)) {
      const bytes = readFileSync(path);
      writeFileSync(`${path}.br`, brotliCompressSync(bytes));
      writeFileSync(`${path}.gz`, gzipSync(bytes, { level: 9 }));
    }
  ' "$@"
}

assemble_site() {
  rm -rf "$site.next"
  mkdir -p "$site.next/pkg"
  if [ -d public ]; then cp -R public/. "$site.next/"; fi
  cp "$staging/$name.js" "$staging/$name.wasm" "$site.next/pkg/"
  if [ -d "$staging/snippets" ]; then cp -R "$staging/snippets" "$site.next/pkg/"; fi
  inline_css style/main.css | squeeze_css >"$site.next/pkg/$name.css"
  compress "$site.next/pkg/$name".{js,wasm,css}
  rm -rf "$site"
  mv "$site.next" "$site"
}

choose_toolchain
steps build 4
step "the server, in release mode: about 20 minutes the first time on two cores, seconds when nothing changed" build_server
step "the page, as wasm: about 8 minutes the first time, one or two after a change" build_wasm
step "the page's script, and its wasm made small: under a minute" bind_wasm
step "style sheets and other files, into $site" assemble_site
