//! A server as a process on a core of its own, and the CPU time and memory of processes.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{time::ClockId, unistd::Pid};
use tokio::net::{TcpListener, TcpSocket};

use crate::load::Endpoint;

/// The core that servers run on. The load generator has the others.
const CORE: &str = "0";
/// Length of the listen backlog, the same as Waterclock's. A client beyond it retries after a
/// second, which would distort the storm.
const BACKLOG: u32 = 8192;

/// The server to measure, and those to compare it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// The raw loop.
    Raw,
    /// axum's `Sse`.
    Rival,
    Waterclock,
}

/// A running server. Dropping it kills the process.
pub struct ServerProcess {
    child: Child,
    pub endpoint: Endpoint,
    _data: tempfile::TempDir,
}

impl ServerProcess {
    /// Starts a server on a free port, and waits until it listens. `options` are for Waterclock.
    pub fn start(kind: ServerKind, waterclock: &str, options: &[&str]) -> Self {
        let data = temporary_folder();
        let mut command = on_server_core();
        match kind {
            ServerKind::Raw => command.arg(std::env::current_exe().unwrap()).arg("raw"),
            ServerKind::Rival => command.arg(std::env::current_exe().unwrap()).arg("rival"),
            ServerKind::Waterclock => command
                .args([waterclock, "--listen=127.0.0.1:0", "--interval=24h", "--data-dir"])
                .arg(data.path())
                .args(["--max-streams-per-address=20000", "--max-streams=19000"])
                .args(options)
                .env("RUST_LOG", "warn"),
        };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("taskset, of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().split_once("://").and_then(|(_, address)| address.parse().ok());
        let address: SocketAddr =
            address.unwrap_or_else(|| panic!("the server prints no address: {line:?}"));
        let certificate = data.path().join("self-signed.pem");
        let endpoint = Endpoint::local(address, certificate.exists().then_some(&certificate));
        Self { child, endpoint, _data: data }
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Listens on a free port for a server of the comparison, and prints the address, as Waterclock
/// does. Must be called within a runtime.
pub fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(BACKLOG).unwrap();
    println!("listening on http://{}", listener.local_addr().unwrap());
    listener
}

/// Creates a folder for the data of a server. It is not in /tmp, which may be in memory.
pub fn temporary_folder() -> tempfile::TempDir {
    fs::create_dir_all("target").unwrap();
    tempfile::tempdir_in("target").unwrap()
}

fn on_server_core() -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", CORE]);
    command
}

/// Runs this program with other arguments on the servers' core, and returns its output.
pub fn run_on_server_core(arguments: &[String], folder: &Path) -> String {
    let program = std::env::current_exe().unwrap();
    let mut command = on_server_core();
    let output = command.arg(program).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the CPU time that a process has used so far, with that of threads that have ended.
pub fn cpu_time(pid: u32) -> Duration {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let clock = ClockId::pid_cpu_clock_id(pid).expect("a process with this id");
    clock.now().unwrap().into()
}

/// Returns the memory of a process in kB, with a proportional share of shared pages (PSS).
pub fn memory(pid: u32) -> f64 {
    kilobytes(&memory_file(pid), "Pss:")
}

/// Returns `true` if the process exists and this one may read its memory figures.
pub fn is_readable(pid: u32) -> bool {
    fs::read(memory_file(pid)).is_ok()
}

fn memory_file(pid: u32) -> String {
    format!("/proc/{pid}/smaps_rollup")
}

/// Returns the memory of the kernel's own objects in kB, such as sockets and open files.
pub fn kernel_memory() -> f64 {
    kilobytes("/proc/meminfo", "Slab:")
}

/// Reads the line that begins with `name` from a file of proc(5).
fn kilobytes(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
