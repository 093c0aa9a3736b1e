# Everything starts from a machine with python3 (>= 3.11, with venv) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CLIENTS := tests/e2e/clients
CLIENTS_INSTALLED := $(CLIENTS)/node_modules/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environment -----------------------------------------------------------------------------

.PHONY: venv
venv: $(INSTALLED) ## make .venv from the lock file

# No build isolation: the build backend is in the lock too, so nothing unpinned is fetched.
$(INSTALLED): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Without npm the tests that need JavaScript clients skip themselves, so this only says so.
$(CLIENTS_INSTALLED): $(wildcard $(CLIENTS)/package.json $(CLIENTS)/package-lock.json)
	@if ! command -v npm >/dev/null; then \
		echo "note: npm is missing; tests with JavaScript clients will skip"; \
	elif [ ! -f $(CLIENTS)/package-lock.json ]; then \
		echo "note: no $(CLIENTS)/package-lock.json; nothing to install for npm"; \
	else \
		npm ci --prefix $(CLIENTS) --no-audit --no-fund && touch $@; \
	fi

.PHONY: test-ready
test-ready: $(INSTALLED) $(CLIENTS_INSTALLED) ## make everything the tests need

# --- use -------------------------------------------------------------------------------------

.PHONY: run
run: $(INSTALLED) ## start the daemon on the development configuration, with lines to paste
	$(BIN)/broadcasterd serve --config config/development.toml --examples

# --- test ------------------------------------------------------------------------------------

.PHONY: test
test: test-ready ## run the whole suite
	$(BIN)/pytest

.PHONY: test-unit
test-unit: $(INSTALLED) ## run the tests that need no daemon
	$(BIN)/pytest tests/unit

.PHONY: test-integration
test-integration: $(INSTALLED) ## run the tests against a real daemon
	$(BIN)/pytest tests/integration

.PHONY: test-e2e
test-e2e: test-ready ## run the tests with real clients: curl, browsers, libraries
	$(BIN)/pytest tests/e2e

.PHONY: bench
bench: $(INSTALLED) ## measure fan-out, latency and memory
	$(BIN)/python tests/performance/bench.py

MINUTES ?= 5
SEED ?= $(shell date +%s)
.PHONY: soak
soak: $(INSTALLED) ## random load from a seed, invariants checked all along (MINUTES=5 SEED=1)
	$(BIN)/python tests/performance/soak.py --minutes $(MINUTES) --seed $(SEED)

# --- check -----------------------------------------------------------------------------------

.PHONY: lint
lint: $(INSTALLED) ## check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: format
format: $(INSTALLED) ## format the code and apply safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: typecheck
typecheck: $(INSTALLED) ## check types
	$(BIN)/mypy

# --- maintain --------------------------------------------------------------------------------

PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile --quiet \
	--generate-hashes --strip-extras --allow-unsafe --no-emit-find-links --no-emit-index-url

# Run it with the oldest Python that is supported: a lock holds for that one and newer ones.
.PHONY: lock
lock: ## write both lock files anew from pyproject.toml (LOCK_FLAGS=--upgrade for newer versions)
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools==7.6.2
	$(PIP_COMPILE) $(LOCK_FLAGS) --output-file requirements.lock pyproject.toml
	$(PIP_COMPILE) $(LOCK_FLAGS) --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml

.PHONY: clean
clean: ## remove everything that was made
	rm -rf $(VENV) .venv-lock build dist $(CLIENTS)/node_modules
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +
