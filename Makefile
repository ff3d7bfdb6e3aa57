# The two commands: `make demo` and `make test`. Both set up everything that they need.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/uv: requirements/bootstrap.txt scripts/make_venv
	@PYTHON=$(PYTHON) scripts/make_venv $(VENV)

$(VENV)/.runtime: $(BIN)/uv requirements/runtime.txt pyproject.toml
	@echo "Installing turnwise into $(VENV) …"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes \
		-r requirements/runtime.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q loop collectors evaluators optimizers routing_policies
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@echo "Installing the test tools …"
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: setup
setup: $(VENV)/.runtime ## Lay the environment into .venv

.PHONY: demo
demo: setup ## Run the whole loop on embedded defaults (EXIT=1 ends it after checking its claims)
	@$(BIN)/turnwise demo $(if $(EXIT),--exit) $(DEMO_ARGS)

TEST_PROCESSES ?= auto
.PHONY: test
test: $(VENV)/.dev system-packages lint ## Check and test everything (TEST_PROCESSES=auto)
	@$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --maxprocesses=4 --dist=loadfile $(PYTEST_ARGS)

.PHONY: lint
lint: $(VENV)/.dev ## Format, lint, import and type checks
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy

.PHONY: system-packages
system-packages:
	@scripts/install_system_packages

.PHONY: test-litellm
test-litellm: $(VENV)/.dev .venv-litellm/.done ## Test the plugin in the real LiteLLM proxy (some 600 MB)
	@$(BIN)/python -m pytest tests/routing_policies/gateways/litellm_proxy.py

.venv-litellm/.done: $(BIN)/uv requirements/litellm.txt
	@echo "Installing LiteLLM into .venv-litellm …"
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python .venv-litellm
	@VIRTUAL_ENV=.venv-litellm $(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements/litellm.txt
	@touch $@

.PHONY: test-portkey
test-portkey: $(VENV)/.dev .node-portkey/.done ## Test the webhook in the real Portkey gateway (npm, some 25 MB)
	@$(BIN)/python -m pytest tests/routing_policies/gateways/portkey_gateway.py

.node-portkey/.done: requirements/portkey/package-lock.json
	@echo "Installing Portkey's gateway into .node-portkey …"
	@mkdir -p .node-portkey && cp requirements/portkey/package*.json .node-portkey/
	@cd .node-portkey && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

.PHONY: test-kong
test-kong: $(VENV)/.dev .nginx-lua/.done ## Test the Kong plugin under Debian's nginx with Lua
	@$(BIN)/python -m pytest tests/routing_policies/gateways/kong_plugin.py

.nginx-lua/.done: scripts/fetch_nginx_lua
	@echo "Unpacking nginx and its Lua module into .nginx-lua …"
	@scripts/fetch_nginx_lua .nginx-lua

.PHONY: test-client
test-client: $(VENV)/.dev .node-client/.done .venv-litellm/.done ## Test with the real Claude Code client, offline (npm, 380 MB)
	@$(BIN)/python -m pytest tests/routing_policies/gateways/claude_client.py

.node-client/.done: requirements/claude-client/package-lock.json
	@echo "Installing Claude Code into .node-client …"
	@mkdir -p .node-client && cp requirements/claude-client/package*.json .node-client/
	@cd .node-client && npm ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

.PHONY: judge-live
judge-live: $(VENV)/.dev ## Hold the real model API to the judge's contract (ANTHROPIC_API_KEY; costs some cents)
	@$(BIN)/python -m pytest -rs -p no:cacheprovider --timeout=90000 tests/evaluators/judge_live.py

FUZZ_SECONDS ?= 600
.PHONY: fuzz
fuzz: $(VENV)/.dev ## Search for bodies that break a decoder (FUZZ_SECONDS=600)
	@FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest tests/collectors/test_decoder_fuzz.py \
		tests/collectors/test_exactness.py \
		-p no:randomly --timeout=$$(($(FUZZ_SECONDS) + 600))

.PHONY: bench
bench: $(VENV)/.dev ## Run the benchmarks and write bench/results
	@$(BIN)/python -m bench

.PHONY: lock
lock: $(BIN)/uv ## Renew the pinned requirements
	@scripts/lock_requirements $(BIN)/uv

.PHONY: clean
clean: ## Remove the environment and the caches
	rm -rf $(VENV) .venv-litellm .node-portkey .node-client .nginx-lua .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
