//! A server as a process on a core of its own, and the CPU time, memory and writes of processes.

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
/// The place of the folders with the data of servers.
const FOLDERS: &str = "target";
/// The beginning of the names of these folders. The id of the process that creates them follows.
const FOLDER_NAME: &str = "bench-";
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
    /// Waterclock as a node of a cluster, in which other processes are killed.
    Node,
}

/// A running server. Dropping it kills the process.
pub struct ServerProcess {
    command: Command,
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
            // An option overrides its environment variable.
            ServerKind::Waterclock | ServerKind::Node => command
                .env("WATERCLOCK_LISTEN", "127.0.0.1:0")
                .env("WATERCLOCK_INTERVAL", "24h")
                .args([waterclock, "--data-dir"])
                .arg(data.path())
                .args(["--max-streams-per-address=20000", "--max-streams=19000"])
                .args(options)
                .env("RUST_LOG", if kind == ServerKind::Node { "error" } else { "warn" }),
        };
        command.stdout(Stdio::piped());
        let (child, address) = listening(&mut command);
        let certificate = data.path().join("self-signed.pem");
        let endpoint = Endpoint::local(address, certificate.exists().then_some(&certificate));
        Self { command, child, endpoint, _data: data }
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Starts the server again after it was killed, with the same options and folder.
    pub fn restart(&mut self) {
        let (child, address) = listening(&mut self.command);
        self.child = child;
        self.endpoint = Endpoint::local(address, None);
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Starts a server, and waits for the line with its address.
fn listening(command: &mut Command) -> (Child, SocketAddr) {
    let mut child = command.spawn().expect("setpriv and taskset, of util-linux");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().split_once("://").and_then(|(_, address)| address.parse().ok());
    (child, address.unwrap_or_else(|| panic!("the server prints no address: {line:?}")))
}

/// Kills a process, unless it has ended already.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
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
    fs::create_dir_all(FOLDERS).unwrap();
    let prefix = format!("{FOLDER_NAME}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir_in(FOLDERS).unwrap()
}

/// Removes the folders of runs that have ended without doing so, such as interrupted ones.
pub fn remove_old_folders() {
    for entry in fs::read_dir(FOLDERS).into_iter().flatten().map_while(Result::ok) {
        let creator = entry.file_name().to_str().and_then(creator);
        if creator.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // Another program may have been faster.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns the process that has created a folder, by the folder's name.
fn creator(name: &str) -> Option<u32> {
    name.strip_prefix(FOLDER_NAME)?.split_once('-')?.0.parse().ok()
}

/// Returns a command to which the name and the arguments of a program must be added. The kernel
/// kills that program once the thread that starts it has ended, even if this program is killed.
pub fn guarded() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command
}

/// Returns the same for a program on the servers' core.
fn on_server_core() -> Command {
    let mut command = guarded();
    command.args(["taskset", "--cpu-list", CORE]);
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
    number(&memory_file(pid), "Pss:")
}

/// Returns the bytes that a process has made the system write to disks so far.
pub fn written(pid: u32) -> f64 {
    number(&format!("/proc/{pid}/io"), "write_bytes:")
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
    number("/proc/meminfo", "Slab:")
}

/// Reads the number in the line that begins with `name` from a file of proc(5).
fn number(file: &str, name: &str) -> f64 {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_the_id_of_its_creator_in_its_name() {
        let folder = temporary_folder();
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        assert_eq!(creator(name), Some(std::process::id()));
        assert_eq!(["release", "bench-7", "bench-x-7", "7-x"].map(creator), [None; 4]);
    }

    #[test]
    fn only_folders_of_processes_that_have_ended_are_removed() {
        let own = temporary_folder();
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let old = Path::new(FOLDERS).join(format!("{FOLDER_NAME}{}-x", ended.id()));
        fs::create_dir(&old).unwrap();
        remove_old_folders();
        assert_eq!([own.path().exists(), old.exists()], [true, false]);
    }
}
