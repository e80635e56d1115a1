#!/usr/bin/env bash
# Fuzzes the parsers: looks for input that breaks the properties in src/properties.rs and of the
# query of `/events`.
#
#   scripts/fuzz.sh SECONDS   runs each target for SECONDS
#
# With a nightly toolchain of Rust and a C++ compiler it uses libFuzzer. Otherwise it runs the same
# properties with proptest, PROPTEST_CASES times each. Findings are in fuzz/artifacts/, the learned
# corpus in fuzz/corpus/; git ignores both.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=$1
cargo_fuzz=0.13.2

say() { printf 'fuzz: %s\n' "$*"; }

nightly=$(rustup toolchain list 2>/dev/null | grep -o -m 1 '^nightly[^ ]*' || true)
if [ -z "$nightly" ] || ! command -v c++ >/dev/null; then
    export PROPTEST_CASES=${PROPTEST_CASES:-50000}
    say "no nightly toolchain or no C++ compiler: running $PROPTEST_CASES cases of each property with proptest"
    cargo test --quiet --package waterclock --lib properties::
    exec cargo test --quiet --package server --lib events::query::
fi

if ! cargo fuzz --version >/dev/null 2>&1; then
    say "installing cargo-fuzz $cargo_fuzz (about a minute)"
    cargo "+$nightly" install --quiet --locked --debug "cargo-fuzz@$cargo_fuzz"
fi
# The dependencies must have the versions of the program.
cp Cargo.lock fuzz/Cargo.lock
say "building the targets with $nightly (some minutes the first time)"
cargo "+$nightly" fuzz build --sanitizer none
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in $(cargo "+$nightly" fuzz list); do
    mkdir -p "fuzz/corpus/$target"
    known=("fuzz/corpus/$target")
    if [ -d "fuzz/seeds/$target" ]; then known+=("fuzz/seeds/$target"); fi
    if ! cargo "+$nightly" fuzz run --sanitizer none "$target" "${known[@]}" -- \
        -max_total_time="$seconds" -max_len=2048 -timeout=5 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        exit 1
    fi
    say "$target: $(awk '/number_of_executed_units/ { print $2 }' "$log") inputs in $seconds s, no finding"
done
