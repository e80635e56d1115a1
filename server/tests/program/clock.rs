//! The program while the system's clock is set, and timers do not notice. That is also the effect
//! of a suspended machine. libfaketime sets the clock.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tempfile::TempDir;
use tokio::{io::AsyncReadExt as _, net::TcpStream, process::Command, time::timeout};
use waterclock::{
    sse::{Message, Parsed, Parser},
    timestamp::Timestamp,
};

use super::{DEADLINE, Program, SocketAddr, request};

const SECRET: &str = "an example of a secret, 32 bytes";

/// Finds libfaketime, where `scripts/setup.sh test` installs it.
fn libfaketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut files = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    let found = files.find(|file| file.exists());
    if found.is_none() {
        assert!(std::env::var_os("FAKETIME_REQUIRED").is_none(), "libfaketime is missing");
        eprintln!("not tested: libfaketime is missing (scripts/setup.sh test installs it)");
    }
    found
}

/// A program whose clock a test sets.
struct TimedProgram {
    program: Program,
    address: SocketAddr,
    folder: TempDir,
}

impl TimedProgram {
    async fn start(libfaketime: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [clock, secret] = ["clock", "secret"].map(|name| folder.path().join(name));
        std::fs::write(&clock, "+0").unwrap();
        std::fs::write(&secret, SECRET).unwrap();
        // Not the program of `WATERCLOCK_BINARY`: it is static, and needs no libraries.
        let mut command = Command::new(env!("CARGO_BIN_EXE_waterclock"));
        command.env("LD_PRELOAD", libfaketime).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let secret = format!("--jwt-secret-file={}", secret.display());
        let options = [
            "--listen=127.0.0.1:0",
            "--store=memory",
            "--heartbeat=1s",
            "--require-token",
            &secret,
        ];
        let mut program = Program::run(command, "", &options);
        let address = program.address().await;
        Self { program, address, folder }
    }

    /// Sets the clock, relative to the true time.
    fn set_clock(&self, offset: &str) {
        // Renamed, so that the program never reads half a file.
        let new = self.folder.path().join("new");
        std::fs::write(&new, offset).unwrap();
        std::fs::rename(new, self.folder.path().join("clock")).unwrap();
    }

    /// Opens a stream with a token that is valid for `valid` seconds.
    async fn open(&self, topic: &str, valid: f64) -> TestStream {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let claims = json!({"exp": now.as_secs_f64() + valid - LEEWAY, "subscribe": [">"]});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let head =
            format!("GET /events?topic={topic} HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n");
        let stream = request(self.address, &head).await;
        let mut stream =
            TestStream { stream, parser: Parser::default(), messages: Vec::new().into_iter() };
        assert_eq!(stream.message().await.unwrap().name, "hello");
        stream
    }
}

struct TestStream {
    stream: TcpStream,
    parser: Parser,
    messages: std::vec::IntoIter<Message>,
}

impl TestStream {
    /// Returns the next message, or `None` at the end.
    async fn message(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.messages.next() {
                return Some(message);
            }
            let mut bytes = Vec::new();
            let read = self.stream.read_buf(&mut bytes);
            if timeout(DEADLINE, read).await.expect("bytes").unwrap() == 0 {
                return None;
            }
            let parsed = self.parser.feed(&bytes).into_iter();
            let messages = parsed.filter_map(|parsed| match parsed {
                Parsed::Message(message) => Some(message),
                Parsed::Retry(_) => None,
            });
            self.messages = messages.collect::<Vec<_>>().into_iter();
        }
    }

    /// Returns the time of the next tick.
    async fn tick(&mut self) -> Timestamp {
        loop {
            let message = self.message().await.expect("a tick");
            if message.name == "message" {
                return message.data.parse().unwrap();
            }
        }
    }

    /// Reads until the end, and requires a goodbye since the token has expired.
    async fn assert_expires(mut self) {
        loop {
            let message = self.message().await.expect("a goodbye");
            if message.name == "goodbye" {
                assert!(message.data.contains("expired"), "{}", message.data);
                return assert!(self.message().await.is_none());
            }
        }
    }
}

/// Length of an hour, in seconds.
const HOUR: f64 = 3600.0;
/// Time for which the server accepts a token after its `exp`, in seconds.
const LEEWAY: f64 = 5.0;

#[tokio::test]
async fn a_clock_that_is_set_forward_ends_tokens_and_causes_no_storm_of_ticks() {
    let Some(libfaketime) = libfaketime() else { return };
    let timed = TimedProgram::start(&libfaketime).await;
    let (busy, quiet) = (timed.open("clock", HOUR).await, timed.open("quiet", HOUR).await);
    let mut clock = timed.open("clock", 24.0 * HOUR).await;
    let before = clock.tick().await;
    timed.set_clock("+2h");
    busy.assert_expires().await;
    quiet.assert_expires().await;
    let mut ticks = vec![clock.tick().await];
    while ticks.len() < 4 {
        let tick = clock.tick().await;
        if tick.since(before).as_secs_f64() > HOUR {
            ticks.push(tick);
        }
    }
    let steps: Vec<_> = ticks[1..].windows(2).map(|pair| pair[1].since(pair[0])).collect();
    // A machine under load may miss a tick. A storm would have ticks closer together.
    assert!(steps.iter().all(|step| !step.is_zero() && step.subsec_nanos() == 0), "{ticks:?}");
    timed.program.signal("-TERM").await;
    assert_eq!(timed.program.end().await.0, 0);
}

#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_no_token_and_keeps_ticking() {
    let Some(libfaketime) = libfaketime() else { return };
    let timed = TimedProgram::start(&libfaketime).await;
    let short = timed.open("quiet", 5.0).await;
    let mut clock = timed.open("clock", HOUR).await;
    let before = clock.tick().await;
    timed.set_clock("-2h");
    short.assert_expires().await;
    let ticks = async { while clock.tick().await > before {} };
    timeout(DEADLINE, ticks).await.expect("a tick of the new time");
    timed.program.signal("-TERM").await;
    assert_eq!(timed.program.end().await.0, 0);
}
