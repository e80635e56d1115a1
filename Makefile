# The commands of the project. Each installs what it needs first. `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Set-up, build and tests run one after the other; each uses all cores by itself.
.NOTPARALLEL:
.PHONY: help run run-tls run-cluster watch check lint doc unit e2e test test-clients test-cluster test-proxies \
        test-packages soak fuzz build dist dist-check deb image client bench bench-cluster bench-page \
        bench-transports moving-picture pictures setup-build setup-dist setup-watch setup-client setup-unit \
        setup-lint setup-test setup-proxies setup-cluster setup-nats

# Tools that scripts/setup.sh has put into folders of their own come first.
export PATH := $(shell scripts/setup.sh path)

# The site of the release build is in a folder of its own, so that `watch` does not overwrite it.
site := target/release/site
# The program of `make run`, which is compiled quickly, and that of `make dist`. Both are copies: a
# plain `cargo build` may replace cargo's by one without the pages.
program := target/run/waterclock
dist := target/dist/waterclock
page_sources := $(shell find .cargo Cargo.toml Cargo.lock src app crates frontend style public \
    scripts/pages/*.mjs scripts/pages/bindgen scripts/shorten.mjs 2>/dev/null)
server_sources := $(shell find server/Cargo.toml server/build.rs server/src scripts/dist.sh \
    scripts/notices.mjs client/client.js client/client.js.br docs/openapi.json 2>/dev/null)

help: ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.* ## (.*)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{ printf "make %-17s %s\n", $$1, $$2 }'

run: setup-build target/run/.built ## Build quickly, with optimisation, and serve on http://127.0.0.1:3000
	@$(program)

run-tls: setup-build target/run/.built ## The same on https://127.0.0.1:3000, with HTTP/2 and a self-signed certificate
	@$(program) --tls-self-signed

run-cluster: setup-build setup-cluster target/run/.built ## Serve with three nodes and three NATS servers on http://127.0.0.1:3000
	@scripts/run-cluster.sh $(program)

watch: setup-watch ## Build, serve, and reload after every change (cargo leptos watch)
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
# Single groups of tests use the program of `make build`.
quick := WATERCLOCK_BINARY="$(CURDIR)/$(program)"
e2e: setup-test build ## Run the tests in Chromium and Firefox (15 minutes), or some: E2E="tabs -g 'a name'"
	@$(quick) scripts/test.sh e2e

test: setup-test ## Run all of these with the program of `make dist`, public clients, and the tests behind proxies (an hour or more on a new machine)
	@scripts/test.sh

test-clients: setup-test build ## Run public clients and the examples against the server, and compare with docs/clients.md (3 minutes)
	@$(quick) scripts/test.sh clients

test-cluster: setup-build setup-nats ## Run the tests of several nodes on NATS JetStream (4 minutes)
	@NATS_REQUIRED=yes scripts/test.sh cluster

test-proxies: setup-proxies build ## Run the tests behind nginx, HAProxy, Caddy and Apache httpd (4 minutes)
	@$(quick) scripts/test.sh proxies

soak: setup-build ## Run 10,000 simulations, 100 faults of a cluster, 1,000 power cuts, ten minutes of clients that come and go, and a crowd of 15,000 (an hour)
	@scripts/test.sh soak

# The time that each target is fuzzed for.
SECONDS ?= 20

fuzz: setup-build ## Fuzz the parsers, each for SECONDS=20 (libFuzzer, or else proptest)
	scripts/fuzz.sh $(SECONDS)

build: setup-build target/run/.built ## Build what `make run` serves, and print the size of the first load of each page (some minutes the first time)
	@node scripts/size.mjs $(program)

dist: setup-dist target/dist/.built ## Build one static file with the pages inside, licences, man pages and more into target/dist (8 minutes the first time)

dist-check: dist ## Build the same in another folder, and compare the bytes (as long as the first)
	@scripts/dist.sh check

deb: dist ## Build the Debian package target/dist/waterclock_VERSION_ARCH.deb from the program of `make dist`
	@packaging/deb/build.sh target/dist/waterclock target/dist

image: dist ## Build the OCI image target/dist/waterclock-image.tar from the program of `make dist`, without Docker
	@node packaging/image/build.mjs target/dist/waterclock target/dist/waterclock-image.tar
	@echo 'target/dist/waterclock-image.tar'

test-packages: setup-test build ## Run the tests of the Debian package, the image and the manifests for Kubernetes (some seconds)
	@$(quick) scripts/test.sh packages

client: setup-client ## Build the client for pages, and pack it for npm into target/dist (some seconds)
	@mkdir -p target/dist
	cd client && npm pack --silent --pack-destination ../target/dist

# The pages are built first, since the server has them inside. A stamp has the time of the beginning,
# so that no edit during the build is lost.
target/release/.pages: $(page_sources)
	@mkdir -p $(@D) && touch $@.begun
	@echo 'make: building the pages (a minute or two the first time)'
	@node scripts/pages/build.mjs $(site) $(beside)
	@mv $@.begun $@

build_server := cargo build --quiet --profile quick --package server --features embed
# The first time, all that the server depends on is compiled beside the pages. The server itself
# fails then, as it has no pages.
target/run/.built: beside = $(if $(wildcard $(program)),,-- env LEPTOS_SITE_ROOT=none $(build_server) --keep-going)
target/run/.built: target/release/.pages $(server_sources)
	@mkdir -p $(@D) && touch $@.begun
	@echo 'make: building the server (some minutes the first time)'
	@begun=$$SECONDS && LEPTOS_SITE_ROOT=$(site) MEMORY_SERVE_QUIET=1 $(build_server) && \
	    install target/quick/waterclock $(program) && echo "make: built the server ($$((SECONDS - begun)) s)"
	@mv $@.begun $@

target/dist/.built: target/release/.pages $(server_sources)
	@mkdir -p $(@D) && touch $@.begun
	@scripts/dist.sh
	@if [ -e $(@D)/.needs-libraries ]; then rm $@.begun; else mv $@.begun $@; fi

bench: dist ## Measure the server, next to a raw loop and axum's Sse (10 minutes), or some cases: BENCH="delivery memory"
	cargo build --release --package bench
	@taskset --cpu-list 1 target/release/bench --program $(dist) $(BENCH)

# All cores but that of the nodes.
bench-cluster: setup-test setup-cluster dist ## Measure three nodes next to a single process, and failures in Chromium (6 minutes), or some cases: BENCH="delivery --short"
	cargo build --release --package bench
	@taskset --cpu-list 1-$$(($$(nproc) - 1)) target/release/bench --cluster --program $(dist) $(BENCH)

bench-page: setup-test dist ## Measure the page at 10,000 events a second, next to one in React (3 minutes)
	@cd bench/page && npm ci --no-audit --no-fund --silent
	@node bench/page/run.mjs $(dist)

bench-transports: setup-test dist ## Measure the transports with /compare in Chromium (1 minute)
	@node bench/transports.mjs $(dist)

pictures: setup-test build ## Save a picture of each page in each state to end2end/pictures
	@rm -rf end2end/pictures
	cd end2end && PICTURES=pictures WATERCLOCK_BINARY="$(CURDIR)/$(program)" npx playwright test looks

moving-picture: setup-test build ## Make docs/page.gif, the moving picture in README.md, on port 3000
	@cd end2end/picture && npm ci --no-audit --no-fund --silent
	@node end2end/picture/make.mjs $(program)

setup-build:
	@scripts/setup.sh build

setup-dist:
	@scripts/setup.sh dist

setup-watch:
	@scripts/setup.sh watch

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
