# The commands of the project. Each installs what it needs first. `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Set-up, build and tests run one after the other; each uses all cores by itself.
.NOTPARALLEL:
.PHONY: again help run run-tls run-cluster watch check lint doc unit e2e test test-clients test-cluster test-proxies soak \
        fuzz build dist dist-docs deb image test-packages client bench bench-cluster bench-page bench-transports moving-picture \
        pictures setup-build setup-client \
        setup-unit setup-lint setup-test setup-proxies setup-cluster setup-nats

# Tools that scripts/setup.sh has put into folders of their own come first.
export PATH := $(shell scripts/setup.sh path)

# The site of the release build is in a folder of its own, so that `watch` does not overwrite it.
site := target/release/site
program := target/release/waterclock
# The pages with a WebAssembly module of their own, so that / need not load their code.
own_pages := compare diagnose topics
build_pages := cargo leptos build --release --frontend-only
sources := $(shell find .cargo Cargo.toml Cargo.lock src app crates server/Cargo.toml server/build.rs \
    server/src frontend style public client/client.js client/client.js.br 2>/dev/null)

help: ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.* ## (.*)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "make %-17s %s\n", $$1, $$2 }'

run: setup-build target/release/.built ## Build for release, and serve on http://127.0.0.1:3000
	@$(program)

run-tls: setup-build target/release/.built ## The same on https://127.0.0.1:3000, with HTTP/2 and a self-signed certificate
	@$(program) --tls-self-signed

run-cluster: setup-build setup-cluster target/release/.built ## Serve with three nodes and three NATS servers on http://127.0.0.1:3000
	@scripts/run-cluster.sh $(program)

watch: setup-build ## Build, serve, and reload after every change (cargo leptos watch)
	cargo leptos watch

# The times in the help are those on 2 cores after a small change, without the time of `make build`.
check: setup-build ## Check that the server and the page compile (some seconds)
	cargo check --quiet --all-targets
	cargo check --quiet --package frontend --target wasm32-unknown-unknown

lint: setup-lint ## Check format, clippy, import circles, names, comments and documentation (half a minute)
	@scripts/test.sh lint

doc: setup-build ## Build the documentation into target/doc (10 seconds)
	@scripts/test.sh doc

unit: setup-unit ## Run the unit, property and integration tests, those of the scripts and of the client (2 minutes)
	@scripts/test.sh unit

export E2E
e2e: setup-test build ## Run the tests in Chromium and Firefox (9 minutes), or some: E2E="tabs -g 'a name'"
	@scripts/test.sh e2e

test: setup-test build ## Run all of these, public clients, and the tests behind proxies (20 minutes)
	@scripts/test.sh

test-clients: setup-test build ## Run public clients and the examples against the server, and compare with docs/clients.md (3 minutes)
	@scripts/test.sh clients

test-cluster: setup-build setup-nats ## Run the tests of several nodes on NATS JetStream (4 minutes)
	@NATS_REQUIRED=yes scripts/test.sh cluster

test-proxies: setup-proxies build ## Run the tests behind nginx, HAProxy, Caddy and Apache httpd (4 minutes)
	@scripts/test.sh proxies

soak: setup-build ## Run 10,000 simulations, 100 faults of a cluster, 1,000 power cuts, ten minutes of clients that come and go, and a crowd of 15,000 (an hour)
	@scripts/test.sh soak

# The time that each target is fuzzed for.
SECONDS ?= 20

fuzz: setup-build ## Fuzz the parsers, each for SECONDS=20 (libFuzzer, or else proptest)
	scripts/fuzz.sh $(SECONDS)

build: setup-build target/release/.built ## Build for release, and print the size of the first load of each page (5 minutes the first time)
	@node scripts/size.mjs $(program)

dist: build ## Build, and put the program, one file with the pages inside, into target/dist
	@install -D $(program) target/dist/waterclock
	@echo 'make: target/dist/waterclock runs on every system with the same C library'

dist-docs: build ## Put the completions of shells and the man pages into target/dist (some seconds)
	@mkdir -p target/dist/completions
	@for shell in bash zsh fish; do \
	    $(program) completions $$shell >target/dist/completions/waterclock.$$shell || exit; done
	@$(program) man target/dist/man

deb: dist ## Build the Debian package target/dist/waterclock_VERSION_ARCH.deb from the program of `make dist`
	@packaging/deb/build.sh target/dist/waterclock target/dist

image: dist ## Build the OCI image target/dist/waterclock-image.tar from the program of `make dist`, without Docker
	@node packaging/image/build.mjs target/dist/waterclock target/dist/waterclock-image.tar
	@echo 'target/dist/waterclock-image.tar'

test-packages: setup-test build ## Run the tests of the Debian package, the image and the manifests for Kubernetes (some seconds)
	@scripts/test.sh packages

client: setup-client ## Build the client for pages, and pack it for npm into target/dist (some seconds)
	@mkdir -p target/dist
	cd client && npm pack --silent --pack-destination ../target/dist

# Set if the program is the one that make has built. A plain `cargo build` may have left out the pages.
ours := $(shell [ -e $(program) ] && ! [ $(program) -nt target/release/.ours ] && echo yes)

# The pages are built first, since the server has them inside. Each page has a WebAssembly module of
# its own, so that / need not load the others'. The stamp has the time of the beginning, so that no
# edit during the build is lost.
target/release/.built: $(sources) $(if $(ours),,again)
	@mkdir -p $(@D) && touch $@.begun
	@echo 'make: building the page and the server for release (some minutes the first time)'
	for page in $(own_pages); do \
	    LEPTOS_SITE_ROOT=target/release/$$page-site $(build_pages) --lib-features $$page || exit; done
	LEPTOS_SITE_ROOT=$(site) $(build_pages) --lib-features home
	@for page in $(own_pages); do for kind in js wasm; do \
	    cp target/release/$$page-site/pkg/waterclock.$$kind $(site)/pkg/$$page.$$kind; done; done
	@rm -f $(site)/pkg/*.d.ts
	@node scripts/shorten.mjs $(addprefix $(site)/pkg/,waterclock $(own_pages))
	LEPTOS_SITE_ROOT=$(site) MEMORY_SERVE_QUIET=1 cargo build --release --package server --features embed
	@touch target/release/.ours && mv $@.begun $@

again:

bench: build ## Measure the server, next to a raw loop and axum's Sse (10 minutes), or some cases: BENCH="delivery memory"
	cargo build --release --package bench
	@taskset --cpu-list 1 target/release/bench --program $(program) $(BENCH)

# All cores but that of the nodes.
bench-cluster: setup-test setup-cluster build ## Measure three nodes next to a single process, and failures in Chromium (6 minutes), or some cases: BENCH="delivery --short"
	cargo build --release --package bench
	@taskset --cpu-list 1-$$(($$(nproc) - 1)) target/release/bench --cluster --program $(program) $(BENCH)

bench-page: setup-test build ## Measure the page at 10,000 events a second, next to one in React (3 minutes)
	@cd bench/page && npm ci --no-audit --no-fund --silent
	@node bench/page/run.mjs $(program)

bench-transports: setup-test build ## Measure the transports with /compare in Chromium (1 minute)
	@node bench/transports.mjs $(program)

pictures: setup-test build ## Save a picture of each page in each state to end2end/pictures
	@rm -rf end2end/pictures
	cd end2end && PICTURES=pictures WATERCLOCK_BINARY=$(CURDIR)/$(program) npx playwright test looks

moving-picture: setup-test build ## Make docs/page.gif, the moving picture in README.md, on port 3000
	@cd end2end/picture && npm ci --no-audit --no-fund --silent
	@node end2end/picture/make.mjs $(program)

setup-build:
	@scripts/setup.sh build

setup-client:
	@scripts/setup.sh client

setup-unit:
	@scripts/setup.sh unit

setup-lint:
	@scripts/setup.sh lint

setup-test:
	@scripts/setup.sh test

setup-proxies:
	@scripts/setup.sh proxies

setup-cluster:
	@scripts/setup.sh cluster

setup-nats:
	@scripts/setup.sh nats
