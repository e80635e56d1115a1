#!/usr/bin/env bash
# Runs the tests, and ends with the number of those that passed.
#
#   scripts/test.sh           runs all steps but those of the groups cluster (unit has it) and soak
#   scripts/test.sh GROUP...  runs the steps of these groups: lint, doc, unit, cluster, e2e,
#                             clients, proxies, packages, soak
#   scripts/test.sh --list    lists the steps and their groups
#
# scripts/setup.sh must have brought the tools. WATERCLOCK_BINARY names the program for e2e, clients
# and proxies, and in a run of all groups for the integration tests, too; by default it is that of
# `make dist`, which a run of all groups builds. E2E has arguments for Playwright in the group e2e:
# E2E="tabs -g 'a name'". E2E_PATIENCE multiplies the deadlines of e2e, clients and proxies: by
# default 3 in a run of all groups, and 1 in one of some. A step that fails ends the run.
set -euo pipefail
cd "$(dirname "$0")/.."

groups='lint doc unit cluster e2e clients proxies packages soak'
output=$(mktemp)
dist_output=$(mktemp)
builder=
trap '[ ! "$builder" ] || kill -- "-$builder" 2>/dev/null || true; rm -f "$output" "$dist_output"' EXIT

wanted=" $* "
program=${WATERCLOCK_BINARY:-$PWD/target/dist/waterclock}
list=
if [ "${1:-}" = --list ]; then
    list=yes
    wanted=' '
fi
for group in $wanted; do
    case " $groups " in
    *" $group "*) ;;
    *)
        printf 'test: there is no group %s; the groups are: %s\n' "$group" "$groups" >&2
        exit 2
        ;;
    esac
done

# A run of all groups builds the program, too, while the first steps run: link-time optimisation
# leaves a core to them. It is a job of its own, so that the end of this script ends all of it.
if [ "$wanted" = '  ' ] && [ ! "${WATERCLOCK_BINARY:-}" ]; then
    set -m
    make --no-print-directory dist >"$dist_output" 2>&1 </dev/null &
    builder=$!
    set +m
fi
if [ "$wanted" = '  ' ]; then export WATERCLOCK_BINARY=$program E2E_PATIENCE=${E2E_PATIENCE:-3}; fi

# Waits for the program.
program_is_built() {
    local failed=
    [ "$builder" ] || return 0
    printf '\n== the program of make dist, beside the steps before\n'
    wait "$builder" || failed=yes
    builder=
    cat "$dist_output"
    [ ! "$failed" ]
}

# group NAME...: the following steps belong to these groups.
group() {
    current=$*
    selected=$([ "$wanted" = '  ' ] && [[ $current != @(cluster|soak) ]] && echo yes || true)
    for group in "$@"; do
        case "$wanted" in *" $group "*) selected=yes ;; esac
    done
}

# step NAME COMMAND...: runs a step if its group was asked for.
ran=
step() {
    local name=$1 begun=$SECONDS
    shift
    if [ "$list" ]; then printf '%-10s %s\n' "$current" "$name"; fi
    [ "$selected" ] || return 0
    printf '\n== %s\n' "$name"
    (
        # Whatever runs beside the program's build leaves it the cores that it can use: the steps
        # after it wait for it.
        if [ "$builder" ]; then renice -n 10 -p "$BASHPID" >/dev/null || true; fi
        "$@"
    ) 2>&1 | tee -a "$output"
    ran="${ran:+$ran; }$name ($((SECONDS - begun)) s)"
}

# The members of the workspace that crates.io is to have.
publishable() {
    cargo metadata --no-deps --offline --format-version 1 |
        node -e '
            const { packages } = JSON.parse(require("fs").readFileSync(0, "utf8"));
            for (const { name, publish } of packages) if (publish === null) console.log(name);'
}

clippy() { cargo clippy --quiet "$@" -- --deny warnings; }

# The server's feature that is off by default, and that the steps turn on.
traces=server/otlp

# The features of `app` for the server and for the page exclude each other, so clippy checks each
# side by itself. Without -p, cargo takes the default members. The steps name --all-targets or
# --examples, even where there are none: dependencies then have the same features in all steps, and
# are compiled once.
clippy_waterclock() {
    clippy -p waterclock --all-targets
    clippy -p waterclock --all-targets --features hub
}

# A published crate must name all features that it needs of its dependencies. In a build with other
# crates or with tests, those can enable the missing ones. waterclock-leptos follows in
# clippy_browser.
clippy_alone() {
    clippy -p waterclock --features hub
    clippy -p waterclock-diagnose
    clippy -p waterclock-axum
    clippy -p waterclock-nats
}

# The pages in the browser, those of other programs that render in the browser only, and the tool
# that makes scripts for their modules.
clippy_browser() {
    clippy -p frontend --target wasm32-unknown-unknown
    clippy -p tutorial --lib --no-default-features --features hydrate --target wasm32-unknown-unknown
    clippy -p waterclock-leptos --features csr --target wasm32-unknown-unknown
    clippy -p bindgen
}

# Three features of the server that the other steps have the other way round: the site inside,
# which is empty here, no page /compare, and no traces. With bench, the dependencies have the same
# features as there, and most are not checked again.
clippy_server() {
    mkdir -p target/empty-site/pkg
    LEPTOS_SITE_ROOT=target/empty-site MEMORY_SERVE_QUIET=1 \
        clippy -p server -p bench --lib --bins --examples --no-default-features --features server/embed
}

package() {
    local crate crates arguments=()
    crates=$(publishable)
    for crate in $crates; do
        arguments+=(-p "$crate")
    done
    # Not offline: the packages have wasm-streams from crates.io, not the stand-in for it.
    cargo package --quiet --no-verify --allow-dirty "${arguments[@]}"
}

documentation() {
    RUSTDOCFLAGS='--deny warnings' cargo doc --quiet --no-deps --lib --examples --bin bench
}

# The alert rules, and their cases.
alert_rules() {
    if ! command -v promtool >/dev/null; then
        echo 'promtool is not there: the alert rules are not checked'
        return
    fi
    promtool check rules packaging/prometheus/alerts.yml
    promtool test rules packaging/prometheus/alerts.test.yml
}

dependencies() {
    cargo deny --workspace check --hide-inclusion-graph licenses bans sources
    # Known vulnerabilities, if the database of them can be fetched.
    if timeout 60 cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --workspace check --hide-inclusion-graph advisories
    else
        echo 'the database of advisories cannot be fetched here: not checked'
    fi
}

# Most of the integration tests wait most of the time. Their compilation does not need the program.
compile_tests() { cargo test --quiet --features "$traces" --no-run; }

cargo_test() {
    # Of the groups alone, none needs libfaketime.
    if [ "$wanted" = '  ' ]; then
        export FAKETIME_REQUIRED=yes
        if command -v nats-server >/dev/null; then export NATS_REQUIRED=yes; fi
        if command -v pebble >/dev/null; then export PEBBLE_REQUIRED=yes; fi
    fi
    RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} cargo test --quiet --features "$traces"
}

# The tests of some targets alone. Without -p, these have the same features as in cargo_test, and
# are not compiled again.
cargo_test_of() {
    local name targets=()
    for name in "$@"; do targets+=(--test "$name"); done
    cargo test --quiet --features "$traces" "${targets[@]}"
}

# Nodes, and the servers of NATS that they need. Without nats-server these tests do nothing.
cluster() { cargo_test_of servers cluster; }

# The integration tests once more, with all streams on the ordinary path.
ordinary_path() {
    ORDINARY_PATH=yes RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))} cargo_test_of http
}

# The client in TypeScript. Its tests replay traces that cargo_test has written.
client() {
    cd client
    npx tsc
    node build.mjs --check
    node --test --test-timeout=60000 --test-reporter=spec test/*.test.mjs
}

packages() {
    WATERCLOCK_BINARY="$program" node --test --test-timeout=120000 --test-reporter=spec packaging/packages.test.mjs
}

playwright() {
    WATERCLOCK_BINARY="$program" env --chdir=end2end npx playwright test "$@"
}

end_to_end() {
    local arguments=()
    if [ "${E2E:-}" ]; then
        # Split like a command line: quotes keep words together.
        mapfile -t arguments < <(xargs -n 1 printf '%s\n' <<<"$E2E")
    fi
    playwright "${arguments[@]}"
}

group lint
step 'format' cargo fmt --all --check
step 'circles, names and comments' node scripts/lint.mjs
step 'clippy: all crates, and the pages as the server renders them' clippy --all-targets --features "$traces"
step 'clippy: the server with the site inside, without /compare' clippy_server
step 'clippy: waterclock without features and with hub only' clippy_waterclock
step 'clippy: published crates by themselves' clippy_alone
step 'clippy: the pages in the browser' clippy_browser
step 'packages for crates.io' package
step 'alert rules' alert_rules
step 'types of the end-to-end tests' env --chdir=end2end npx tsc
step 'licences, sources, duplicates and advisories of dependencies' dependencies
group lint doc
step 'documentation' documentation
group unit
step 'tests of the scripts' node --test --test-reporter=spec scripts/*.test.mjs
step 'compilation of the tests in Rust' compile_tests
program_is_built
step 'unit, property and integration tests, and examples' cargo_test
step 'integration tests of the ordinary path' ordinary_path
step 'the client in TypeScript' client
group cluster
step 'several nodes on NATS JetStream' cluster
group e2e
step 'the page, as make and as cargo-leptos build it' node --test --test-reporter=spec scripts/pages/build.test.mjs
step 'end-to-end tests in Chromium and Firefox' end_to_end
group clients
step 'public clients of event streams, and the examples' playwright --config clients.config.ts
step 'the OpenAPI document and HTTP/2, by Schemathesis and h2spec' \
    env WATERCLOCK_BINARY="$program" scripts/api.sh
group proxies
step 'tests behind nginx, HAProxy, Caddy and Apache httpd' playwright --config proxies.config.ts
group packages
step 'the Debian package, the image and the manifests' packages
# Longer forms of tests of the groups above.
group soak
step '100 faults of a cluster' \
    env FAULTS=100 NATS_REQUIRED=yes cargo test --quiet -p server --test cluster keeps
step '10,000 simulations of the hub and of a cluster' \
    env SIMULATIONS=10000 cargo test --quiet -p waterclock --all-features --lib simulation
step '1,000 power cuts' env POWER_CUTS=1000 cargo test --quiet -p server --test power
step 'ten minutes of clients that come and go' \
    env CHURN_SECONDS=600 cargo test --quiet -p server --test program churn -- --nocapture
step '15,000 clients that leave at once, and 10,000 goodbyes' \
    env CROWD=15000 cargo test --quiet -p server --test program crowd -- --test-threads 1

[ "$list" ] && exit
# The lines of cargo are "test result: ok. 55 passed; 0 failed; …", those of node "ℹ pass 46", and
# those of Playwright "  9 passed (12.3s)".
passed=$(awk '/^test result: ok\./ { n += $4 } /^ℹ pass [0-9]+$/ { n += $3 } /^ +[0-9]+ passed \(/ { n += $1 }
    END { print n + 0 }' "$output")
printf '\nran: %s\n' "$ran"
if [ "$passed" != 0 ]; then printf 'tests: %s passed, 0 failed\n' "$passed"; fi
