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
# $(LIBRARY)/releases/<version>   a release: an environment of its own, which can be moved as it is
# $(LIBRARY)/current              a link to the one that is in use: to switch releases is to move it
# $(PREFIX)/bin/broadcasterd      a link to the command of the current one

PREFIX ?= /usr
# Not somebody's Python in a home directory: a service does not see those.
SYSTEM_PYTHON ?= /usr/bin/python3

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' daemon/broadcasterd/__init__.py)
WHEEL := dist/broadcasterd-$(VERSION)-py3-none-any.whl
LIBRARY := $(PREFIX)/lib/broadcasterd
RELEASE := $(LIBRARY)/releases/$(VERSION)
STAGE := $(DESTDIR)$(LIBRARY)/releases/.$(VERSION)
UNITS := $(wildcard systemd/*.service systemd/*.socket)
UNIT_DIRECTORY := $(PREFIX)/lib/systemd/system
CATALOG_DIRECTORY := $(PREFIX)/lib/systemd/catalog
DOCS := $(PREFIX)/share/doc/broadcasterd
ETC := $(DESTDIR)/etc/broadcasterd
# Only the machine that this runs on, not a tree that is made for another, has a systemd to tell.
RUNS_SYSTEMD := $(if $(DESTDIR),false,test -d /run/systemd/system)

.venv-build/.installed: .ci/requirements-build.lock
	$(SYSTEM_PYTHON) -m venv .venv-build
	.venv-build/bin/python -m pip install --quiet --require-hashes -r .ci/requirements-build.lock
	@touch $@

$(WHEEL): .venv-build/.installed pyproject.toml README.md $(shell find daemon -name '*.py')
	.venv-build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@touch $@

.PHONY: release
release: $(WHEEL) ## put this version beside those that are installed, without switching to it
	rm -rf $(STAGE)
	mkdir -p $(dir $(STAGE))
	$(SYSTEM_PYTHON) -m venv --without-pip $(STAGE)
	.venv-build/bin/python -m pip --python $(STAGE)/bin/python install --quiet --no-compile \
		--require-hashes -r requirements.lock
	.venv-build/bin/python -m pip --python $(STAGE)/bin/python install --quiet --no-compile --no-deps $(WHEEL)
	@# What was made for this place only: scripts with its path in them, and a note of it.
	find $(STAGE)/bin -type f -delete
	sed -i '/^command = /d' $(STAGE)/pyvenv.cfg
	$(SYSTEM_PYTHON) -m compileall -q -j 0 --invalidation-mode unchecked-hash \
		-d $(RELEASE)/lib $(STAGE)/lib
	install -m 755 bin/broadcasterd $(STAGE)/bin/broadcasterd
	rm -rf $(DESTDIR)$(RELEASE)
	mv $(STAGE) $(DESTDIR)$(RELEASE)

# As root. An existing configuration, and an existing secret, is left alone.
.PHONY: install
install: release ## install this version for systemd (DESTDIR=, PREFIX=/usr, SYSTEM_PYTHON=)
	ln -sfn releases/$(VERSION) $(DESTDIR)$(LIBRARY)/.current
	mv -T $(DESTDIR)$(LIBRARY)/.current $(DESTDIR)$(LIBRARY)/current
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(UNIT_DIRECTORY) $(DESTDIR)$(CATALOG_DIRECTORY)
	ln -sfn ../lib/broadcasterd/current/bin/broadcasterd $(DESTDIR)$(PREFIX)/bin/broadcasterd
	install -m 644 systemd/broadcasterd.catalog $(DESTDIR)$(CATALOG_DIRECTORY)
	install -m 644 $(UNITS) $(DESTDIR)$(UNIT_DIRECTORY)
	sed -i -e 's|/usr/bin/broadcasterd|$(PREFIX)/bin/broadcasterd|' \
		-e 's|/usr/share/doc/broadcasterd|$(DOCS)|' \
		$(DESTDIR)$(CATALOG_DIRECTORY)/broadcasterd.catalog \
		$(addprefix $(DESTDIR)$(UNIT_DIRECTORY)/,$(notdir $(UNITS)))
	install -d $(DESTDIR)$(DOCS)
	install -m 644 README.md docs/*.md $(DESTDIR)$(DOCS)
	install -d $(ETC)
	test -e $(ETC)/broadcasterd.toml || \
		sed 's|^# secret_file|secret_file|' config/broadcasterd.toml >$(ETC)/broadcasterd.toml
	test -e $(ETC)/secret || (umask 077; $(NEW_SECRET) >$(ETC)/secret)
	if $(RUNS_SYSTEMD); then systemctl daemon-reload; journalctl --update-catalog; fi

.PHONY: uninstall
uninstall: ## remove every release, but neither configuration nor state
	if $(RUNS_SYSTEMD); then \
		systemctl disable --now broadcasterd.socket broadcasterd.service || true; \
		systemctl stop 'broadcasterd@*' || true; \
	fi
	rm -rf $(DESTDIR)$(LIBRARY) $(DESTDIR)$(DOCS)
	rm -f $(DESTDIR)$(PREFIX)/bin/broadcasterd $(DESTDIR)$(CATALOG_DIRECTORY)/broadcasterd.catalog
	rm -f $(addprefix $(DESTDIR)$(UNIT_DIRECTORY)/,$(notdir $(UNITS)))
	if $(RUNS_SYSTEMD); then systemctl daemon-reload; journalctl --update-catalog; fi

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
