#!/usr/bin/env bash
# Installs what building and testing Waterclock need, and skips what is already there.
#
#   scripts/setup.sh build    Rust with the library for wasm32, wasm-opt, and the npm packages of
#                             scripts/pages
#   scripts/setup.sh dist     the same, and what a static program needs, if it can be had
#   scripts/setup.sh watch    what build needs, cargo-leptos and wasm-bindgen
#   scripts/setup.sh client   only the packages of the client in TypeScript
#   scripts/setup.sh unit     what build and client need
#   scripts/setup.sh lint     the same, cargo-deny, promtool, and the packages of the end-to-end
#                             tests
#   scripts/setup.sh test     all of these, Chromium, Firefox, clients and testers (those in Go if
#                             Go is there), the packages of the examples (Spring if Maven and a JDK
#                             are there), proxies, nats-server and Pebble (if they or Go are there)
#   scripts/setup.sh proxies  only what the tests behind proxies need: nginx, HAProxy, Caddy,
#                             Apache httpd, Chromium
#   scripts/setup.sh cluster  only what a cluster on this machine needs: nats-server, HAProxy
#   scripts/setup.sh nats     only nats-server
#   scripts/setup.sh path     only prints PATH with the folders of our tools in it
#
# It tries the ordinary way first, and Debian's packages second. It leaves a tool of another version
# on PATH alone, and then installs its own into a folder in the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

rust=1.96.0 # the minimum for cargo-leptos
cargo_leptos=0.3.11
# The crate and the command must have the same version.
wasm_bindgen=$(sed -n 's/^wasm-bindgen = "=\(.*\)"$/\1/p' Cargo.toml)
binaryen=132
cargo_deny=0.20.2
nats_server=2.15.2
nats_minimum=2.14.0
pebble=2.10.1
target=wasm32-unknown-unknown

cache=${XDG_CACHE_HOME:-$HOME/.cache}/waterclock
cargo_bin=${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin
log=$cache/setup.log
proxies=$cache/proxies

# Our own tools come first.
first=$cache/cargo-leptos-$cargo_leptos/bin:$cache/wasm-bindgen-$wasm_bindgen/bin:$cache/cargo-deny-$cargo_deny/bin
first=$first:$cache/binaryen-$binaryen/node_modules/.bin:$cache/nats-server-$nats_server
first=$first:$cache/pebble-$pebble
# What `cargo install` installs and the proxies come last, so that the user's own are preferred.
# Debian installs proxies into /usr/sbin.
PATH=$first:$PATH:$cargo_bin:/usr/sbin:$proxies/run:$cache/prometheus/usr/bin

say() { printf 'setup: %s\n' "$*"; }

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# Runs a command without output.
try() {
    mkdir -p "$cache"
    "$@" >"$log" 2>&1
}

# Does the same, and shows the last lines of output if the command fails.
quietly() {
    try "$@" || {
        tail -n 15 "$log" >&2
        return 1
    }
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        quietly "$@"
    elif command -v sudo >/dev/null; then
        quietly sudo "$@"
    else
        fail "this needs root: $*" "Run it as root, then start again."
    fi
}

# Updates the package lists, and installs Debian packages.
apt_install() {
    command -v apt-get >/dev/null || return 1
    as_root apt-get update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# --- Rust ---

rust_version() { rustc "$@" --version 2>/dev/null | awk '{ print $2 }'; }

# Succeeds if a toolchain is new enough and builds for wasm32. Without an argument it checks the
# toolchain in force here.
rust_is_ready() {
    local version
    version=$(rust_version "$@")
    [ -n "$version" ] && at_least "$rust" "$version" && builds_for_wasm "$@" &&
        cargo "$@" clippy --version >/dev/null 2>&1 && cargo "$@" fmt --version >/dev/null 2>&1
}

builds_for_wasm() {
    mkdir -p target
    # The page is built with link-time optimisation, which not every library allows.
    echo 'pub fn f() {}' | rustc "$@" --crate-type cdylib -C lto=fat --target $target -o target/setup-probe.wasm - 2>/dev/null
}

# Makes an installed toolchain the one for this folder.
use_rust() {
    rust_is_ready "+$1" || return 1
    say "using the Rust toolchain '$1' in this folder (rustup override set $1)"
    quietly rustup override set "$1"
}

set_up_rust() {
    if ! command -v cc >/dev/null; then
        say "installing a C compiler: Debian's gcc and libc6-dev (under a minute)"
        apt_install gcc libc6-dev || fail "a C compiler is needed. Install one, then start again."
    fi
    rust_is_ready && return
    command -v rustup >/dev/null ||
        fail "Rust $rust or newer with the target $target is needed, and rustup is not there." \
            "Install rustup (https://rustup.rs), then start again."
    use_rust "$rust" || use_rust waterclock-debian || install_rust || install_debian_rust
    rust_is_ready || fail "Rust is installed, but $(rustc --version 2>&1 | head -n 1) is in force here." \
        "Is RUSTUP_TOOLCHAIN set? Unset it, then start again."
}

install_rust() {
    local version
    version=$(rust_version)
    if [ -n "$version" ] && at_least "$rust" "$version"; then
        say "adding wasm32, clippy and rustfmt to Rust $version with rustup (under a minute)"
        try timeout 600 rustup target add $target &&
            try timeout 600 rustup component add clippy rustfmt && return
    else
        say "Rust ${version:-(none)} is older than $rust: installing $rust beside it with rustup (about a minute)"
        try timeout 600 rustup toolchain install "$rust" --no-self-update \
            --profile minimal --component clippy,rustfmt --target $target && use_rust "$rust" && return
    fi
    say "rustup could not do it: $(grep -m 1 '^error' "$log" || echo "$log may say why")"
    return 1
}

# Debian has the toolchain and the source of its library, from which this builds the library for
# wasm32.
install_debian_rust() {
    command -v apt-get >/dev/null ||
        fail "Rust $rust or newer with the target $target is needed." \
            "Install it as your system does, then start again."
    say "installing Rust from Debian's packages: rustc-web, cargo-web, rust-web-src, rust-web-clippy," \
        "rustfmt-web, lld-22 (about a minute); rustup will know it as waterclock-debian, and" \
        "$target will have its linker in /usr/lib/rustlib"
    apt_install rustc-web cargo-web rust-web-src rust-web-clippy rustfmt-web lld-22 ||
        fail "Debian's packages could not be installed." \
            "Install Rust $rust or newer with the target $target, then start again."

    local sysroot=/usr/lib/rustlib host crate
    host=$(/usr/bin/rustc -vV | sed -n 's/^host: //p')
    as_root mkdir -p "$sysroot/$host/bin" "$sysroot/$target/lib"
    as_root ln -sf /usr/bin/lld-22 "$sysroot/$host/bin/rust-lld"
    quietly rustup toolchain link waterclock-debian /usr
    use_rust waterclock-debian && return

    say "building wasm32's library into $sysroot/$target (about a minute)"
    crate=$(mktemp -d)
    mkdir "$crate/src"
    touch "$crate/src/lib.rs"
    printf '[package]\nname = "empty"\nedition = "2024"\n[profile.release]\nopt-level = "s"\n' >"$crate/Cargo.toml"
    (
        cd "$crate"
        export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc CARGO_TARGET_DIR=$crate/target
        export RUSTFLAGS=-Cembed-bitcode=yes # for link-time optimisation
        quietly /usr/bin/cargo build --release --target $target \
            -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test
    ) || fail "wasm32's library could not be built; $log says why."
    rm -f "$crate/target/$target/release/deps/"libempty*
    # An older library must go: the compiler refuses to choose between two.
    as_root find "$sysroot/$target/lib" -name '*.rlib' -delete
    as_root cp "$crate/target/$target/release/deps/"*.rlib "$sysroot/$target/lib/"
    rm -rf "$crate"
    use_rust waterclock-debian || fail "Debian's Rust does not build for $target; $log may say why."
}

# --- cargo-leptos, wasm-bindgen and cargo-deny ---

# cargo_tool COMMAND VERSION MINUTES CRATE OPTION...
cargo_tool() {
    local command=$1 version=$2 minutes=$3 crate=$4 found has where root=()
    shift 4
    found=$(command -v "$command" || true)
    if [ -n "$found" ]; then
        has=$("$found" --version 2>/dev/null | awk '{ print $2 }' || true)
        [ "$has" = "$version" ] && return
        where=$cache/$command-$version
        root=(--root "$where")
        say "$found is version ${has:-(it does not run)}, and $version is needed: installing it into $where/bin"
        say "    (make finds it there; for plain cargo leptos: export PATH=$where/bin:\$PATH)"
    else
        say "installing $command $version into $cargo_bin"
    fi
    say "    (about $minutes minutes on 2 cores; it is compiled without optimisation, to be quick)"
    # The tools run for seconds, so compiling them is what takes time. A common target folder
    # compiles their shared dependencies once.
    CARGO_TARGET_DIR=$cache/build CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_INCREMENTAL=false \
        CARGO_PROFILE_DEV_DEBUG_ASSERTIONS=false CARGO_PROFILE_DEV_OVERFLOW_CHECKS=false \
        CARGO_PROFILE_DEV_CODEGEN_UNITS=8 \
        quietly cargo install "$crate@$version" --debug "${root[@]}" "$@" ||
        fail "$command could not be installed; $log says why." \
            "Install it yourself (cargo install $crate@$version), then start again."
    say "    installed after $SECONDS s"
}

set_up_cargo_tools() {
    if [ "$1" = watch ] || [ "$1" = test ]; then
        cargo_tool cargo-leptos "$cargo_leptos" 5 cargo-leptos --locked --features no_downloads
        # For cargo-leptos. Not --locked: its lock file names a package that is no longer served.
        cargo_tool wasm-bindgen "$wasm_bindgen" 1 wasm-bindgen-cli --no-default-features --bin wasm-bindgen
    fi
    if [ "$1" = lint ] || [ "$1" = test ]; then
        cargo_tool cargo-deny "$cargo_deny" 2 cargo-deny --locked --no-default-features
    fi
    rm -rf "$cache/build"
}

# Begins to do so in the background, where wait_for_cargo_tools waits for it. The tools take minutes
# of computing, and most other things wait for the network.
begin_cargo_tools() {
    # A job of its own, so that the end of this script ends all of it.
    set -m
    (
        log=$cache/cargo-tools.log
        set_up_cargo_tools "$1"
    ) </dev/null &
    tools=$!
    set +m
    trap 'kill -- "-$tools" 2>/dev/null || true' EXIT
}

wait_for_cargo_tools() {
    wait "$tools" || exit 1
    trap - EXIT
}

# --- wasm-opt ---

set_up_wasm_opt() {
    local found has where=$cache/binaryen-$binaryen
    found=$(command -v wasm-opt || true)
    if [ -n "$found" ]; then
        has=$("$found" --version 2>/dev/null | awk '{ print $3 }' || true)
        [ "$has" = "$binaryen" ] && return
        say "$found is version ${has:-(it does not run)}, and $binaryen is needed"
    fi
    command -v npm >/dev/null || fail "npm is needed. Install Node.js with npm, then start again."
    say "installing wasm-opt $binaryen (npm's binaryen) into $where (some seconds)"
    quietly npm install --no-audit --no-fund --prefix "$where" "binaryen@$binaryen" ||
        fail "wasm-opt could not be installed; $log says why."
    if [ -z "$found" ]; then
        say "linking it into $cargo_bin, so that cargo-leptos finds it by itself"
        mkdir -p "$cargo_bin"
        ln -sf "$where/node_modules/.bin/wasm-opt" "$cargo_bin/wasm-opt"
    fi
}

# --- the static program ---

# Without these, scripts/dist.sh links the C library of this system, and says so.
set_up_musl() {
    local musl
    musl=$(uname -m)-unknown-linux-musl
    [ "$(uname -s)" = Linux ] || return 0
    if ! command -v musl-gcc >/dev/null; then
        say "installing Debian's package musl-tools (some seconds)"
        (apt_install musl-tools) || say "that did not work: install musl's C compiler, musl-gcc, for a static program"
    fi
    [ -e "$(rustc --print target-libdir --target "$musl")" ] && return
    say "adding $musl to Rust with rustup (some seconds)"
    try timeout 600 rustup target add "$musl" || say "that did not work; $log says why"
}

# --- end-to-end tests ---

# Succeeds if the tests find a Chromium that runs.
has_chromium() { (cd end2end && node chromium.js >/dev/null 2>&1); }

set_up_node_packages() {
    local node folder
    node=$(node -p process.versions.node 2>/dev/null || true)
    at_least 20.11 "${node:-0}" ||
        fail "the tests and the client need Node.js 20.11 or newer; this is ${node:-none}." \
            "Install a newer one, then start again."
    for folder in "$@"; do
        if [ ! -e "$folder/node_modules/.package-lock.json" ] ||
            [ "$folder/package-lock.json" -nt "$folder/node_modules/.package-lock.json" ]; then
            say "installing npm's packages into $folder/node_modules (some seconds)"
            (cd "$folder" && quietly npm ci --no-audit --no-fund) || fail "npm could not install them; $log says why."
            touch "$folder/node_modules/.package-lock.json"
        fi
    done
}

set_up_chromium() {
    has_chromium && return
    say "installing Chromium for Playwright into its cache (about a minute)"
    (cd end2end && try timeout 300 npx playwright install chromium) && has_chromium && return
    say "that did not work: installing Debian's package chromium (about a minute)"
    apt_install chromium ||
        fail "Chromium could not be installed." "Install it as your system does, then start again."
}

# The second browser: Debian's Firefox, which Playwright drives unmodified.
set_up_firefox() {
    [ -x /usr/bin/firefox-esr ] && return
    say "installing Debian's package firefox-esr (about a minute)"
    apt_install firefox-esr ||
        fail "firefox-esr could not be installed." "Install it as /usr/bin/firefox-esr, then start again."
}

# Clients that docs/clients.md has examples for, or code.
set_up_clients() {
    if ! command -v curl >/dev/null || ! command -v python3 >/dev/null; then
        say "installing curl and Python from Debian's packages (under a minute)"
        apt_install curl python3 ||
            fail "curl and python3 are needed for the tests. Install them, then start again."
    fi
    set_up_python_clients
    set_up_go_clients
}

set_up_python_clients() { python_environment end2end/clients/python/requirements.txt "$cache/clients-python"; }

# python_environment LIST FOLDER: an environment for one Python and one list of packages.
python_environment() {
    local list=$1 where=$2 made
    made=$(python3 --version && cat "$list")
    [ "$(cat "$where/made-for" 2>/dev/null)" = "$made" ] && return
    say "installing the packages of $list into $where (some seconds)"
    try python3 -m venv --clear "$where" || {
        apt_install python3-venv && quietly python3 -m venv --clear "$where"
    } || fail "python3 cannot make a virtual environment. Install its module venv, then start again."
    quietly "$where/bin/pip" install --disable-pip-version-check --require-hashes --only-binary :all: -r "$list" ||
        fail "pip could not install $list; $log says why."
    printf '%s\n' "$made" >"$where/made-for"
}

# Compiles the standard library too, which takes most of the time, and is kept in Go's cache.
set_up_go_clients() {
    if ! command -v go >/dev/null; then
        say "Go is not there: the tests of the clients in Go will be skipped"
        return
    fi
    (cd end2end/clients/go && GOTOOLCHAIN=local quietly go build -mod=readonly -o /dev/null .) ||
        fail "the clients in Go (1.22 or newer) could not be built; $log says why."
}

# Spring, and what Maven itself needs to start it. The example's test does not use the network.
set_up_maven() {
    local home start=(mvn --quiet --file examples/spring/pom.xml spring-boot:run -Dspring-boot.run.skip)
    home=$(mvn --version 2>/dev/null | sed -nE 's/^Java version: (1[7-9]|[2-9][0-9])\b.* runtime: //p' || true)
    if [ ! -x "${home:-none}/bin/javac" ]; then
        say "Maven with a JDK, 17 or newer, is not there: the example in Spring will not be tested"
        return
    fi
    try "${start[@]}" --offline && return
    say "fetching the packages of examples/spring into Maven's cache (44 MB, about a minute)"
    try timeout 600 "${start[@]}" ||
        say "that did not work, as $log says: if packages are missing, the example in Spring will not be tested"
}

# The library that sets the clock of a program, for one test.
set_up_faketime() {
    compgen -G '/usr/lib/*/faketime/libfaketime.so.1' >/dev/null && return
    say "installing Debian's package libfaketime (some seconds)"
    apt_install libfaketime ||
        fail "libfaketime could not be installed." \
            "Install it as /usr/lib/*/faketime/libfaketime.so.1, then start again."
}

# Public testers of interfaces, which scripts/api.sh runs.
set_up_testers() {
    python_environment end2end/api/requirements.txt "$cache/schemathesis"
    if ! command -v go >/dev/null; then
        say "Go is not there: the rules of HTTP/2 will not be tested with h2spec"
        return
    fi
    (cd end2end/api/h2spec && GOTOOLCHAIN=local quietly go build -mod=readonly -o "$cache/h2spec/" \
        github.com/summerwind/h2spec/cmd/h2spec) || fail "h2spec could not be built (Go 1.22 or newer); $log says why."
}

# The checker of alert rules: Debian's package prometheus, unpacked but not installed, since it
# would start a server. The rules are not checked where it cannot be had.
set_up_promtool() {
    command -v promtool >/dev/null && return
    local folder=$cache/prometheus deb=
    say "unpacking promtool from Debian's package prometheus into $folder (some seconds)"
    mkdir -p "$folder"
    if command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null &&
        (cd "$folder" && { try apt-get download prometheus || { (as_root apt-get update) && try apt-get download prometheus; }; }); then
        deb=$(echo "$folder"/prometheus_*.deb)
        dpkg-deb --fsys-tarfile "$deb" | tar --extract --directory "$folder" ./usr/bin/promtool && rm "$deb" && return
    fi
    say "that did not work: the alert rules will not be checked with promtool"
}

# --- cluster ---

nats_version() { "$1" --version 2>/dev/null | sed -n 's/^nats-server: v//p'; }

# Uses the one on PATH if it is new enough. `missing` is called with a reason if there is none.
set_up_nats() {
    local missing=$1 found version=
    found=$(command -v nats-server || true)
    if [ -n "$found" ]; then version=$(nats_version "$found"); fi
    [ -n "$version" ] && at_least "$nats_minimum" "$version" && return
    if ! command -v go >/dev/null; then
        "$missing" "nats-server $nats_minimum or newer is not there (${version:-none}), nor is Go to build it:"
        return
    fi
    say "building nats-server $nats_server with Go into $cache/nats-server-$nats_server (half a minute)"
    GOBIN=$cache/nats-server-$nats_server GOTOOLCHAIN=local GOFLAGS=-mod=mod \
        quietly go install "github.com/nats-io/nats-server/v2@v$nats_server" ||
        fail "nats-server could not be built; $log says why." \
            "Install nats-server $nats_minimum or newer, then start again."
}

without_cluster_tests() { say "$1 the tests of a cluster will be skipped"; }

without_cluster() { fail "$1" "Install one of them, then start again."; }

# --- Pebble, the ACME server of the tests of certificates ---

set_up_pebble() {
    command -v pebble >/dev/null && return
    if ! command -v go >/dev/null; then
        say "Pebble is not there, nor is Go to build it: the tests of ACME will be skipped"
        return
    fi
    say "building Pebble $pebble with Go into $cache/pebble-$pebble (half a minute)"
    GOBIN=$cache/pebble-$pebble GOTOOLCHAIN=local GOFLAGS=-mod=mod \
        quietly go install "github.com/letsencrypt/pebble/v2/cmd/pebble@v$pebble" ||
        fail "Pebble could not be built; $log says why." "Install Pebble, then start again."
}

# --- proxies ---

# Unpacks Debian's packages and their libraries. It does not install them: they would serve on port
# 80.
set_up_proxies() {
    local missing=() program
    for program in "$@"; do
        command -v $program >/dev/null || missing+=("$program")
    done
    [ ${#missing[@]} = 0 ] && return
    say "unpacking Debian's packages of ${missing[*]} into $proxies (some seconds)"
    unpack_packages "${missing[@]/%apache2/apache2-bin}" ||
        fail "that did not work; $log says why." "Install ${missing[*]} as your system does, then start again."
    mkdir -p "$proxies/run"
    for program in "${missing[@]}"; do
        printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' \
            "$(echo "$proxies"/lib/*-linux-gnu)" "$(echo "$proxies"/usr/*bin/"$program")" >"$proxies/run/$program"
        chmod +x "$proxies/run/$program"
    done
}

unpack_packages() {
    local deb needed
    command -v apt-get >/dev/null && as_root apt-get update || return 1
    needed=$(apt-get install --simulate --no-install-recommends "$@" 2>"$log" | awk '/^Inst/ { print $2 }')
    [ -n "$needed" ] || return 1
    mkdir -p "$proxies/debs" "$proxies/usr/lib"
    # Older packages say lib, newer ones usr/lib.
    ln -sfn usr/lib "$proxies/lib"
    mapfile -t needed <<<"$needed"
    (cd "$proxies/debs" && quietly apt-get download "${needed[@]}") || return 1
    for deb in "$proxies"/debs/*.deb; do
        dpkg-deb --fsys-tarfile "$deb" | quietly tar --extract --keep-directory-symlink --directory "$proxies" || return 1
    done
    rm -r "$proxies/debs"
}

case ${1:-} in
path) printf '%s' "$PATH" ;;
client) set_up_node_packages client ;;
build | dist | watch | unit | lint | test)
    set_up_rust
    if [ "$1" = test ]; then begin_cargo_tools "$1"; else set_up_cargo_tools "$1"; fi
    set_up_wasm_opt
    set_up_node_packages scripts/pages
    case $1 in
    dist) set_up_musl ;;
    unit) set_up_node_packages client ;;
    lint) set_up_node_packages client end2end ;;
    test)
        set_up_musl
        set_up_node_packages client end2end examples/express examples/next examples/react
        ;;
    esac
    case $1 in lint | test) set_up_promtool ;; esac
    if [ "$1" = test ]; then
        set_up_chromium
        set_up_firefox
        set_up_clients
        set_up_maven
        set_up_faketime
        set_up_testers
        set_up_proxies nginx haproxy caddy apache2
        set_up_nats without_cluster_tests
        set_up_pebble
        wait_for_cargo_tools
    fi
    ;;
proxies)
    set_up_node_packages end2end
    set_up_chromium
    set_up_proxies nginx haproxy caddy apache2
    ;;
nats) set_up_nats without_cluster ;;
cluster)
    set_up_proxies haproxy
    set_up_nats without_cluster
    ;;
*) fail "usage: scripts/setup.sh build|dist|watch|client|unit|lint|test|proxies|cluster|nats|path" ;;
esac

# Installing takes longer than looking.
if [ "$1" != path ] && [ "$SECONDS" -gt 4 ]; then say "done after $SECONDS s"; fi
