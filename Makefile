# The commands: `make serve`, `make cuda` and `make test`. Each installs what is missing and can be run again at once.
# `make serve ARGS="--port 8080 --model_path /path/to/model"` passes flags on.

ARGS ?=
BINARY := $(or $(CARGO_TARGET_DIR),target)/release/xverse-chat

.DEFAULT_GOAL := help
.PHONY: help serve build cuda gpu-check test test-clients eval bench fmt clean-tools

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

serve: build ## install what is missing, build, and serve the chat page on http://127.0.0.1:36000
	@exec $(BINARY) $(ARGS)

build: ## the same without running: target/release/xverse-chat and target/site
	@scripts/setup.sh build
	@scripts/build.sh

cuda: ## the same with the backend for NVIDIA cards; needs neither a card nor CUDA to build
	@scripts/setup.sh build
	@scripts/build-kernels.sh
	@XVERSE_FEATURES=cuda scripts/build.sh

gpu-check: ## what the backend for cards computes and how fast, beside others; ARGS="--json FILE", DEVICE=cpu tries the script
	@$(or $(PYTHON),python3) examples/gpu_check/gpu_check.py $(ARGS)

test: ## install what is missing and run every check there is
	@scripts/setup.sh test
	@scripts/test.sh

test-clients: build ## OpenAI's clients for Python and Node.js, curl and lm-eval against the server
	@scripts/setup.sh clients
	@BINARY=$(BINARY) scripts/test-clients.sh

eval: ## MMLU, C-Eval, AGIEval, GAOKAO through the API of a running server; DATA=folder, and URL=, TASKS=, LIMIT=
	@scripts/setup.sh clients
	@scripts/eval.sh $(ARGS)

bench: ## the benchmarks, on this machine
	@scripts/setup.sh build
	@scripts/build.sh
	@scripts/with-toolchain.sh cargo bench --locked --features ssr $(ARGS)

fmt: ## format the Rust code
	@scripts/fmt.sh

clean-tools: ## remove what the setup installed for this project alone
	@rm -rf .tools end2end/node_modules tests/clients/node_modules
