#!/usr/bin/env bash
# Runs everything that there is to test, and ends with how many tests ran. scripts/setup.sh has
# brought what it needs, and target/release is built.
set -euo pipefail
cd "$(dirname "$0")/.."

output=$(mktemp)
trap 'rm -f "$output"' EXIT

# Each step says what it is; a failing one ends the run.
ran=
step() {
    printf '\n== %s\n' "$1"
    ran="${ran:+$ran; }$1"
    shift
    "$@" 2>&1 | tee -a "$output"
}

# The features of app for the server and for the page cannot be compiled together, so clippy looks at
# each set by itself. Without -p, cargo takes the stream, the pages and the server (default-members).
lint() { cargo clippy --quiet "$@" -- --deny warnings; }

# Known weaknesses in what we are made of, where the list of them can be had.
advisories() {
    if timeout 60 cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --workspace check --hide-inclusion-graph advisories
    else
        echo 'the database of advisories cannot be fetched here: not checked'
    fi
}

step 'format' cargo fmt --all --check
step 'clippy: the stream, without features' lint -p waterclock --all-targets
step 'clippy: the stream, the server and the pages it renders' lint --all-targets
step 'clippy: the server with the page inside' env LEPTOS_SITE_ROOT=target/release/site MEMORY_SERVE_QUIET=1 \
    cargo clippy --quiet -p server --features embed -- --deny warnings
step 'clippy: the page in the browser' lint -p frontend --target wasm32-unknown-unknown --target-dir target/front
step 'documentation' env RUSTDOCFLAGS='--deny warnings' cargo doc --quiet --no-deps
step 'licences, sources and duplicates of what we are made of' cargo deny --workspace check --hide-inclusion-graph licenses bans sources
step 'advisories' advisories
step 'unit, property and integration tests' cargo test --quiet
step 'types of the end-to-end tests' env --chdir=end2end npx tsc
step 'end-to-end tests in Chromium and Firefox' env --chdir=end2end \
    WATERCLOCK_BINARY="$PWD/target/release/waterclock" npx playwright test
step 'tests behind nginx, HAProxy, Caddy and Apache httpd' env --chdir=end2end \
    WATERCLOCK_BINARY="$PWD/target/release/waterclock" npx playwright test --config proxies.config.ts

# cargo's lines are "test result: ok. 55 passed; 0 failed; …", Playwright's "  9 passed (12.3s)".
passed=$(awk '/^test result: ok\./ { n += $4 } /^ +[0-9]+ passed \(/ { n += $1 } END { print n }' "$output")
printf '\nran: %s\ntests: %s passed, 0 failed\n' "$ran" "$passed"
