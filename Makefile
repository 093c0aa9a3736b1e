# Everything starts from a machine with python3 (>= 3.11, with venv) and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := .venv-tools
TOOLS_INSTALLED := $(TOOLS)/.installed
DEVELOPMENT_SECRET := .development/secret
CLIENTS := tests/e2e/clients
CLIENTS_INSTALLED := $(CLIENTS)/node_modules/.installed

NEW_SECRET := $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(48))'

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
test-ready: $(INSTALLED) $(TOOLS_INSTALLED) $(CLIENTS_INSTALLED) ## make everything the tests need

# --- use -------------------------------------------------------------------------------------

# Nobody else on this machine is to read it, not even while it is written.
$(DEVELOPMENT_SECRET):
	@umask 077 && mkdir -p $(@D) && \
		$(NEW_SECRET) >$@

.PHONY: run
run: $(INSTALLED) $(DEVELOPMENT_SECRET) ## start the daemon for development, with lines to paste
	$(BIN)/broadcasterd serve --config config/development.toml --examples

# --- install ---------------------------------------------------------------------------------
#
# $(LIBRARY)/releases/<version>   a release: an environment of its own, which can be moved as it is,
#                                 with its units, its catalog and its documentation
# $(LIBRARY)/current, staging     links to those that are in use: to switch releases is to move them
# $(PREFIX)/bin/broadcasterd      a link to the command of the current one

PREFIX ?= /usr
# Not somebody's Python in a home directory: a service does not see those.
SYSTEM_PYTHON ?= /usr/bin/python3

LIBRARY := $(PREFIX)/lib/broadcasterd
UNITS := $(wildcard systemd/*.service systemd/*.socket)
UNIT_DIRECTORY := $(PREFIX)/lib/systemd/system
CATALOG_DIRECTORY := $(PREFIX)/lib/systemd/catalog
DOCS := $(PREFIX)/share/doc/broadcasterd
ETC := $(DESTDIR)/etc/broadcasterd
# Only the machine that this runs on, not a tree that is made for another, has a systemd to tell.
RUNS_SYSTEMD := $(if $(DESTDIR),false,test -d /run/systemd/system)
DEPLOYMENT := PYTHONPATH=systemd $(SYSTEM_PYTHON) -B -m deployment --prefix $(DESTDIR)$(PREFIX)

# A release that is there is never made anew: a running daemon may import from it at any time. The
# same version with other contents is another release, 0.1.0+1a2b3c4d.
DECLARED := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' daemon/broadcasterd/__init__.py)
MADE_OF := Makefile pyproject.toml requirements.lock README.md $(wildcard docs/*.md) $(UNITS) \
	systemd/launcher systemd/broadcasterd.catalog $(sort $(shell find daemon -name '*.py'))
CONTENTS := $(shell { $(SYSTEM_PYTHON) -V; cat $(MADE_OF); } | sha256sum | cut -c -8)
SAME_VERSION := $(shell cat $(DESTDIR)$(LIBRARY)/releases/$(DECLARED)/contents 2>/dev/null)
VERSION ?= $(DECLARED)$(if $(filter-out $(CONTENTS),$(SAME_VERSION)),+$(CONTENTS))
RELEASE := $(DESTDIR)$(LIBRARY)/releases/$(VERSION)
# Made beside its place, and put there in one step. Nobody else makes it in the same directory.
STAGE := $(DESTDIR)$(LIBRARY)/releases/.$(VERSION)-$(shell echo $$PPID)
SCRATCH := build/$(notdir $(STAGE))

.venv-build/.installed: .ci/requirements-build.lock
	$(SYSTEM_PYTHON) -m venv .venv-build
	.venv-build/bin/python -m pip install --quiet --require-hashes -r .ci/requirements-build.lock
	@touch $@

.PHONY: release
release: $(RELEASE) ## put this version beside those that are installed, without switching to it

$(RELEASE): $(if $(wildcard $(RELEASE)),,.venv-build/.installed)
	mkdir -p $(STAGE) $(SCRATCH)
	cp -r LICENSE README.md pyproject.toml daemon $(SCRATCH)
	sed -i 's/^__version__ = .*/__version__ = "$(VERSION)"/' $(SCRATCH)/daemon/broadcasterd/__init__.py
	sed -i 's/^version = .*/version = "$(VERSION)"/' $(SCRATCH)/pyproject.toml
	.venv-build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation \
		--wheel-dir $(SCRATCH) $(SCRATCH)
	$(SYSTEM_PYTHON) -m venv --without-pip $(STAGE)
	.venv-build/bin/python -m pip --python $(STAGE)/bin/python install --quiet --no-compile \
		--require-hashes -r requirements.lock
	.venv-build/bin/python -m pip --python $(STAGE)/bin/python install --quiet --no-compile --no-deps \
		$(SCRATCH)/*.whl
	rm -r $(SCRATCH)
	@# What was made for this place only: scripts with its path in them, and a note of it.
	find $(STAGE)/bin -type f -delete
	sed -i '/^command = /d' $(STAGE)/pyvenv.cfg
	$(SYSTEM_PYTHON) -m compileall -q -j 0 --invalidation-mode unchecked-hash \
		-d $(LIBRARY)/releases/$(VERSION)/lib $(STAGE)/lib
	install -m 755 systemd/launcher $(STAGE)/bin/broadcasterd
	install -d $(STAGE)/doc $(STAGE)/systemd
	install -m 644 README.md docs/*.md $(STAGE)/doc
	install -m 644 $(UNITS) systemd/broadcasterd.catalog $(STAGE)/systemd
	sed -i -e 's|/usr/bin/broadcasterd|$(PREFIX)/bin/broadcasterd|' \
		-e 's|/usr/share/doc/broadcasterd|$(DOCS)|' $(STAGE)/systemd/*
	@# Staging has units of its own, which differ in the release that they start.
	for kind in service socket; do \
		sed 's|$(PREFIX)/bin/broadcasterd|$(LIBRARY)/staging/bin/broadcasterd|' \
			$(STAGE)/systemd/broadcasterd@.$$kind >$(STAGE)/systemd/broadcasterd@staging.$$kind; \
	done
	echo $(CONTENTS) >$(STAGE)/contents
	mv -T $(STAGE) $@

# As root. An existing configuration, and an existing secret, is left alone.
.PHONY: install
install: release $(ETC)/broadcasterd.toml $(ETC)/secret ## install this version for systemd (DESTDIR=, PREFIX=/usr, SYSTEM_PYTHON=)
	$(DEPLOYMENT) install $(VERSION)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(CATALOG_DIRECTORY) $(dir $(DESTDIR)$(DOCS))
	ln -sfn ../lib/broadcasterd/current/bin/broadcasterd $(DESTDIR)$(PREFIX)/bin/broadcasterd
	ln -sfn ../../broadcasterd/current/systemd/broadcasterd.catalog $(DESTDIR)$(CATALOG_DIRECTORY)/broadcasterd.catalog
	rm -rf $(DESTDIR)$(DOCS)
	ln -s ../../lib/broadcasterd/current/doc $(DESTDIR)$(DOCS)
	if $(RUNS_SYSTEMD); then systemctl daemon-reload; journalctl --update-catalog; fi

$(ETC)/broadcasterd.toml: SECRET := secret
$(ETC)/staging.toml: SECRET := staging.secret
$(ETC)/broadcasterd.toml $(ETC)/staging.toml:
	install -d $(@D)
	sed 's|^# secret_file = "\([^"]*\)/secret"|secret_file = "\1/$(SECRET)"|' config/broadcasterd.toml >$@

$(ETC)/secret $(ETC)/staging.secret:
	install -d $(@D)
	umask 077; $(NEW_SECRET) >$@

.PHONY: uninstall
uninstall: ## remove every release, but neither configuration nor state
	if $(RUNS_SYSTEMD); then \
		systemctl disable --now broadcasterd.socket broadcasterd.service || true; \
		systemctl stop 'broadcasterd@*' || true; \
	fi
	rm -rf $(DESTDIR)$(LIBRARY) $(DESTDIR)$(DOCS)
	rm -f $(DESTDIR)$(PREFIX)/bin/broadcasterd $(DESTDIR)$(CATALOG_DIRECTORY)/broadcasterd.catalog
	rm -f $(addprefix $(DESTDIR)$(UNIT_DIRECTORY)/,$(notdir $(UNITS)) broadcasterd@staging.service broadcasterd@staging.socket)
	if $(RUNS_SYSTEMD); then systemctl daemon-reload; journalctl --update-catalog; fi

# --- deploy ----------------------------------------------------------------------------------
#
# As root, on the machine that is deployed to. VERSION= names what is deployed: a release that is
# there already, or else this checkout.

.PHONY: deploy-staging
deploy-staging: release $(ETC)/staging.toml $(ETC)/staging.secret ## have staging go on with this version (VERSION=)
	$(DEPLOYMENT) deploy staging $(VERSION)

.PHONY: test-staging
test-staging: ## ask staging for what users rely on (URL= of another machine's)
	$(DEPLOYMENT) test staging --thorough $(if $(URL),--url $(URL))

SUBSCRIBERS ?= 1000
RATE ?= 20
DURATION ?= 20
HEALTH_MS ?= 500
.PHONY: load-test-staging
load-test-staging: ## put load on staging (SUBSCRIBERS=1000 RATE=20 DURATION=20 HEALTH_MS=500, URL=)
	PYTHONPATH=systemd:. $(SYSTEM_PYTHON) -B -m tests.performance.loadtest --prefix $(PREFIX) \
		--subscribers $(SUBSCRIBERS) --rate $(RATE) --seconds $(DURATION) --health-ms $(HEALTH_MS) $(if $(URL),--url $(URL))

.PHONY: deploy-production
deploy-production: release ## have production go on with this version, and come back if it fails (VERSION=)
	$(DEPLOYMENT) deploy production $(VERSION)

.PHONY: test-production-smoke
test-production-smoke: ## ask production for the least that it has to do (URL= of another machine's)
	$(DEPLOYMENT) test production $(if $(URL),--url $(URL))

.PHONY: rollback
rollback: ## have production go on with the release that it had before
	$(DEPLOYMENT) rollback

# --- test ------------------------------------------------------------------------------------

# Two workers: on one core it is no slower, and on many the floods of several would be in each
# other's way. WORKERS=0 for a debugger.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -n $(WORKERS)

.PHONY: test
test: test-ready ## run the whole suite (WORKERS=2)
	$(PYTEST) --durations=25

.PHONY: test-fast
test-fast: test-ready ## run what takes no longer than a second
	$(PYTEST) -m 'not slow'

.PHONY: test-unit
test-unit: $(INSTALLED) ## run the tests that need no daemon
	$(PYTEST) tests/unit

.PHONY: test-integration
test-integration: $(INSTALLED) ## run the tests against a real daemon
	$(PYTEST) tests/integration

.PHONY: test-e2e
test-e2e: test-ready ## run the tests with real clients: curl, browsers, libraries
	$(PYTEST) tests/e2e

RUNS ?= 10
.PHONY: flake-check
flake-check: test-ready ## run the whole suite again and again, in any order, on a busy machine (RUNS=10)
	$(BIN)/python .ci/flake_check.py --runs $(RUNS) -- -n $(WORKERS)

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

# AUDIT_FLAGS=--index-suffices: where pip-audit's service cannot be reached. See .ci/audit.py.
.PHONY: audit
audit: $(INSTALLED) $(TOOLS_INSTALLED) ## look for known vulnerabilities, in our code and in what it runs on
	$(BIN)/python .ci/audit.py $(AUDIT_FLAGS)

# --- maintain --------------------------------------------------------------------------------

PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile --quiet \
	--generate-hashes --strip-extras --allow-unsafe --no-emit-find-links --no-emit-index-url

# Run it with the oldest Python that is supported: a lock holds for that one and newer ones.
.PHONY: lock
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

.PHONY: clean
clean: ## remove everything that was made
	rm -rf $(VENV) $(TOOLS) .venv-lock .venv-build .development build dist $(CLIENTS)/node_modules
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find daemon tests -name __pycache__ -type d -prune -exec rm -rf {} +
