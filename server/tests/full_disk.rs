//! The program on a full disk: a small file system in a mount namespace of its own, in memory or in
//! a file.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails a test")]

mod binary;

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// Limit of every wait in these tests.
const DEADLINE: Duration = Duration::from_mins(1);

/// A small file system, which ends with this value.
struct SmallDisk {
    /// The process that keeps the mount namespace alive until its standard input ends.
    holder: Child,
    _input: ChildStdin,
    /// Arguments of `nsenter`.
    enter: &'static [&'static str],
    /// Contains the folder where the disk is mounted.
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts a file system in memory, if the system permits it.
    fn in_memory() -> Option<Self> {
        // Without root, a user namespace permits it on many systems.
        let unshare = ["--mount", "--map-root-user"];
        let enter = &["--user", "--mount", "--preserve-credentials"];
        Self::mount("in memory", &unshare, enter, "mount -t tmpfs -o size=24m none disk")
    }

    /// Mounts a file system with small blocks, if the system permits it to this user.
    fn ext4() -> Option<Self> {
        let script = "truncate -s 32m image && mkfs.ext4 -q -b 1024 image && \
                      mount -o loop image disk";
        Self::mount("ext4", &["--mount"], &["--mount"], script)
    }

    /// Returns one disk of each kind that the system permits.
    fn all() -> impl Iterator<Item = Self> {
        [Self::in_memory, Self::ext4].into_iter().filter_map(|mount| mount())
    }

    /// Mounts a file system by a script. Returns `None`, and says so, if that fails.
    fn mount(
        name: &str,
        unshare: &[&str],
        enter: &'static [&'static str],
        script: &str,
    ) -> Option<Self> {
        let not_tested = |reason: &str| {
            // Written past the capture of the test harness, so that everybody sees it.
            let _ = writeln!(io::stderr(), "NOT TESTED: full disks, {name}, because {reason}");
        };
        let folder = tempfile::tempdir().unwrap();
        let script = format!("cd \"$0\" && mkdir disk && {script} && echo mounted && exec cat");
        let holder = Command::new("unshare")
            .args(unshare)
            .args(["sh", "-c", &script])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = holder.map_err(|error| not_tested(&format!("`unshare`: {error}"))).ok()?;
        let input = holder.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line != "mounted\n" {
            not_tested("the system does not permit it");
            let _ = holder.wait();
            return None;
        }
        Some(Self { holder, _input: input, enter, folder })
    }

    /// Returns the path to a file on the disk, as this process sees it.
    fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.folder.path().strip_prefix("/").unwrap()).join("disk").join(name)
    }

    /// Returns the program, which sees the disk.
    fn program(&self) -> Command {
        let holder = self.holder.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(self.enter).args(["--target", &holder]).arg(binary::waterclock());
        command
    }

    /// Runs the program, with the folder `data` on the disk, until it fails. Returns the error.
    fn fail(&self, arguments: &[&str]) -> String {
        let data = self.folder.path().join("disk/data");
        let output = self.program().args(arguments).arg("--data-dir").arg(data).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts the program with the folder `data` on the disk.
    fn start(&self, options: &[&str]) -> Server {
        let mut child = self
            .program()
            .args(["--listen=127.0.0.1:0", "--interval=24h", "--data-dir"])
            .arg(self.folder.path().join("disk/data"))
            .args(options)
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on http://").expect("a start");
        Server { child, address: address.parse().unwrap() }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A running program.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Sends a request, and returns the status and the body.
    fn request(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = body.len();
        let head = format!("{method} {target} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // The server may respond before it has read everything.
        let _ = stream.write_all(body.as_bytes());
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn get(&self, target: &str) -> (u16, String) {
        self.request("GET", target, "")
    }

    /// Publishes events of 60,000 bytes, at most `count`, until one is refused. Returns the number
    /// of published ones, and the status of the refusal.
    fn publish(&self, topic: &str, count: usize) -> (usize, Option<u16>) {
        let data = "x".repeat(60_000);
        for published in 0..count {
            let (status, _) = self.request("POST", &format!("/events/{topic}"), &data);
            if status != 201 {
                return (published, Some(status));
            }
        }
        (count, None)
    }

    /// Publishes more than a disk has room for, in few commits. Returns the status.
    fn fill(&self, topic: &str) -> u16 {
        let line = "x".repeat(60_000);
        let lines = vec![line.as_str(); 700].join("\n");
        self.request("POST", &format!("/events/{topic}?split=lines"), &lines).0
    }

    /// Repeats a request until it gets a status.
    fn wait_for(&self, method: &str, target: &str, status: u16) {
        let began = Instant::now();
        while self.request(method, target, "x").0 != status {
            assert!(began.elapsed() < DEADLINE, "{target} does not get {status}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn metric(&self, name: &str) -> u64 {
        let (_, metrics) = self.get("/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().parse().unwrap()
    }

    /// Returns the newest events of a topic, as the server has them in its log.
    fn events(&self, topic: &str) -> Vec<Value> {
        let target = format!("/poll?topic={topic}&last_event_id=earliest");
        let (mut target, mut events) = (target, Vec::new());
        loop {
            let (status, body) = self.get(&target);
            assert_eq!(status, 200, "{body}");
            let mut page: Value = serde_json::from_str(&body).unwrap();
            let found = page["events"].as_array_mut().unwrap();
            events.append(found);
            // A page may be empty although more follows, if its events were just dropped.
            if page["more"] == false {
                return events;
            }
            let cursor = page["cursor"].as_str().unwrap();
            target = format!("/poll?topic={topic}&last_event_id={cursor}");
        }
    }

    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_full_disk_is_told_read_from_and_recovers_by_itself() {
    for disk in SmallDisk::all() {
        fs::write(disk.path("other"), vec![1; 4 << 20]).unwrap();
        let full = ["--retain-bytes=1GiB"];
        let server = disk.start(&full);
        let (published, refusal) = server.publish("t", 1000);
        assert_eq!(refusal, Some(507));
        assert!(published > 100, "{published}");
        let check = |server: &Server| {
            let reading = "ready, but events cannot be published: the disk is full\n";
            assert_eq!(server.get("/health/ready"), (200, reading.to_owned()));
            let (status, body) = server.get("/health/ready?publish");
            assert_eq!(status, 503);
            assert!(body.contains("Events can be read, but not be published: the disk is full."));
            assert_eq!(server.events("t").len(), published);
        };
        check(&server);
        assert!(server.metric("waterclock_publishes_failed_total{reason=\"disk-full\"}") > 0);

        // A restart finds it full.
        server.stop();
        let rest = fs::File::create(disk.path("rest")).unwrap();
        let _ = io::copy(&mut io::repeat(1), &mut &rest);
        let server = disk.start(&full);
        server.wait_for("GET", "/health/ready?publish", 503);
        check(&server);

        // The operator makes room, and nobody publishes.
        fs::remove_file(disk.path("rest")).unwrap();
        fs::remove_file(disk.path("other")).unwrap();
        server.wait_for("GET", "/health/ready?publish", 200);
        assert_eq!(server.publish("t", 10), (10, None));
        assert_eq!(server.events("t").len(), published + 10);
    }
}

#[test]
fn a_disk_that_the_log_has_filled_is_emptied_by_retention() {
    for disk in SmallDisk::all() {
        let server = disk.start(&["--retain-bytes=1GiB"]);
        assert_eq!(server.fill("t"), 507);
        server.stop();
        // Everything is too old now.
        let server = disk.start(&["--retain-bytes=1GiB", "--retain-age=1s"]);
        server.wait_for("POST", "/events/t", 201);
        // The disk is filled several times in a row.
        for _ in 0..3 {
            server.fill("t");
            server.wait_for("POST", "/events/t", 201);
        }
        server.wait_for("GET", "/health/ready?publish", 200);
    }
}

#[test]
fn a_burst_does_not_fill_a_small_disk_within_the_default_limits() {
    let Some(disk) = SmallDisk::in_memory() else { return };
    let server = disk.start(&[]);
    let line = "x".repeat(60_000);
    let lines = vec![line.as_str(); 1500].join("\n");
    let (status, body) = server.request("POST", "/events/t?split=lines", &lines);
    assert_eq!((status, body.as_str()), (200, "{\"published\":1500}"));
    let kept = server.events("t").len();
    assert!(kept > 50, "{kept}");
}

#[test]
fn lines_across_the_moment_of_a_full_disk_are_counted_exactly() {
    let Some(disk) = SmallDisk::in_memory() else { return };
    let server = disk.start(&["--retain-bytes=1GiB"]);
    let lines: Vec<_> = (0..30_000).map(|n| format!("{n} {}", "x".repeat(n % 7 * 400))).collect();
    let (status, body) = server.request("POST", "/events/t?split=lines", &lines.join("\n"));
    assert_eq!(status, 507);
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem.get("unconfirmed"), None);
    let published = usize::try_from(problem["published"].as_u64().unwrap()).unwrap();
    let events = server.events("t");
    let stored: Vec<_> = events.iter().map(|event| event["data"].as_str().unwrap()).collect();
    assert!(published > 1000 && stored == lines[..published], "{published}, {}", stored.len());
}

#[test]
fn a_backup_or_a_restoration_without_room_changes_nothing() {
    for disk in SmallDisk::all() {
        let server = disk.start(&["--retain-bytes=1GiB"]);
        assert_eq!(server.publish("t", 120), (120, None));
        let events = server.events("t");
        // Room that the server itself keeps is not to be had.
        let rest = fs::File::create(disk.path("rest")).unwrap();
        let _ = io::copy(&mut io::repeat(1), &mut &rest);
        rest.set_len(rest.metadata().unwrap().len() - (1 << 20)).unwrap();

        let backup = disk.folder.path().join("backup.db");
        let backup = backup.to_str().unwrap();
        let small = disk.folder.path().join("disk/backup.db");
        let small = small.to_str().unwrap();
        let full = |file: &str| format!("error: the disk is full: there is no room for {file}\n");
        let files = || {
            let names = fs::read_dir(disk.path(""))
                .unwrap()
                .chain(fs::read_dir(disk.path("data")).unwrap());
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let before = files();
        assert_eq!(disk.fail(&["backup", small]), full(small));
        assert_eq!(files(), before);
        assert_eq!(server.events("t"), events);

        let data = disk.folder.path().join("disk/data");
        let made =
            disk.program().args(["backup", backup, "--data-dir"]).arg(&data).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        server.stop();
        let before = files();
        let log = data.join("log.db");
        assert_eq!(disk.fail(&["restore", backup]), full(log.to_str().unwrap()));
        assert_eq!(files(), before);

        fs::remove_file(disk.path("rest")).unwrap();
        let server = disk.start(&["--retain-bytes=1GiB"]);
        // The ids tell that it is the same log, in the same epoch.
        assert_eq!(server.events("t"), events);
    }
}
