//! A server as a process on a core of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The core that servers run on. The load generator has the others.
const CORE: &str = "0";
/// Ticks a second in which Linux counts CPU time (`getconf CLK_TCK`).
const TICKS_PER_SECOND: u64 = 100;

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
    pub address: SocketAddr,
    /// The data directory.
    pub data: tempfile::TempDir,
}

impl ServerProcess {
    /// Starts a server on a free port, and waits until it listens.
    pub fn start(kind: ServerKind, waterclock: &str) -> Self {
        // Not in /tmp, which may be in memory.
        let data = tempfile::tempdir_in("target").unwrap();
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", CORE]);
        match kind {
            ServerKind::Raw => command.arg(std::env::current_exe().unwrap()).arg("raw"),
            ServerKind::Rival => command.arg(std::env::current_exe().unwrap()).arg("rival"),
            ServerKind::Waterclock => command
                .args([waterclock, "--listen=127.0.0.1:0", "--interval=24h", "--data-dir"])
                .arg(data.path())
                .args(["--max-streams-per-address=20000", "--max-streams=12000"])
                .env("RUST_LOG", "warn"),
        };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("taskset, of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("listening on http://").parse();
        Self { child, address: address.expect("a line with the address"), data }
    }

    /// Returns the CPU time that the server has used so far.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Fields 14 and 15 of proc_pid_stat(5), counted after the name in brackets, which may
        // contain spaces.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Returns the server's memory in kB, with a proportional share of shared pages (PSS).
    pub fn memory(&self) -> f64 {
        let file = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
