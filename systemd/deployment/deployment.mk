# The targets of installing and deploying, as root, on the machine that it is for: docs/deploy.md.
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
