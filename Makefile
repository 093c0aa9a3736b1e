# Everything starts from a machine with python3 (>= 3.11, with venv) and make.

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

comma := ,

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

$(TOOLS_INSTALLED): .ci/requirements-tools.lock
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --require-hashes -r .ci/requirements-tools.lock
	@touch $@

$(RECIPES_INSTALLED): .ci/requirements-recipes.lock
	$(PYTHON) -m venv $(RECIPES)
	$(RECIPES)/bin/pip install --quiet --require-hashes -r .ci/requirements-recipes.lock
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

# --- install and deploy ----------------------------------------------------------------------
#
# As root, on the machine that it is for, by a program: systemd/deployment, see docs/deploy.md.
# VERSION= names a release that is there already, or else names this checkout.

PREFIX ?= /usr/local
# Not somebody's Python in a home directory: a service does not see those.
SYSTEM_PYTHON ?= /usr/bin/python3
DEPLOYMENT = PYTHONPATH=systemd $(SYSTEM_PYTHON) -B -m deployment --prefix=$(PREFIX) --destdir=$(DESTDIR)

.PHONY: release releases install uninstall
release: ## put this version beside those that are installed, without switching to it
	$(DEPLOYMENT) release $(VERSION)

releases: ## list the releases that are there, and which is current, staging, previous
	@$(DEPLOYMENT) releases

install: ## install this version for systemd (DESTDIR=, PREFIX=/usr/local, SYSTEM_PYTHON=)
	$(DEPLOYMENT) install $(VERSION)

uninstall: ## remove every release, but neither configuration nor state
	$(DEPLOYMENT) uninstall

DIST ?= dist
.PHONY: deb
deb: PREFIX = /usr
deb: ## make a package for Debian (DIST=dist, VERSION=, DESTDIR= a tree that has the release)
	$(DEPLOYMENT) deb --into $(DIST) $(VERSION)

.PHONY: deploy-staging test-staging load-test-staging deploy-production test-production-smoke
.PHONY: rollback rollback-report
deploy-staging: ## have staging go on with this version (VERSION=)
	$(DEPLOYMENT) deploy staging $(VERSION)

test-staging: ## ask staging for what users rely on (URL= of another machine's)
	$(DEPLOYMENT) test staging --thorough $(if $(URL),--url $(URL))

SUBSCRIBERS ?= 1000
RATE ?= 20
DURATION ?= 20
HEALTH_MS ?= 100
load-test-staging: ## put load on staging (SUBSCRIBERS=1000 RATE=20 DURATION=20 HEALTH_MS=100, URL=)
	PYTHONPATH=systemd:. $(SYSTEM_PYTHON) -B -m tests.performance.loadtest --prefix $(PREFIX) \
		--subscribers $(SUBSCRIBERS) --rate $(RATE) --seconds $(DURATION) --health-ms $(HEALTH_MS) $(if $(URL),--url $(URL))

deploy-production: ## have production go on with this version, and come back if it fails (VERSION=)
	$(DEPLOYMENT) deploy production $(VERSION)

test-production-smoke: ## ask production for the least that it has to do (URL= of another machine's)
	$(DEPLOYMENT) test production $(if $(URL),--url $(URL))

rollback: ## have production go on with the release that it had before
	$(DEPLOYMENT) rollback

# As it was written: nothing in it is for make to expand, or for a shell to run.
unexport REASON
rollback-report: export ROLLBACK_REASON = $(value REASON)
rollback-report: ## write down why production went back, with the records around it (REASON=)
	$(DEPLOYMENT) rollback-report

# --- test ------------------------------------------------------------------------------------

# Three workers: a third of what the tests take is waiting, so that two cores are busy with three of
# them; the groups of floods and of containers are four. WORKERS=0 for a debugger.
WORKERS ?= 3
PYTEST := $(BIN)/pytest -n $(WORKERS)
# Where no bytecode is kept, each worker and each command compiles the daemon and the tests anew.
test test-fast test-unit test-integration test-e2e restarts flake-check coverage mutants: export PYTHONDONTWRITEBYTECODE :=

.PHONY: test test-fast test-unit test-integration test-e2e flake-check
test: test-ready ## run the whole suite (WORKERS=3)
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

# Not of what measures: it would measure this, too. A part of the suite (TESTS=) may reach too little.
.PHONY: coverage
coverage: test-ready ## run the suite and see what of the daemon it reaches, branch by branch (TESTS=)
	rm -rf build/coverage && mkdir -p build
	$(BIN)/coverage run -m pytest -n $(WORKERS) $(or $(TESTS),--ignore tests/performance tests) && failed=0 || failed=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage json --quiet && \
		$(BIN)/python .ci/coverage_bounds.py && exit $$failed

.venv-mutants/.installed: .ci/requirements-mutants.lock
	$(PYTHON) -m venv .venv-mutants
	.venv-mutants/bin/pip install --quiet --require-hashes -r .ci/requirements-mutants.lock
	@touch $@

.PHONY: mutants
mutants: $(INSTALLED) .venv-mutants/.installed ## see that the unit tests notice each change to what decides (ONLY=core/keys,memory)
	$(BIN)/python .ci/mutants.py $(subst $(comma), ,$(ONLY))

# What it compares with, and draws with; where it cannot be had, the benchmark goes without.
.venv-bench/.installed: .ci/requirements-bench.lock
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --require-hashes -r .ci/requirements-bench.lock
	@touch $@

.PHONY: bench soak simulate
bench: $(INSTALLED) ## measure beside other servers (QUICK=1, ONLY=publish,storm, SERVERS=, AGAINST=a revision, PAGE=1)
	-@$(MAKE) --no-print-directory .venv-bench/.installed
	$(BIN)/python tests/performance/bench.py $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
		$(if $(SERVERS),--servers $(SERVERS)) $(if $(AGAINST),--against $(AGAINST)) $(if $(PAGE),--page)

MINUTES ?= 5
soak: $(INSTALLED) ## random load from a seed, invariants checked all along (MINUTES=5 SEED= ATTACK=1)
	$(BIN)/python tests/performance/soak.py --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) \
		$(if $(ATTACK),--attack)

NODES ?= 100
EACH ?= 10000
simulate: $(INSTALLED) ## simulate how the clients of many nodes come back (NODES=100 of EACH=10000)
	$(BIN)/python -m tests.performance.simulate --nodes $(NODES) --clients $(EACH)

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

# Of this checkout, of any two commits in worktrees of their own, and the verdict: docs/quality.md.
TESTS ?= all
QUALITY = PYTHONPATH=.ci:. WORKERS=$(WORKERS) $(BIN)/python -m quality
PARTS = $(if $(ONLY),--only $(ONLY))

.PHONY: quality migration-baseline migration-validate migration-compare
quality: test-ready ## measure it all, into build/quality.json (TESTS=all|fast|a path, ONLY=tests,load,...)
	@$(QUALITY) report --tests $(TESTS) $(PARTS)

migration-baseline: test-ready ## measure what runs now, in a worktree (REF=, TESTS=, ONLY=, PREFIX=)
	@$(QUALITY) baseline --tests $(TESTS) $(PARTS) --library $(PREFIX)/lib/broadcasterd $(if $(REF),--ref $(REF))

migration-validate: test-ready ## measure what may take over, in a worktree (REF=HEAD, TESTS=, ONLY=)
	@$(QUALITY) candidate --tests $(TESTS) $(PARTS) $(if $(REF),--ref $(REF))

migration-compare: $(INSTALLED) ## put both side by side; the exit status says whether it may take over (ONLY=)
	@$(QUALITY) compare $(PARTS)

# --- maintain --------------------------------------------------------------------------------

.PHONY: reference
reference: $(INSTALLED) ## write what is read off commands and settings: docs/configuration.md, config/share/
	$(BIN)/python .ci/reference.py

PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile --quiet \
	--generate-hashes --strip-extras --allow-unsafe --no-emit-find-links --no-emit-index-url

.PHONY: lock clean
# Run it with the oldest Python that is supported: a lock holds for that one and newer ones.
lock: ## write the lock files anew from what is asked for (LOCK_FLAGS=--upgrade for newer versions)
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools==7.6.2
	$(PIP_COMPILE) $(LOCK_FLAGS) --output-file requirements.lock pyproject.toml
	$(PIP_COMPILE) $(LOCK_FLAGS) --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml
	$(PIP_COMPILE) $(LOCK_FLAGS) --only-build-deps --build-deps-for wheel \
		--constraint requirements-dev.lock --output-file .ci/requirements-build.lock pyproject.toml
	$(PIP_COMPILE) $(LOCK_FLAGS) --constraint requirements-dev.lock \
		--output-file .ci/requirements-tools.lock .ci/requirements-tools.in
	$(PIP_COMPILE) $(LOCK_FLAGS) --constraint requirements-dev.lock \
		--output-file .ci/requirements-bench.lock .ci/requirements-bench.in
	$(PIP_COMPILE) $(LOCK_FLAGS) --constraint requirements-dev.lock \
		--output-file .ci/requirements-recipes.lock .ci/requirements-recipes.in
	$(PIP_COMPILE) $(LOCK_FLAGS) --constraint requirements-dev.lock \
		--output-file .ci/requirements-mutants.lock .ci/requirements-mutants.in

clean: ## remove everything that was made
	rm -rf $(VENV) $(TOOLS) $(RECIPES) .venv-bench .venv-build .venv-lock .venv-mutants
	rm -rf .development build dist $(CLIENTS)/node_modules
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +
