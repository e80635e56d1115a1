#!/usr/bin/env bash
# Runs a cluster on this machine: three servers of NATS JetStream, three nodes of Waterclock, and
# HAProxy in front of them on http://127.0.0.1:3000.
#
#   scripts/run-cluster.sh PROGRAM
#
# The files are in target/cluster. The end of this script ends all of them.
set -euo pipefail
cd "$(dirname "$0")/.."

program=$1
folder=target/cluster
mkdir -p "$folder"
running=()

stop() {
    trap - EXIT
    for process in "${running[@]}"; do kill "$process" 2>/dev/null || true; done
    wait
}
trap stop EXIT
trap 'exit 0' INT TERM

# run NAME COMMAND...: runs a command, whose messages begin with its name.
run() {
    local name=$1
    shift
    "$@" > >(sed -u "s/^/$name: /") 2>&1 &
    running+=($!)
}

for n in 1 2 3; do
    cat >"$folder/nats-$n.conf" <<EOF
server_name: n$n
listen: 127.0.0.1:422$n
http: 127.0.0.1:822$n
jetstream { store_dir: "$folder/nats-$n", sync_interval: always }
cluster {
    name: waterclock
    listen: 127.0.0.1:622$n
    routes: ["nats://127.0.0.1:6221", "nats://127.0.0.1:6222", "nats://127.0.0.1:6223"]
}
EOF
    run "nats-$n" nats-server --config "$folder/nats-$n.conf" --log "$folder/nats-$n.log"
done

for n in 1 2 3; do
    run "node-$n" "$program" --listen 127.0.0.1:300$n --node "node-$n" --data-dir "$folder/node-$n" \
        --cluster nats://127.0.0.1:4221,nats://127.0.0.1:4222,nats://127.0.0.1:4223 \
        --cluster-monitoring http://127.0.0.1:8221,http://127.0.0.1:8222,http://127.0.0.1:8223 \
        --cluster-timeout 10s "${@:2}"
done

export BALANCER=127.0.0.1:3000 NODE_1=127.0.0.1:3001 NODE_2=127.0.0.1:3002 NODE_3=127.0.0.1:3003
run haproxy haproxy -f scripts/cluster-haproxy.cfg -q

printf 'the cluster is on http://127.0.0.1:3000, its nodes on :3001, :3002 and :3003\n'
# The first that ends, ends all.
wait -n "${running[@]}" || true
printf 'one of the programs has ended: %s has the messages of NATS\n' "$folder" >&2
exit 1
