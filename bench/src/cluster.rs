//! A cluster on this machine: three servers of NATS JetStream, three nodes, and HAProxy in front of
//! them. All files are in folders of their own, and all ports are free ones.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    load::{DEADLINE, Endpoint, try_get},
    process::{self, ServerKind, ServerProcess},
};

/// Number of the nodes, and of the servers of NATS.
pub const COUNT: usize = 3;
/// The configuration of HAProxy, which `make run-cluster` has, too.
const BALANCER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/cluster-haproxy.cfg");
/// Pause between two looks at a condition.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// A running cluster. Dropping it kills all processes.
pub struct BenchCluster {
    pub nodes: Vec<ServerProcess>,
    pub nats: Vec<NatsProcess>,
}

/// A running server of NATS. Dropping it kills the process.
pub struct NatsProcess {
    command: Command,
    child: Child,
    monitoring: Endpoint,
    data: tempfile::TempDir,
}

/// A running HAProxy. Dropping it kills the process.
pub struct BalancerProcess {
    child: Child,
    pub endpoint: Endpoint,
}

/// Repeats an attempt until it returns something.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < end, "no {what} within {DEADLINE:?}");
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// Returns the program of NATS: that of the environment, or else the one on `PATH`.
pub fn nats_server() -> PathBuf {
    std::env::var_os("NATS_SERVER").map_or("nats-server".into(), PathBuf::from)
}

/// Returns `true` if a program can be run.
pub fn runs(program: &Path, argument: &str) -> bool {
    let mut command = Command::new(program);
    let status = command.arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl BenchCluster {
    /// Starts the servers and the nodes, and waits until each node can publish. `options` are for
    /// the nodes.
    pub fn start(waterclock: &str, options: &[&str]) -> Self {
        let addresses: [_; 3 * COUNT] = free_addresses();
        let (clients, others) = addresses.split_at(COUNT);
        let (routes, monitoring) = others.split_at(COUNT);
        let nats: Vec<_> = (0..COUNT)
            .map(|index| NatsProcess::start(index, clients[index], routes, monitoring[index]))
            .collect();
        for server in &nats {
            server.wait_until_healthy();
        }
        let joined = |scheme: &str, addresses: &[SocketAddr]| {
            let urls = addresses.iter().map(|address| format!("{scheme}://{address}"));
            urls.collect::<Vec<_>>().join(",")
        };
        let shared = [
            format!("--cluster={}", joined("nats", clients)),
            format!("--cluster-monitoring={}", joined("http", monitoring)),
        ];
        let addresses: [_; COUNT] = free_addresses();
        let nodes = addresses.into_iter().enumerate().map(|(index, address)| {
            let own = [format!("--node=node-{index}"), format!("--listen={address}")];
            let all = shared.iter().chain(&own).map(String::as_str);
            let all: Vec<_> = all.chain(options.iter().copied()).collect();
            ServerProcess::start(ServerKind::Node, waterclock, &all)
        });
        let cluster = Self { nodes: nodes.collect(), nats };
        (0..COUNT).for_each(|node| cluster.wait_until_ready(node));
        cluster
    }

    /// Waits until a node can publish.
    pub fn wait_until_ready(&self, node: usize) {
        until("ready node", || is_ok(&self.nodes[node].endpoint, "/health/ready?publish"));
    }

    /// Waits until the stream has a leader and all servers have all entries. Returns the index of
    /// the leader.
    pub fn wait_until_healthy(&self) -> usize {
        self.nats.iter().for_each(NatsProcess::wait_until_healthy);
        until("leader of the stream", || self.stream(leader))
    }

    /// Returns the size of the stream on each server, in bytes.
    pub fn stored(&self) -> f64 {
        until("size of the stream", || self.stream(size))
    }

    /// Reads a fact about the stream from the monitoring of a server. Each server keeps the stream.
    fn stream<T>(&self, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let response = try_get(&self.nats[0].monitoring, "/jsz?streams=true").ok()?;
        let answer: Value = serde_json::from_slice(&response.body).ok()?;
        read(answer.pointer("/account_details/0/stream_detail/0")?)
    }
}

impl NatsProcess {
    /// Starts the server with an index. `routes` has the addresses at which all of them listen for
    /// each other.
    fn start(
        index: usize,
        client: SocketAddr,
        routes: &[SocketAddr],
        monitoring: SocketAddr,
    ) -> Self {
        let data = process::temporary_folder();
        let route = routes[index];
        let routes: Vec<_> = routes.iter().map(|route| format!("\"nats://{route}\"")).collect();
        let text = format!(
            "server_name: \"{}\"\nlisten: \"{client}\"\nhttp: \"{monitoring}\"\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
             cluster {{ name: waterclock, listen: \"{route}\", routes: [{}] }}\n",
            name(index),
            data.path().join("store").display(),
            routes.join(", ")
        );
        let file = data.path().join("nats.conf");
        fs::write(&file, text).unwrap();
        let log = File::create(data.path().join("log")).unwrap();
        let mut command = process::guarded();
        command.arg(nats_server()).arg("--config").arg(file).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().expect("setpriv, of util-linux");
        let monitoring = Endpoint::local(monitoring, None);
        Self { command, child, monitoring, data }
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        process::end(&mut self.child);
    }

    /// Starts the server again after it was killed.
    pub fn restart(&mut self) {
        self.child = self.command.spawn().expect("setpriv, of util-linux");
    }

    /// Waits until the server has all entries and takes part in the vote.
    fn wait_until_healthy(&self) {
        until("healthy server of NATS", || is_ok(&self.monitoring, "/healthz"));
    }
}

impl Drop for NatsProcess {
    fn drop(&mut self) {
        process::end(&mut self.child);
        if std::thread::panicking() {
            let log = fs::read_to_string(self.data.path().join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(5).collect();
            eprintln!("the last lines of a server of NATS: {last:#?}");
        }
    }
}

impl BalancerProcess {
    /// Starts HAProxy in front of the nodes, and waits until it reaches each of them. Returns
    /// `None` if it is not installed.
    pub fn start(nodes: &[ServerProcess]) -> Option<Self> {
        if !runs(Path::new("haproxy"), "-v") {
            return None;
        }
        let [address] = free_addresses();
        let mut command = process::guarded();
        command.args(["haproxy", "-q", "-db", "-f", BALANCER]);
        command.env("BALANCER", address.to_string());
        for (index, node) in nodes.iter().enumerate() {
            command.env(format!("NODE_{}", index + 1), node.endpoint.address.to_string());
        }
        let child = command.stdin(Stdio::null()).spawn().expect("setpriv, of util-linux");
        let balancer = Self { child, endpoint: Endpoint::local(address, None) };
        until("answer through HAProxy", || is_ok(&balancer.endpoint, "/health/ready"));
        Some(balancer)
    }
}

impl Drop for BalancerProcess {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// Returns the name of a server of NATS.
fn name(index: usize) -> String {
    format!("n{index}")
}

/// Returns `Some` if the response to a request has the status 200.
fn is_ok(endpoint: &Endpoint, path: &str) -> Option<()> {
    try_get(endpoint, path).ok().filter(|response| response.status == 200).map(drop)
}

/// Returns the index of the server that leads a stream, if there is one.
fn leader(stream: &Value) -> Option<usize> {
    let leader = stream.pointer("/cluster/leader")?.as_str()?;
    (0..COUNT).find(|index| name(*index) == leader)
}

/// Returns the size of a stream in bytes.
fn size(stream: &Value) -> Option<f64> {
    stream.pointer("/state/bytes")?.as_f64()
}

/// Returns addresses at which nobody listens. All were open at once, so they differ.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners = [(); N].map(|()| TcpListener::bind(any).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_leader_and_the_size_of_a_stream_are_found() {
        let stream = json!({"cluster": {"leader": "n2"}, "state": {"messages": 2, "bytes": 300}});
        assert_eq!((leader(&stream), size(&stream)), (Some(2), Some(300.0)));
        let during_election = json!({"cluster": {"leader": ""}});
        assert_eq!((leader(&during_election), size(&during_election)), (None, None));
    }
}
