#!/usr/bin/env bash
# Runs public testers of interfaces against the server that WATERCLOCK_BINARY names: Schemathesis,
# which sends what docs/openapi.json permits and forbids, and h2spec, which knows the rules of
# HTTP/2. scripts/setup.sh test must have brought them. Without Go, h2spec is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${XDG_CACHE_HOME:-$HOME/.cache}/waterclock
program=$(realpath "${WATERCLOCK_BINARY:-target/dist/waterclock}")
folder=$(mktemp -d)
server=
stop() {
    if [ "$server" ]; then kill "$server" && wait "$server" || true; fi
    server=
}
trap 'stop; rm -rf "$folder"' EXIT

# start OPTION...: starts the server on a free port, and sets address.
start() {
    stop
    # The address of the server before must not be read.
    : >"$folder/out"
    LEPTOS_SITE_ADDR=127.0.0.1:0 "$program" --data-dir "$folder" "$@" >"$folder/out" 2>"$folder/err" &
    server=$!
    for _ in $(seq 100); do
        address=$(sed -n 's/^listening on //p' "$folder/out")
        if [ "$address" ]; then return; fi
        sleep 0.1
    done
    cat "$folder/err" >&2
    exit 1
}

# A stream of events does not end, so only its head is tested, and a WebSocket is no request.
start --store memory
# Schemathesis leaves files in the folder where it runs.
cp docs/openapi.json end2end/api/hooks.py end2end/api/schemathesis.toml "$folder"
env --chdir="$folder" "$cache/schemathesis/bin/schemathesis" run openapi.json --url "$address" \
    --exclude-path /ws --exclude-operation-id readEvents --exclude-operation-id readTopic

if ! [ -x "$cache/h2spec/h2spec" ]; then
    echo 'h2spec is not there, since Go was not: the rules of HTTP/2 are not tested'
    exit
fi
# h2 lets a pseudo-header in trailers through if it is the first of them. h2spec sends it last.
# Without TLS, the port speaks HTTP/1.1 as well, so an invalid preface gets a 400 of HTTP/1.1.
# A request must not be answered before the frames that break its stream have come, so each of them
# waits a second for an event.
start --store memory --tls-self-signed
"$cache/h2spec/h2spec" --tls --insecure --host 127.0.0.1 --port "${address##*:}" --timeout 5 \
    --path '/poll?topic=none&wait=1' >"$folder/h2spec" ||
    { sed -n '/^Failures/,$p' "$folder/h2spec" && exit 1; }
tail -n 1 "$folder/h2spec"
