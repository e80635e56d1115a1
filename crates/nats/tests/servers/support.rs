//! Servers of NATS for tests.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};
use waterclock::cluster::{RawEntry, Sequencer as _};
use waterclock_nats::{NatsSequencer, NatsSettings};

/// Time in which everything must happen that a test waits for.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A server, which is killed once it is dropped.
pub struct NatsServer {
    process: Child,
    pub port: u16,
    pub http: u16,
    folder: TempDir,
}

/// The parts of a server's configuration that tests change.
pub struct Configuration {
    pub name: String,
    /// The section `jetstream`, without its folder.
    pub jetstream: Option<&'static str>,
    /// Any further lines.
    pub more: String,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            name: "n1".to_owned(),
            jetstream: Some("sync_interval: always"),
            more: String::new(),
        }
    }
}

impl NatsServer {
    pub fn start() -> Self {
        Self::configured(&Configuration::default())
    }

    pub fn configured(configuration: &Configuration) -> Self {
        let Configuration { name, jetstream, more } = configuration;
        let folder = tempfile::tempdir().unwrap();
        let [port, http] = free_ports();
        let store = folder.path().join("store");
        let jetstream = jetstream.map_or_else(String::new, |settings| {
            format!("jetstream {{\nstore_dir: {:?}\n{settings}\n}}\n", store.display().to_string())
        });
        let text = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{http}\"\n\
             {jetstream}{more}\n"
        );
        fs::write(folder.path().join("nats.conf"), text).unwrap();
        let process = spawn(&folder);
        Self { process, port, http, folder }
    }

    /// Kills the server, so that it cannot write or say anything more.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Suspends the server: it keeps its connections, and does nothing.
    pub fn suspend(&self) {
        kill_process(Pid::from_child(&self.process), Signal::STOP).unwrap();
    }

    /// Lets a suspended server continue.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).unwrap();
    }

    /// Starts the server again after it was killed.
    pub fn restart(&mut self) {
        self.process = spawn(&self.folder);
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn monitoring(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Returns settings for this server alone.
    pub fn settings(&self) -> NatsSettings {
        NatsSettings {
            servers: vec![self.url()],
            monitoring: vec![self.monitoring()],
            replicas: 1,
            timeout: DEADLINE,
            ..NatsSettings::default()
        }
    }

    pub async fn sequencer(&self) -> NatsSequencer {
        NatsSequencer::connect(self.settings()).await.unwrap()
    }

    /// Connects as another program would.
    pub async fn client(&self) -> async_nats::Client {
        until("a connection", async || async_nats::connect(self.url()).await.ok()).await
    }

    /// Returns what the server wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("log of the server on port {}:\n{}", self.port, self.log());
        }
    }
}

fn spawn(folder: &TempDir) -> Child {
    let program = std::env::var_os("NATS_SERVER").map_or("nats-server".into(), PathBuf::from);
    let log =
        fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
    let spawned = Command::new(&program)
        .arg("--config")
        .arg(folder.path().join("nats.conf"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    spawned.unwrap_or_else(|error| {
        panic!(
            "these tests need nats-server 2.14 or later, but {} cannot be run ({error}): install \
             it, and set NATS_SERVER to its path",
            program.display()
        )
    })
}

/// Returns ports on which nobody listens. All were open at once, so they differ.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners = [(); N].map(|()| TcpListener::bind(any).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Repeats an attempt until it returns something.
pub async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "no {what} within {DEADLINE:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for a future that must end soon.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("it takes too long")
}

/// Proposes until an entry is accepted.
pub async fn propose(sequencer: &NatsSequencer, entry: &str) -> u64 {
    until("acknowledgement", async || sequencer.propose(entry.into(), false).await.ok()).await
}

/// Reads a number of entries.
pub async fn read(sequencer: &NatsSequencer, after: u64, count: usize) -> Vec<RawEntry> {
    soon(read_until(sequencer, after, |read| read.len() == count)).await
}

/// Reads entries until they are enough. Follows again from the last one after each failure, as
/// nodes do.
pub async fn read_until(
    sequencer: &NatsSequencer,
    after: u64,
    is_enough: impl Fn(&[RawEntry]) -> bool,
) -> Vec<RawEntry> {
    let mut read = Vec::<RawEntry>::new();
    while !is_enough(&read) {
        let last = read.last().map_or(after, |entry| entry.position);
        let Ok(mut entries) = sequencer.follow(last).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !is_enough(&read)
            && let Ok(entry) = entries.next().await
        {
            read.push(entry);
        }
    }
    let positions: BTreeSet<_> = read.iter().map(|entry| entry.position).collect();
    assert_eq!(positions.len(), read.len(), "an entry was repeated");
    assert!(read.is_sorted_by_key(|entry| entry.position));
    read
}

/// Returns the texts of entries.
pub fn texts(entries: &[RawEntry]) -> Vec<&str> {
    entries.iter().map(|entry| std::str::from_utf8(&entry.bytes).unwrap()).collect()
}
