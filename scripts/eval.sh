#!/usr/bin/env bash
# Evaluates the model behind an OpenAI-compatible server with lm-eval, five examples a question, and prints a table.
#   URL=http://127.0.0.1:36000 TASKS=mmlu,ceval DATA=evaluation LIMIT=20 scripts/eval.sh [--json FILE]
# `scripts/setup.sh clients` comes first; see examples/evaluation for the data.
. "$(dirname "$0")/lib.sh"

[ -x "$tools/clients/bin/python" ] || die "lm-eval is not here" "scripts/setup.sh clients"
options=(--url "${URL:-http://127.0.0.1:36000}" --data "${DATA:-evaluation}")
if [ -n "${TASKS:-}" ]; then options+=(--tasks "$TASKS"); fi
if [ -n "${LIMIT:-}" ]; then options+=(--limit "$LIMIT"); fi
export PYTHONDONTWRITEBYTECODE=1
exec "$tools/clients/bin/python" examples/evaluation/evaluate.py "${options[@]}" "$@"
