# Everything starts from a machine with python3 (>= 3.11, with venv) and make.

HERE := $(dir $(lastword $(MAKEFILE_LIST)))

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := .venv-tools
TOOLS_INSTALLED := $(TOOLS)/.installed
RECIPES := .venv-recipes
RECIPES_INSTALLED := $(RECIPES)/.installed
DEVELOPMENT_SECRET := .development/secret
CLIENTS := tests/e2e/clients
CLIENTS_INSTALLED := $(CLIENTS)/node_modules/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environment -----------------------------------------------------------------------------

.PHONY: venv
venv: $(INSTALLED) ## make .venv from the lock file

# No build isolation: the build backend is in the lock too, so nothing unpinned is fetched.
$(INSTALLED): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# Others for what is not to be mixed with it: tools, recipes, mutants, bench.
.venv-%/.installed: .ci/requirements-%.lock
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --require-hashes -r $<
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
test-ready: $(INSTALLED) $(TOOLS_INSTALLED) $(RECIPES_INSTALLED) $(CLIENTS_INSTALLED) ## make everything the tests need

# --- use -------------------------------------------------------------------------------------

# Nobody else on this machine is to read it, not even while it is written.
$(DEVELOPMENT_SECRET):
	@umask 077 && mkdir -p $(@D) && \
		$(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(48))' >$@

.PHONY: run dev-backend
run: $(INSTALLED) $(DEVELOPMENT_SECRET) ## start the daemon for development, with lines to paste
	$(BIN)/broadcasterd serve --config config/development.toml --examples

dev-backend: run ## another name of run

# --- test ------------------------------------------------------------------------------------

# Four workers: nearly half of what the tests take is waiting, so that two cores are busy with four
# of them; the groups of floods and of containers are six. WORKERS=0 for a debugger.
WORKERS ?= 4
PYTEST := $(BIN)/pytest -n $(WORKERS)
# Where no bytecode is kept, each worker and each command compiles the daemon and the tests anew.
test test-fast test-unit test-integration test-e2e restarts flake-check coverage mutants: export PYTHONDONTWRITEBYTECODE :=

.PHONY: test test-fast test-unit test-integration test-e2e flake-check
test: test-ready ## run the whole suite (WORKERS=4)
	$(PYTEST) --durations=25

test-fast: test-ready ## run what takes no longer than a second
	$(PYTEST) -m 'not slow' --hypothesis-profile=fast

test-unit: $(INSTALLED) ## run the tests that need no daemon
	$(PYTEST) tests/unit

test-integration: $(INSTALLED) ## run the tests against a real daemon
	$(PYTEST) tests/integration

test-e2e: test-ready ## run the tests with real clients: curl, browsers, libraries
	$(PYTEST) tests/e2e

RESTARTS ?= 100
.PHONY: restarts
restarts: $(INSTALLED) ## restart the daemon behind real proxies, under load, again and again (RESTARTS=100)
	BROADCASTERD_TEST_RESTARTS=$(RESTARTS) BROADCASTERD_TEST_SUBSCRIBERS=200 BROADCASTERD_TEST_PUBLISHERS=20 \
		$(BIN)/pytest tests/systemd/test_proxies.py -k restarts

RUNS ?= 10
flake-check: test-ready ## run the whole suite again and again, in any order, on a busy machine (RUNS=10)
	$(BIN)/python .ci/flake_check.py --runs $(RUNS) -- -n $(WORKERS) --hypothesis-profile=deep

# --- check -----------------------------------------------------------------------------------

.PHONY: lint format typecheck audit
lint: $(INSTALLED) $(TOOLS_INSTALLED) ## check style, formatting, imports and spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	PYTHONPATH=daemon $(TOOLS)/bin/lint-imports --no-logo
	$(TOOLS)/bin/codespell

format: $(INSTALLED) ## format the code and apply safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

typecheck: $(INSTALLED) ## check types
	$(BIN)/mypy

# AUDIT_FLAGS=--index-suffices: where pip-audit's service cannot be reached. See .ci/audit.py.
audit: $(INSTALLED) $(TOOLS_INSTALLED) ## look for known vulnerabilities, in our code and in what it runs on
	$(BIN)/python .ci/audit.py $(AUDIT_FLAGS)

# pre-commit says so in what it writes. Where its environment is gone, that is to say what helps.
GIT_HOOKS = $$(folder=$$(git rev-parse --git-path hooks) && \
	grep -ls "File generated by pre-commit" "$$folder"/*)

.PHONY: hooks hooks-off
hooks: $(INSTALLED) $(TOOLS_INSTALLED) ## have Git check every commit (.pre-commit-config.yaml)
	$(TOOLS)/bin/python -m pre_commit install
	@sed -i 's/Did you forget to activate your virtualenv?/Run `make hooks`, or `make hooks-off`./' $(GIT_HOOKS)

hooks-off: ## have Git check commits no longer
	@for hook in $(GIT_HOOKS); do \
		rm "$$hook" && if [ -e "$$hook.legacy" ]; then mv "$$hook.legacy" "$$hook"; fi; \
	done

# --- maintain --------------------------------------------------------------------------------

.PHONY: clean
clean: ## remove everything that was made
	rm -rf $(VENV) $(TOOLS) $(RECIPES) .venv-bench .venv-build .venv-lock .venv-mutants .venv-release
	rm -rf .development build dist $(CLIENTS)/node_modules
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- more, by subject ------------------------------------------------------------------------

include $(HERE)systemd/deployment/deployment.mk
# What is installed has no need of it.
-include $(HERE).ci/development.mk
