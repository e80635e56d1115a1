# The commands of the project. Each sets up what it needs first; `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Set-up, build and tests follow each other; each uses all cores by itself.
.NOTPARALLEL:
.PHONY: again help run run-tls watch test test-proxies fuzz build dist bench bench-page bench-transports pictures \
        setup-build setup-test setup-proxies

# Tools that scripts/setup.sh had to put into a folder of their own come first.
export PATH := $(shell scripts/setup.sh path)

# The release build has a folder of its own for the site, so that `watch` does not overwrite it.
site := target/release/site
program := target/release/waterclock
build_pages := cargo leptos build --release --frontend-only
sources := $(shell find .cargo Cargo.toml Cargo.lock src app server/Cargo.toml server/build.rs server/src crates frontend style public)

help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST)

run: setup-build target/release/.built ## Set up, build for release, and serve on http://127.0.0.1:3000
	@$(program)

run-tls: setup-build target/release/.built ## The same with TLS and HTTP/2, on https://127.0.0.1:3000, with a certificate of its own
	@$(program) --tls-self-signed

watch: setup-build ## Set up, and build, serve and reload on every change (cargo leptos watch)
	cargo leptos watch

test: setup-test build ## Set up, and run everything that there is to test
	scripts/test.sh

test-proxies: setup-proxies build ## Build, and run the tests behind nginx, HAProxy, Caddy and Apache httpd (some minutes)
	cd end2end && WATERCLOCK_BINARY=$(CURDIR)/$(program) npx playwright test --config proxies.config.ts

# How long each target is fuzzed.
SECONDS ?= 20

fuzz: setup-build ## Look for bytes that break the parsers, SECONDS=20 for each (libFuzzer, or else proptest)
	scripts/fuzz.sh $(SECONDS)

build: setup-build target/release/.built ## Set up, build for release, and say what the first load of the page weighs
	@node scripts/size.mjs $(program)

dist: build ## Build, and put the program with the page inside, one file, into target/dist
	@install -D $(program) target/dist/waterclock
	@echo 'make: target/dist/waterclock is all there is: copy it wherever the same C library is'

# What make has built and nobody else has since, who may have left the page out.
ours := $(shell [ -e $(program) ] && ! [ $(program) -nt target/release/.ours ] && echo yes)

# The pages first: the server has them inside. Each has a module of its own, so that / need not load the others'.
# The stamp is as old as the beginning, so that no edit during the build is lost.
target/release/.built: $(sources) $(if $(ours),,again)
	@mkdir -p $(@D) && touch $@.begun
	@echo 'make: building the page and the server for release (some minutes the first time)'
	for page in compare diagnose; do \
	    LEPTOS_SITE_ROOT=target/release/$$page-site $(build_pages) --lib-features $$page || exit; done
	LEPTOS_SITE_ROOT=$(site) $(build_pages) --lib-features home
	@for page in compare diagnose; do for kind in js wasm; do \
	    cp target/release/$$page-site/pkg/waterclock.$$kind $(site)/pkg/$$page.$$kind; done; done
	@rm -f $(site)/pkg/*.d.ts
	LEPTOS_SITE_ROOT=$(site) MEMORY_SERVE_QUIET=1 cargo build --release --package server --features embed
	@touch target/release/.ours && mv $@.begun $@

again:

bench: build ## Build, and show how fast the server is, beside a raw loop and axum's own Sse (6 minutes)
	cargo build --release --package bench
	@taskset --cpu-list 1 target/release/bench $(program)

bench-page: setup-test build ## Build, and show what 10,000 events a second do to the page, beside one in React (3 minutes)
	@cd bench/page && npm ci --no-audit --no-fund --silent
	@node bench/page/run.mjs $(program)

bench-transports: setup-test build ## Build, and show the figures of /compare on this machine, in Chromium (a minute)
	@node bench/transports.mjs $(program)

pictures: setup-test build ## Put a picture of the pages in each state into end2end/pictures
	@rm -rf end2end/pictures
	cd end2end && PICTURES=pictures WATERCLOCK_BINARY=$(CURDIR)/$(program) npx playwright test looks

setup-build:
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test

setup-proxies:
	@scripts/setup.sh proxies
