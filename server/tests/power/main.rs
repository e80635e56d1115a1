//! Power cuts. The program runs on a disk of the test's own, which loses what was not synced, at
//! any moment. Nothing that was acknowledged may be lost, and the event log must always open.
//!
//! `POWER_CUTS` sets the number of cuts, and `POWER_SEED` the first seed. A failure prints its
//! seed. Another run with this seed and `POWER_CUTS=1` does the same, except for the scheduling of
//! the program's threads.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure here fails a test")]

#[path = "../binary/mod.rs"]
mod binary;
mod disk;
mod model;
mod mount;
mod program;

use std::{
    collections::HashMap,
    env,
    ffi::OsStr,
    io::{self, Write as _},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use fastrand::Rng;
use fuser::BackgroundSession;
use parking_lot::Mutex;
use rusqlite::Connection;
use tempfile::TempDir;
use waterclock::{event::Event, timestamp::Timestamp};

use disk::{File, Folder, Node, ROOT};
use model::{Model, Polled, Sent};
use mount::{SharedDisk, mount};
use program::{Client, Moment, Program};

/// Limit of every wait in these tests.
const DEADLINE: Duration = Duration::from_mins(1);
/// Longest time of publishing before a cut.
const WORK: Duration = Duration::from_millis(500);
/// Number of cuts that one disk gets.
const CUTS_PER_DISK: usize = 5;

/// All topics.
const TOPICS: [&str; 5] = ["clock", "keyed", "lines", "old", "single"];
/// Number of digits at the start of the data, which differ from event to event.
const NUMBER: usize = 20;

/// The work of the program when the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Scene {
    FirstStart,
    Migration,
    Start,
    Publishing,
    Retention,
    Stop,
}

/// Reads a number from the environment.
fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().filter(|text| !text.is_empty())?.parse().ok()
}

/// Writes to the terminal, past the capture of the test's output.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Returns `true` if disks can be mounted. Otherwise says so.
fn can_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    match mount(&SharedDisk::default(), folder.path()) {
        Ok(session) => session.umount_and_join().unwrap(),
        Err(error) => {
            say(&format!("power cuts: SKIPPED, no FUSE here: {error}"));
            return false;
        }
    }
    true
}

#[test]
fn nothing_acknowledged_is_lost_in_a_power_cut() {
    if !can_mount() {
        return;
    }
    let cuts = usize::try_from(number("POWER_CUTS").unwrap_or(50)).unwrap();
    let first = number("POWER_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let disks = cuts.div_ceil(CUTS_PER_DISK);
    say(&format!("power cuts: {disks} disks, POWER_SEED={first}"));
    let next = AtomicUsize::new(0);
    let (failed, scenes) = (Mutex::new(Vec::new()), Mutex::new(HashMap::new()));
    thread::scope(|scope| {
        for _ in 0..4.min(disks) {
            scope.spawn(|| {
                loop {
                    let disk = next.fetch_add(1, Ordering::Relaxed);
                    if disk >= disks {
                        return;
                    }
                    let seed = first.wrapping_add(disk as u64);
                    let run = catch_unwind(AssertUnwindSafe(|| run(seed, &scenes)));
                    if run.is_err() {
                        say(&format!("power cuts: POWER_SEED={seed} POWER_CUTS=1 failed"));
                        failed.lock().push(seed);
                    }
                }
            });
        }
    });
    say(&format!("power cuts: {:?}", scenes.into_inner()));
    assert_eq!(failed.into_inner(), [0; 0], "these seeds failed");
}

#[test]
fn a_first_start_succeeds_where_folders_cannot_be_synced() {
    if can_mount() {
        let machine = Machine::new(Rng::with_seed(0), usize::MAX, vec![]);
        machine.disk.lock().refuses_folders = true;
        machine.verify(&machine.launch(None));
    }
}

/// The answers to publishes while syncs fail must be true after a restart, with or without a loss
/// of power: what was acknowledged is there, and what was refused is not.
#[test]
fn answers_are_true_while_syncs_fail() {
    if !can_mount() {
        return;
    }
    let mut answers: HashMap<&str, usize> = HashMap::new();
    for seed in 0..3 {
        let mut machine = Machine::new(Rng::with_seed(seed), usize::MAX, vec![]);
        for count in [1, 4, 5, 6, 1000] {
            let running = machine.launch(None);
            let address = machine.verify(&running);
            let publisher = machine.publisher();
            let mut client = Client::connect(address).unwrap();
            machine.disk.lock().fail_syncs(count, machine.rng.fork());
            for n in 0..6 {
                let answer = if n % 3 == 2 {
                    publisher.try_lines(&mut client, 12)
                } else {
                    publisher.try_single(&mut client)
                };
                *answers.entry(answer).or_default() += 1;
            }
            drop(running);
            let disk = &mut *machine.disk.lock();
            if machine.rng.bool() {
                // Only the program has ended.
                disk.sync_all();
            }
            disk.restore(&mut machine.rng);
        }
        machine.verify(&machine.launch(None));
    }
    say(&format!("syncs that fail: {answers:?}"));
    assert!(answers.contains_key("stored") && answers.contains_key("unknown"), "{answers:?}");
}

/// A disk with the program's data, and the knowledge of what must be in them.
struct Machine {
    rng: Rng,
    options: Vec<String>,
    model: Arc<Mutex<Model>>,
    disk: SharedDisk,
    /// Contains the folder where the disk is mounted, and the program's output.
    folder: TempDir,
    /// Number of requests that were sent, which makes their data unique.
    requests: Arc<AtomicU64>,
}

/// The program on the mounted disk.
struct Running {
    program: Program,
    session: Option<BackgroundSession>,
    disk: SharedDisk,
    sender: mpsc::Sender<Moment>,
    moments: mpsc::Receiver<Moment>,
}

impl Running {
    /// Lets the power fail after a number of further changes and syncs of the disk.
    fn cut_after(&self, steps: usize) {
        cut_disk_after(&self.disk, steps, &self.sender);
    }

    /// Waits for a moment that the condition accepts.
    fn wait(&self, limit: Duration, condition: impl Fn(&Moment) -> bool) -> Option<Moment> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let moment = self.moments.recv_timeout(left).ok()?;
            if condition(&moment) {
                return Some(moment);
            }
        }
    }
}

fn cut_disk_after(disk: &SharedDisk, steps: usize, moments: &mpsc::Sender<Moment>) {
    let moments = moments.clone();
    disk.lock().cut_after(steps, move || drop(moments.send(Moment::Cut)));
}

/// Cuts the power, if that has not happened, and ends the program.
impl Drop for Running {
    fn drop(&mut self) {
        self.disk.lock().cut();
        let _ = self.program.kill();
        self.disk.lock().fail_requests();
        let _ = self.program.wait();
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

/// Lets one disk lose its power some times.
fn run(seed: u64, scenes: &Mutex<HashMap<Scene, usize>>) {
    let mut rng = Rng::with_seed(seed);
    let (retained, options) =
        if rng.bool() { (usize::MAX, vec![]) } else { (40, vec!["--retain-count=40".to_owned()]) };
    let mut machine = Machine::new(rng, retained, options);
    for n in 0..CUTS_PER_DISK {
        let scene = match n {
            0 if machine.rng.bool() => Scene::FirstStart,
            0 => Scene::Migration,
            _ if retained < usize::MAX && machine.rng.bool() => Scene::Retention,
            _ => {
                let others = [Scene::Start, Scene::Publishing, Scene::Publishing, Scene::Stop];
                machine.rng.choice(others).unwrap()
            }
        };
        *scenes.lock().entry(scene).or_default() += 1;
        machine.play(scene);
        machine.disk.lock().restore(&mut machine.rng);
    }
    let running = machine.launch(None);
    machine.verify(&running);
}

impl Machine {
    /// Creates a machine with an empty disk. `retained` is the number of events that the options
    /// keep of each topic.
    fn new(rng: Rng, retained: usize, options: Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("disk")).unwrap();
        Self {
            options,
            model: Arc::new(Mutex::new(Model::new(retained))),
            disk: SharedDisk::default(),
            folder,
            requests: Arc::default(),
            rng,
        }
    }

    /// Starts the program, and lets the power fail.
    fn play(&mut self, scene: Scene) {
        let is_cut = |moment: &Moment| matches!(moment, Moment::Cut);
        match scene {
            Scene::FirstStart | Scene::Migration | Scene::Start => {
                if scene == Scene::Migration {
                    self.install_old_log();
                }
                // A few more than the program needs.
                let steps = self.rng.usize(..if scene == Scene::Start { 35 } else { 60 });
                let running = self.launch(Some(steps));
                running.wait(DEADLINE, |_| true);
            }
            Scene::Publishing | Scene::Retention => {
                let running = self.launch(None);
                let address = self.verify(&running);
                let most = self.rng.choice([30, 300, 1000]).unwrap();
                running.cut_after(self.rng.usize(..most));
                let clients = self.start_clients(address, scene);
                running.wait(WORK, is_cut);
                clients.end(running);
            }
            Scene::Stop => {
                let running = self.launch(None);
                let address = self.verify(&running);
                let clients = self.start_clients(address, scene);
                running.wait(WORK / 5, is_cut);
                // The end of the event log mostly follows.
                clients.is_over.store(true, Ordering::Relaxed);
                running.cut_after(self.rng.usize(..40));
                running.program.terminate();
                running.wait(DEADLINE, |moment| is_cut(moment) || matches!(moment, Moment::Ended));
                clients.end(running);
            }
        }
    }

    /// Mounts the disk, and starts the program.
    fn launch(&self, cut_after: Option<usize>) -> Running {
        let at = self.folder.path().join("disk");
        let session = Some(mount(&self.disk, &at).unwrap());
        let (sender, moments) = mpsc::channel();
        if let Some(steps) = cut_after {
            cut_disk_after(&self.disk, steps, &sender);
        }
        let program =
            Program::start(&at.join("var/data"), &self.errors(), &self.options, sender.clone());
        Running { program, session, disk: Arc::clone(&self.disk), sender, moments }
    }

    /// File with the program's standard error.
    fn errors(&self) -> PathBuf {
        self.folder.path().join("errors")
    }

    /// Waits for the program, checks all its events, and publishes another one.
    fn verify(&self, running: &Running) -> SocketAddr {
        let started = running.wait(DEADLINE, |moment| !matches!(moment, Moment::Cut));
        let Some(Moment::Ready(address)) = started else {
            let errors = std::fs::read_to_string(self.errors()).unwrap();
            panic!("the program does not start: {errors}");
        };
        let mut kept: Vec<_> =
            TOPICS.iter().flat_map(|topic| self.read_topic(address, topic)).collect();
        kept.sort_unstable_by_key(|event| event.id.sequence);
        self.model.lock().check(&kept).unwrap_or_else(|error| panic!("{error}"));
        let newest = self.model.lock().newest();
        if let Some(newest) = newest {
            let polled = Client::poll(address, "%3E", &newest.to_string(), 0).unwrap();
            assert!(polled.gap.is_none(), "{:?} after {newest}", polled.gap);
        }
        let (publisher, mut client) = (self.publisher(), Client::connect(address).unwrap());
        // Those that were not acknowledged are sent again.
        let to_retry = self.model.lock().to_retry();
        for (data, key) in to_retry {
            publisher.publish(&mut client, "keyed", Some(&key), &data).unwrap();
        }
        publisher.publish(&mut client, "single", None, &publisher.data()).unwrap();
        address
    }

    /// Reads all events of a topic.
    fn read_topic(&self, address: SocketAddr, topic: &str) -> Vec<Event> {
        let (mut kept, mut cursor) = (Vec::new(), "earliest".to_owned());
        loop {
            let Polled { events, cursor: next, gap, more } =
                Client::poll(address, topic, &cursor, 0).unwrap();
            if gap.is_some() {
                // Retention runs meanwhile, so some of those read before may be dropped.
                assert!(!self.options.is_empty(), "{gap:?}");
                (kept, cursor) = (Vec::new(), "earliest".to_owned());
                continue;
            }
            kept.extend(events);
            cursor = next.to_string();
            if !more {
                return kept;
            }
        }
    }

    fn publisher(&self) -> Publisher {
        Publisher { model: Arc::clone(&self.model), requests: Arc::clone(&self.requests) }
    }

    /// Publishes and reads in several threads, until the connections break.
    fn start_clients(&self, address: SocketAddr, scene: Scene) -> Clients {
        let is_over = Arc::new(AtomicBool::new(false));
        let publish = |work: fn(&Publisher, &mut Client) -> io::Result<()>| {
            let (publisher, is_over) = (self.publisher(), Arc::clone(&is_over));
            thread::spawn(move || {
                let Ok(mut client) = Client::connect(address) else { return };
                while !is_over.load(Ordering::Relaxed) && work(&publisher, &mut client).is_ok() {}
            })
        };
        let lines: fn(&Publisher, &mut Client) -> io::Result<()> = match scene {
            Scene::Retention => |publisher, client| publisher.publish_lines(client, 400),
            _ => |publisher, client| publisher.publish_lines(client, 12),
        };
        let single = |publisher: &Publisher, client: &mut Client| {
            publisher.publish(client, "single", None, &publisher.data())
        };
        let keyed = |publisher: &Publisher, client: &mut Client| {
            let data = publisher.data();
            publisher.publish(client, "keyed", Some(&data[..NUMBER]), &data)
        };
        let mut threads = vec![publish(lines), publish(single), publish(single), publish(keyed)];
        let (model, has_ended) = (Arc::clone(&self.model), Arc::clone(&is_over));
        threads.push(thread::spawn(move || {
            let mut cursor = String::new();
            while !has_ended.load(Ordering::Relaxed)
                && let Ok(polled) = Client::poll(address, "%3E", &cursor, 20)
            {
                for event in &polled.events {
                    model.lock().learn(event).unwrap_or_else(|error| panic!("{error}"));
                }
                cursor = polled.cursor.to_string();
            }
        }));
        Clients { is_over, threads }
    }

    /// Puts a log of the first format on the disk, which is synced.
    fn install_old_log(&mut self) {
        let file = self.folder.path().join("old");
        let old = Connection::open(&file).unwrap();
        old.execute_batch(OLD_LOG).unwrap();
        let (publisher, time) = (self.publisher(), Timestamp::now());
        for sequence in 1..=50_u64 {
            let data = publisher.data();
            let insert = "INSERT INTO events VALUES (?1, 7, 'message', ?2, ?3)";
            old.execute(insert, (sequence, time.as_millis(), &data)).unwrap();
            let sent =
                Sent { topic: "old".to_owned(), key: None, line: None, is_acknowledged: true };
            self.model.lock().send(&data, sent);
            let event = Event {
                id: format!("00000000c10cca11-{sequence}").parse().unwrap(),
                topic: "old".parse().unwrap(),
                name: "message".parse().unwrap(),
                data,
                time,
            };
            self.model.lock().learn(&event).unwrap();
        }
        old.close().unwrap();
        let disk = &mut *self.disk.lock();
        let mut add = |folder, name: &str, node| disk.add(folder, OsStr::new(name), node).unwrap();
        let var = add(ROOT, "var", Node::Folder(Folder::default()));
        let data = add(var, "data", Node::Folder(Folder::default()));
        let contents = std::fs::read(file).unwrap();
        let mut install = |name: &str, contents: &[u8]| {
            let mut file = File::new(0o600);
            file.write(0, contents);
            add(data, name, Node::File(file))
        };
        let database = install("log.db", &contents);
        // The identity of the database is its number; it has no time of creation here.
        install("log.life", format!("{database:020} {:020} {:020}\n", 0, 50).as_bytes());
        disk.sync_all();
    }
}

/// A log of the first format, with the topic `old`.
const OLD_LOG: &str = "
    PRAGMA auto_vacuum = INCREMENTAL;
    PRAGMA journal_mode = WAL;
    CREATE TABLE log (epoch TEXT NOT NULL, forgotten INTEGER NOT NULL) STRICT;
    CREATE TABLE topics (
        id INTEGER PRIMARY KEY,
        topic TEXT NOT NULL UNIQUE,
        dropped INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY,
        topic INTEGER NOT NULL REFERENCES topics,
        name TEXT NOT NULL,
        time INTEGER NOT NULL,
        data TEXT NOT NULL
    ) STRICT;
    CREATE INDEX events_of_topic ON events (topic, sequence);
    PRAGMA application_id = 0x77636c6b;
    PRAGMA user_version = 1;
    INSERT INTO log VALUES ('00000000c10cca11', 0);
    INSERT INTO topics VALUES (7, 'old', 0);";

/// Publishers and a reader.
struct Clients {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Cuts the power, and waits for the clients.
    fn end(self, running: Running) {
        // Another program may get the port.
        self.is_over.store(true, Ordering::Relaxed);
        drop(running);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// A publisher that notes what it sends, and what the program acknowledges.
struct Publisher {
    model: Arc<Mutex<Model>>,
    requests: Arc<AtomicU64>,
}

impl Publisher {
    /// Returns data that nobody else sends, of some length.
    fn data(&self) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let length = match number % 8 {
            0 => 10_000 + usize::try_from(number * 997 % 9000).unwrap(),
            short => 20 << short,
        };
        format!("{number:0NUMBER$} {}", "x".repeat(length))
    }

    fn publish(
        &self,
        client: &mut Client,
        topic: &str,
        key: Option<&str>,
        data: &str,
    ) -> io::Result<()> {
        let sent = Sent {
            topic: topic.to_owned(),
            key: key.map(str::to_owned),
            line: None,
            is_acknowledged: false,
        };
        self.model.lock().send(data, sent);
        let header = key.map(|key| format!("Idempotency-Key: {key}\r\n")).unwrap_or_default();
        let (status, body) = client.request(&format!("POST /events/{topic}"), &header, data)?;
        if status == 503 {
            return Err(io::Error::other(body));
        }
        assert_eq!(status, 201, "{body}");
        let event = serde_json::from_str(&body).unwrap();
        self.model.lock().learn(&event).unwrap_or_else(|error| panic!("{error}"));
        Ok(())
    }

    /// Publishes an event, which may fail. Returns what the response says of it.
    fn try_single(&self, client: &mut Client) -> &'static str {
        let data = self.data();
        let sent =
            Sent { topic: "single".to_owned(), key: None, line: None, is_acknowledged: false };
        self.model.lock().send(&data, sent);
        let (status, body) = client.request("POST /events/single", "", &data).unwrap();
        let mut model = self.model.lock();
        match status {
            201 => {
                model.learn(&serde_json::from_str(&body).unwrap()).unwrap();
                "stored"
            }
            500 if body.contains("It is unknown if the event was stored") => "unknown",
            500 if body.contains("The event was not stored") => {
                model.refuse(&[data]);
                "refused"
            }
            _ => panic!("{status} {body}"),
        }
    }

    /// Publishes lines, which may fail. Returns what the response says of the first that it does
    /// not call published.
    fn try_lines(&self, client: &mut Client, count: u64) -> &'static str {
        let lines = self.lines(count);
        let target = "POST /events/lines?split=lines";
        let (status, body) = client.request(target, "", &lines.join("\n")).unwrap();
        let response: serde_json::Value = serde_json::from_str(&body).unwrap();
        let number =
            |name: &str| response[name].as_u64().map_or(0, |n| usize::try_from(n).unwrap());
        let (published, unknown) = (number("published"), number("unconfirmed"));
        let mut model = self.model.lock();
        model.acknowledge(&lines[..published]);
        model.refuse(&lines[published + unknown..]);
        match (status, unknown) {
            (200, 0) if published == lines.len() => "stored",
            (500, 0) => "refused",
            (500, _) => "unknown",
            _ => panic!("{status} {body}"),
        }
    }

    /// Notes lines that are about to be sent, and returns them.
    fn lines(&self, count: u64) -> Vec<String> {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let lines: Vec<_> = (0..count).map(|line| format!("{request} line {line}")).collect();
        for (data, line) in lines.iter().zip(0..) {
            let line = Some((request, line));
            let sent = Sent { topic: "lines".to_owned(), key: None, line, is_acknowledged: false };
            self.model.lock().send(data, sent);
        }
        lines
    }

    fn publish_lines(&self, client: &mut Client, count: u64) -> io::Result<()> {
        let lines = self.lines(count);
        let (status, body) =
            client.request("POST /events/lines?split=lines", "", &lines.join("\n"))?;
        if status == 503 {
            return Err(io::Error::other(body));
        }
        assert_eq!((status, body), (200, format!("{{\"published\":{count}}}")));
        self.model.lock().acknowledge(&lines);
        Ok(())
    }
}
