# The targets of measuring, and of what is written by programs: docs/quality.md, docs/performance.md.

# --- measure ---------------------------------------------------------------------------------

# Not of what measures: it would measure this, too. A part of the suite (TESTS=) may reach too little.
MEASURES = tests/performance tests/memory tests/integration/test_short_steps.py \
	tests/integration/test_memory_concurrency_stress.py
.PHONY: coverage
coverage: test-ready ## run the suite and see what of the daemon it reaches, branch by branch (TESTS=)
	rm -rf build/coverage && mkdir -p build
	$(BIN)/coverage run -m pytest -n $(WORKERS) $(or $(TESTS),$(MEASURES:%=--ignore %) tests) && failed=0 || failed=$$?; \
		$(BIN)/coverage combine --quiet && $(BIN)/coverage json --quiet && \
		$(BIN)/python .ci/coverage_bounds.py && exit $$failed

comma := ,

.PHONY: mutants
mutants: $(INSTALLED) .venv-mutants/.installed ## see that the unit tests notice each change to what decides (ONLY=core/keys,memory)
	$(BIN)/python .ci/mutants.py $(subst $(comma), ,$(ONLY))

# What it compares with, and draws with, may not be had: then it goes without.
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

# --- quality ---------------------------------------------------------------------------------

# Of this checkout, of any two commits in worktrees of their own, and the verdict: docs/quality.md.
QUALITY = PYTHONPATH=.ci:. WORKERS=$(WORKERS) $(BIN)/python -m quality
PARTS = --tests $(or $(TESTS),all) $(if $(ONLY),--only $(ONLY))

.PHONY: quality migration-baseline migration-validate migration-compare
quality: test-ready ## measure it all, into build/quality.json (TESTS=all|fast|a path, ONLY=tests,load,...)
	@$(QUALITY) report $(PARTS)

migration-baseline: test-ready ## measure what runs now, in a worktree (REF=, TESTS=, ONLY=, PREFIX=)
	@$(QUALITY) baseline $(PARTS) --library $(PREFIX)/lib/broadcasterd $(if $(REF),--ref $(REF))

migration-validate: test-ready ## measure what may take over, in a worktree (REF=HEAD, TESTS=, ONLY=)
	@$(QUALITY) candidate $(PARTS) $(if $(REF),--ref $(REF))

migration-compare: $(INSTALLED) ## put both side by side; the exit status says whether it may take over (ONLY=)
	@$(QUALITY) compare $(if $(ONLY),--only $(ONLY))

# --- write -----------------------------------------------------------------------------------

.PHONY: reference
reference: $(INSTALLED) ## write what is read off commands and settings: docs/configuration.md, config/share/
	$(BIN)/python .ci/reference.py

PIP_COMPILE := CUSTOM_COMPILE_COMMAND="make lock" .venv-lock/bin/pip-compile --quiet \
	--generate-hashes --strip-extras --allow-unsafe --no-emit-find-links --no-emit-index-url

.PHONY: lock
# Run it with the oldest Python that is supported: a lock holds for that one and newer ones.
lock: ## write the lock files anew from what is asked for (LOCK_FLAGS=--upgrade for newer versions)
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet pip-tools==7.6.2
	$(PIP_COMPILE) $(LOCK_FLAGS) --extra redis --output-file requirements.lock pyproject.toml
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
