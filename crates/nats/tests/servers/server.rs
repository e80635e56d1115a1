//! A server of NATS for tests, also for those of the program.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

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
        let store = store_in(&folder);
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

    /// Asks the server to end, and waits until it has.
    pub fn terminate(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        self.process.wait().unwrap();
    }

    /// Suspends the server, and waits until it is: it keeps its connections, and does nothing.
    pub fn suspend(&self) {
        let process = Pid::from_child(&self.process);
        kill_process(process, Signal::STOP).unwrap();
        waitid(WaitId::Pid(process), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    }

    /// Lets a suspended server continue.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).unwrap();
    }

    /// Takes a setting out of the configuration, for the next start.
    pub fn unset(&self, setting: &str) {
        let file = self.folder.path().join("nats.conf");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(setting), "{text}");
        fs::write(&file, text.replace(setting, "")).unwrap();
    }

    /// Starts the server again after it was killed.
    pub fn restart(&mut self) {
        self.process = spawn(&self.folder);
    }

    /// Returns the folder of its streams.
    pub fn store(&self) -> PathBuf {
        store_in(&self.folder)
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn monitoring(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
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

fn store_in(folder: &TempDir) -> PathBuf {
    folder.path().join("store")
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
        if std::env::var_os("NATS_REQUIRED").is_none() {
            eprintln!("nats-server is not there: skipped");
            std::process::exit(0);
        }
        panic!(
            "these tests need nats-server 2.14 or later, but {} cannot be run ({error}): install \
             it, and set NATS_SERVER to its path",
            program.display()
        )
    })
}

/// Returns ports on which nobody listens, each once. The system gives none of them to a connection
/// in the meantime, nor to a listener that asks for any port.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let mut ports = std::iter::repeat_with(|| {
            // Tests of several processes begin at different ports.
            let number = std::process::id() * 64 + TAKEN.fetch_add(1, Ordering::Relaxed);
            u16::try_from(number % 12_000).unwrap() + 20_000
        });
        ports.by_ref().take(12_000).find(is_free).expect("a free port")
    })
}
