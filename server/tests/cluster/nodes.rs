//! Processes of a cluster: three servers of NATS, and nodes.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    clients::get,
    links::{Link, Passage},
    server::{Configuration, NatsServer, free_ports},
};

/// Time in which everything must happen that a test waits for.
pub const DEADLINE: Duration = Duration::from_mins(1);
/// Number of the servers, and of the nodes at the start.
pub const COUNT: usize = 3;
/// Pause between two looks at a condition.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// Returns `true` if servers of NATS can be started. Otherwise says so.
///
/// # Panics
///
/// If `NATS_REQUIRED` is set and they cannot.
pub fn has_nats() -> bool {
    let program = std::env::var_os("NATS_SERVER").map_or("nats-server".into(), PathBuf::from);
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    let is_there = version.is_ok_and(|status| status.success());
    if !is_there {
        assert!(std::env::var_os("NATS_REQUIRED").is_none(), "nats-server is not there");
        eprintln!("nats-server is not there: skipped");
    }
    is_there
}

/// Repeats an attempt until it returns something.
pub async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {DEADLINE:?}");
        sleep(LOOK_PAUSE).await;
    }
}

/// Three servers of NATS, and nodes on them. They reach each other over links.
pub struct NodeCluster {
    pub servers: Vec<Mutex<NatsServer>>,
    pub nodes: Vec<Arc<ClusterNode>>,
    /// The links from each node to each server.
    to_servers: Vec<Vec<Link>>,
    /// The links between servers, with the indices of both.
    between_servers: Vec<(usize, usize, Link)>,
    options: Vec<String>,
}

impl NodeCluster {
    /// Starts the servers and three nodes, and waits until all can publish.
    pub async fn start(options: &[&str]) -> Self {
        let mut cluster = Self::start_servers(options).await;
        for _ in 0..COUNT {
            cluster.add().await;
        }
        for node in &cluster.nodes {
            node.can_publish().await;
        }
        cluster
    }

    /// Starts the servers, for nodes with these options.
    pub async fn start_servers(options: &[&str]) -> Self {
        let ports: [u16; COUNT] = free_ports();
        let mut between_servers = Vec::new();
        for (from, to) in pairs() {
            between_servers.push((from, to, Link::to(ports[to]).await));
        }
        let configured = |index: usize| {
            let routes = between_servers.iter().filter(|(from, ..)| *from == index);
            let routes: Vec<_> =
                routes.map(|(.., link)| format!("\"nats://127.0.0.1:{}\"", link.port)).collect();
            // Neither clients nor servers learn other addresses than those of links. Nobody listens
            // at the address that a server tells the others.
            let more = format!(
                "cluster {{\nname: c\nlisten: \"127.0.0.1:{}\"\nno_advertise: true\n\
                 advertise: \"127.0.0.1:1\"\nroutes: [{}]\n}}",
                ports[index],
                routes.join(", ")
            );
            let name = format!("s{index}");
            Mutex::new(NatsServer::configured(&Configuration {
                name,
                more,
                ..Configuration::default()
            }))
        };
        let servers = (0..COUNT).map(configured).collect();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let (nodes, to_servers) = (Vec::new(), Vec::new());
        let cluster = Self { servers, nodes, to_servers, between_servers, options };
        for index in 0..COUNT {
            cluster.healthy(index).await;
        }
        cluster
    }

    /// Starts a further node, with an empty folder.
    pub async fn add(&mut self) -> Arc<ClusterNode> {
        self.add_in(Arc::new(tempfile::tempdir().unwrap()), &[]).await
    }

    /// Starts a further node in a folder, with more options.
    pub async fn add_in(&mut self, folder: Arc<TempDir>, more: &[&str]) -> Arc<ClusterNode> {
        let (mut links, mut monitoring) = (Vec::new(), Vec::new());
        for server in &self.servers {
            let port = server.lock().port;
            links.push(Link::to(port).await);
            monitoring.push(server.lock().monitoring());
        }
        let urls: Vec<_> =
            links.iter().map(|link| format!("nats://127.0.0.1:{}", link.port)).collect();
        let name = format!("n{}", self.nodes.len());
        let mut options = self.options.clone();
        options.extend([
            format!("--node={name}"),
            format!("--cluster={}", urls.join(",")),
            format!("--cluster-monitoring={}", monitoring.join(",")),
            "--cluster-stream=faults".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            "--heartbeat=500ms".to_owned(),
        ]);
        options.extend(more.iter().map(|&option| option.to_owned()));
        let node = Arc::new(ClusterNode::start(name, options, folder));
        self.to_servers.push(links);
        self.nodes.push(Arc::clone(&node));
        node
    }

    /// Waits until a server has all entries and takes part in the vote.
    pub async fn healthy(&self, index: usize) {
        let url = format!("{}/healthz", self.servers[index].lock().monitoring());
        until(&format!("health of server {index}"), async || {
            (get(&url).await?.0 == 200).then_some(())
        })
        .await;
    }

    /// Sets the links between a server and the others.
    pub fn set_server(&self, index: usize, passage: Passage) {
        for (from, to, link) in &self.between_servers {
            if [*from, *to].contains(&index) {
                link.set(passage);
            }
        }
    }

    /// Sets the links from the nodes to a server.
    pub fn set_clients(&self, index: usize, passage: Passage) {
        self.to_servers.iter().for_each(|links| links[index].set(passage));
    }

    /// Sets the link from a node to a server.
    pub fn set_link(&self, node: usize, server: usize, passage: Passage) {
        self.to_servers[node][server].set(passage);
    }

    /// Sets the links from a node to the servers.
    pub fn set_node(&self, index: usize, passage: Passage) {
        self.to_servers[index].iter().for_each(|link| link.set(passage));
    }

    /// Returns the ends of nodes that no test has caused, and starts these nodes again.
    pub fn unexpected_ends(&self) -> Vec<String> {
        self.nodes.iter().filter_map(|node| node.unexpected_end()).collect()
    }

    /// Checks that no node has believed that the servers had lost entries.
    pub fn assert_no_loss(&self) {
        for node in &self.nodes {
            let output = node.output();
            let signs = ["has set its log aside", "must start again"];
            let has_sign = |line: &&str| signs.iter().any(|sign| line.contains(sign));
            let line = output.lines().find(has_sign);
            assert_eq!(line, None, "{}", node.name);
        }
    }

    /// Returns the address of a node that runs, if there is one.
    pub fn any_address(&self, rng: &mut fastrand::Rng) -> Option<(&str, SocketAddr)> {
        let node = &self.nodes[rng.usize(..self.nodes.len())];
        Some((&node.name, node.address()?))
    }
}

/// Returns the indices of two different servers, in all ways.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..COUNT * COUNT)
        .map(|number| (number / COUNT, number % COUNT))
        .filter(|(from, to)| from != to)
}

/// A node. Its process is killed once it is dropped.
pub struct ClusterNode {
    pub name: String,
    options: Vec<String>,
    folder: Arc<TempDir>,
    process: Mutex<NodeProcess>,
}

struct NodeProcess {
    child: Child,
    /// The address, once it listens.
    address: Arc<Mutex<Option<SocketAddr>>>,
    /// `true` after the test has killed it.
    is_killed: bool,
}

impl ClusterNode {
    fn start(name: String, options: Vec<String>, folder: Arc<TempDir>) -> Self {
        let process = Mutex::new(NodeProcess::start(&options, &folder));
        Self { name, options, folder, process }
    }

    /// Starts a single process, which is a member of no cluster.
    pub fn alone(options: &[&str]) -> Self {
        let options = ["--listen=127.0.0.1:0"].iter().chain(options);
        let options = options.map(|&option| option.to_owned()).collect();
        Self::start("alone".to_owned(), options, Arc::new(tempfile::tempdir().unwrap()))
    }

    /// Returns the folder with its data folder.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    /// Returns its address; `None` while it does not run.
    pub fn address(&self) -> Option<SocketAddr> {
        let process = self.process.lock();
        let address = *process.address.lock();
        address.filter(|_| !process.is_killed)
    }

    /// Waits until it listens.
    pub async fn listens(&self) -> SocketAddr {
        until(&format!("address of {}", self.name), async || {
            assert_eq!(self.unexpected_end(), None);
            self.address()
        })
        .await
    }

    /// Waits until it listens and can publish.
    pub async fn can_publish(&self) -> SocketAddr {
        let address = self.listens().await;
        let url = format!("http://{address}/health/ready?publish");
        until(&format!("publishes by {}", self.name), async || {
            (get(&url).await?.0 == 200).then_some(address)
        })
        .await
    }

    pub fn kill(&self) {
        let mut process = self.process.lock();
        process.is_killed = true;
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub async fn terminate(&self) {
        self.process.lock().is_killed = true;
        self.signal(Signal::TERM);
        let status = until(&format!("end of {}", self.name), async || {
            self.process.lock().child.try_wait().unwrap()
        })
        .await;
        assert!(status.success(), "{} has ended with {status}", self.name);
    }

    /// Waits until it has ended by itself. Returns its exit status.
    pub async fn ends(&self) -> Option<i32> {
        let end = until(&format!("end of {}", self.name), async || {
            let mut process = self.process.lock();
            let status = process.child.try_wait().unwrap()?;
            process.is_killed = true;
            Some(status)
        })
        .await;
        end.code()
    }

    /// Returns the folder of its log.
    pub fn data(&self) -> PathBuf {
        data_in(&self.folder)
    }

    /// Starts it again with the same folder.
    pub fn restart(&self) {
        *self.process.lock() = NodeProcess::start(&self.options, &self.folder);
    }

    /// Sends a signal that suspends it or lets it continue. Does nothing if it has ended.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.process.lock().child), signal);
    }

    /// Returns the id of its process.
    pub fn id(&self) -> u32 {
        self.process.lock().child.id()
    }

    /// Returns the exit status and the output if it has ended by itself, and starts it again.
    pub fn unexpected_end(&self) -> Option<String> {
        let mut process = self.process.lock();
        if process.is_killed {
            return None;
        }
        let status = process.child.try_wait().unwrap()?;
        let output = self.output();
        let last: Vec<_> = output.lines().rev().take(4).collect();
        *process = NodeProcess::start(&self.options, &self.folder);
        Some(format!("{} has ended ({status}), after: {last:#?}", self.name))
    }

    /// Returns the messages that it has printed.
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }
}

fn data_in(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

impl Drop for ClusterNode {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("output of node {}:\n{}", self.name, self.output());
        }
    }
}

impl NodeProcess {
    fn start(options: &[String], folder: &TempDir) -> Self {
        let output = folder.path().join("output");
        let output = File::options().create(true).append(true).open(output).unwrap();
        let mut child = Command::new(crate::binary::waterclock())
            .args(options)
            .arg(format!("--data-dir={}", data_in(folder).display()))
            .env("RUST_LOG", std::env::var_os("FAULT_LOG").unwrap_or("info".into()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .unwrap();
        let lines = child.stdout.take().map(BufReader::new);
        let address: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let found = Arc::clone(&address);
        thread::spawn(move || {
            for line in lines.into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on http://") {
                    *found.lock() = address.parse().ok();
                }
            }
        });
        Self { child, address, is_killed: false }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
