# The commands of the project. Each sets up what it needs first; `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help
# Set-up, build and tests follow each other; each uses all cores by itself.
.NOTPARALLEL:
.PHONY: help run watch test build setup-build setup-test

# Tools that scripts/setup.sh had to put into a folder of their own come first.
export PATH := $(shell scripts/setup.sh path)

# The release build has a folder of its own for the site, so that `watch` does not overwrite it.
site := target/release/site
sources := $(shell find .cargo Cargo.toml Cargo.lock src app server/Cargo.toml server/src frontend style public)

help: ## List the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST)

run: build ## Set up, build for release, and serve on http://127.0.0.1:3000
	@target/release/waterclock

watch: setup-build ## Set up, and build, serve and reload on every change (cargo leptos watch)
	cargo leptos watch

test: setup-test build ## Set up, and run everything that there is to test
	scripts/test.sh

build: setup-build target/release/.built ## Set up, and build for release

target/release/.built: $(sources)
	@echo 'make: building the server and the page for release (some minutes the first time)'
	LEPTOS_SITE_ROOT=$(site) cargo leptos build --release
	@touch $@

setup-build:
	@scripts/setup.sh build

setup-test:
	@scripts/setup.sh test
