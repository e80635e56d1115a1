//! A server as a process on a core of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The core that servers run on; the load has the others.
const CORE: &str = "0";
/// How many ticks a second the kernel counts processor time in (`getconf CLK_TCK`), on all Linux.
const TICKS: u64 = 100;

/// What is measured, or stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Raw,
    Rival,
    Waterclock,
}

/// A server, until it is dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    pub data: tempfile::TempDir,
}

impl Process {
    pub fn start(kind: Kind, waterclock: &str) -> Self {
        // Not in /tmp, which may be memory.
        let data = tempfile::tempdir_in("target").unwrap();
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", CORE]);
        match kind {
            Kind::Raw => command.arg(std::env::current_exe().unwrap()).arg("raw"),
            Kind::Rival => command.arg(std::env::current_exe().unwrap()).arg("rival"),
            Kind::Waterclock => command
                .args([waterclock, "--listen=127.0.0.1:0", "--interval=24h", "--data-dir"])
                .arg(data.path())
                .args(["--max-streams-per-address=20000", "--max-streams=12000"])
                .env("RUST_LOG", "warn"),
        };
        let mut child = command.stdout(Stdio::piped()).spawn().expect("taskset, of util-linux");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_start_matches("listening on http://").parse();
        Self { child, address: address.expect("its address"), data }
    }

    /// How much processor time it has taken.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the name in brackets, which may be anything: proc_pid_stat(5), fields 14 and 15.
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 1000 / TICKS)
    }

    /// How much memory it has, in kB: what it shares counts in part (PSS).
    pub fn memory(&self) -> f64 {
        let file = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
