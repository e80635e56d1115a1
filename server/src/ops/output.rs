//! The program's own output: messages on standard error, and addresses on standard output.
//!
//! A thread for each of the two writes it. So a reader that pauses delays nobody, and output that
//! cannot be written is lost and counted, whatever the cause.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt::Display,
    io::{self, ErrorKind, IsTerminal as _, Write},
    mem,
    panic::{self, PanicHookInfo},
    str::FromStr,
    sync::{Arc, LazyLock},
    thread,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::{
    EnvFilter,
    filter::{LevelFilter, ParseError},
};

/// Maximum number of bytes that wait to be written. Further lines are lost.
const CAPACITY: usize = 1 << 20;
/// Time that the end of the program waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before another attempt to write to a full output that does not block.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// The filter of messages without `RUST_LOG`. h2 warns of each unsolicited PING, so a client could
/// fill the disk with messages. The node of a cluster tells of its connection by itself.
const DEFAULT_FILTER: &str = "h2=error,async_nats=error,info";

/// Number of lines that could not be written since the start of the program.
static LOST: LazyLock<Counter> = LazyLock::new(Counter::default);

/// The format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The levels of messages, in the syntax of `RUST_LOG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEVELS: &str = "error, warn, info, debug, trace or off";
        // `RUST_LOG` takes a word that is no level for the name of a module, and prints no others.
        let is_level =
            |part: &&str| part.contains(['=', '[']) || part.trim().parse::<LevelFilter>().is_ok();
        if text.trim().is_empty() {
            return Err(format!("expected a level: {LEVELS}"));
        }
        EnvFilter::builder().parse(text).map_err(|why| why.to_string())?;
        match text.split(',').find(|part| !is_level(part)) {
            None => Ok(Self(text.to_owned())),
            Some(word) => Err(format!(
                "`{word}` is no level: expected {LEVELS}, or MODULE=LEVEL for one module"
            )),
        }
    }
}

/// Returns the filter of messages. `RUST_LOG` takes precedence over `level`. Without both, and in
/// place of a `RUST_LOG` that is not valid, it is [`DEFAULT_FILTER`].
fn filter(level: Option<&LogLevel>) -> (EnvFilter, Option<ParseError>) {
    let of_environment = std::env::var("RUST_LOG").ok().filter(|level| !level.is_empty());
    let level = of_environment.or_else(|| level.map(|LogLevel(level)| level.clone()));
    let directives = level.map(|level| format!("h2=error,{level}"));
    match EnvFilter::builder().parse(directives.as_deref().unwrap_or(DEFAULT_FILTER)) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
    }
}

/// Replaces the filter of messages.
type SetFilter = Arc<dyn Fn(EnvFilter) + Send + Sync>;

/// The output of the program. It never blocks and never fails.
#[derive(Clone)]
pub struct Output {
    set_filter: SetFilter,
    stdout: Arc<LineQueue>,
    stderr: Arc<LineQueue>,
}

impl Output {
    /// Starts to print messages, those of panics included, of this level unless `RUST_LOG` sets
    /// another one.
    pub fn start(format: OutputFormat, level: Option<&LogLevel>) -> Self {
        let (of_stdout, of_stderr) = (Arc::<LineQueue>::default(), Arc::<LineQueue>::default());
        let (stdout, stderr) = (Arc::clone(&of_stdout), Arc::clone(&of_stderr));
        thread::spawn(move || stdout.write_to(io::stdout(), |_| {}));
        thread::spawn(move || stderr.write_to(io::stderr(), report_lost));

        let (filter, invalid) = filter(level);
        let stderr = Arc::clone(&of_stderr);
        let messages = tracing_subscriber::fmt()
            .with_env_filter(filter)
            // These would be printed to standard error directly.
            .log_internal_errors(false)
            .with_writer(move || QueueWriter(Arc::clone(&stderr)));
        let set_filter: SetFilter = match format {
            OutputFormat::Text => {
                let messages =
                    messages.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
                let handle = messages.reload_handle();
                messages.init();
                // Fails only without a subscriber, and then there are no messages.
                Arc::new(move |filter| drop(handle.reload(filter)))
            }
            OutputFormat::Json => {
                let messages = messages.json().flatten_event(true).with_span_list(false);
                let messages = messages.with_filter_reloading();
                let handle = messages.reload_handle();
                messages.init();
                Arc::new(move |filter| drop(handle.reload(filter)))
            }
        };
        panic::set_hook(Box::new(report_panic));
        if let Some(error) = invalid {
            tracing::warn!("RUST_LOG is ignored: {error}");
        }
        Self { set_filter, stdout: of_stdout, stderr: of_stderr }
    }

    /// Changes the level of messages, unless `RUST_LOG` sets it.
    pub fn set_level(&self, level: Option<&LogLevel>) {
        let (filter, _) = filter(level);
        (self.set_filter)(filter);
    }

    /// Prints a line on standard output.
    pub fn print(&self, line: impl Display) {
        self.stdout.push(format!("{line}\n").as_bytes());
    }

    /// Prints a line for people on standard error, whatever the format of messages.
    pub fn print_error(&self, line: impl Display) {
        self.stderr.push(format!("{line}\n").as_bytes());
    }

    /// Waits until everything is written, or for a second. Blocks.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        self.stdout.flush(deadline);
        self.stderr.flush(deadline);
    }
}

/// Number of lines that could not be written since the start of the program.
pub fn lost_lines() -> Counter {
    LOST.clone()
}

/// Prints a panic as a message. The default hook would write to standard error directly.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("without a message");
    let location = panic.location().map(tracing::field::display);
    // Captured if `RUST_BACKTRACE` asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    tracing::error!(location, backtrace, "panicked: {message}");
}

fn report_lost(lines: u64) {
    tracing::warn!(
        lines,
        "output could not be written, and these lines are lost (since the start)"
    );
}

/// Lines that wait to be written.
#[derive(Debug, Default)]
struct LineQueue {
    lines: Mutex<WaitingLines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WaitingLines {
    /// At most [`CAPACITY`].
    bytes: Vec<u8>,
    /// `true` while lines taken from here are being written.
    is_writing: bool,
}

impl LineQueue {
    /// Adds whole lines, or loses them if there is no room.
    fn push(&self, lines: &[u8]) {
        let mut waiting = self.lines.lock();
        if waiting.bytes.len() + lines.len() > CAPACITY {
            LOST.inc_by(count(lines));
        } else {
            waiting.bytes.extend_from_slice(lines);
            self.changed.notify_all();
        }
    }

    /// Writes the lines as they come, without end. Once output that was lost can be followed by
    /// other output, calls `report` with the number of lines lost since the start.
    fn write_to(&self, mut stream: impl Write, report: impl Fn(u64)) {
        let (mut is_line_begun, mut reported) = (false, 0);
        loop {
            let lines = self.take();
            if is_line_begun && write(&mut stream, b"\n") == 1 {
                // The rest of that line is lost.
                is_line_begun = false;
            }
            let written = if is_line_begun { 0 } else { write(&mut stream, &lines) };
            let (done, rest) = lines.split_at(written);
            is_line_begun = done.last().map_or(is_line_begun, |last| *last != b'\n');
            LOST.inc_by(count(rest));
            let lost = LOST.get();
            let has_caught_up = rest.is_empty() && self.lines.lock().bytes.is_empty();
            if has_caught_up && lost > reported {
                reported = lost;
                report(lost);
            }
            self.lines.lock().is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes them.
    fn take(&self) -> Vec<u8> {
        let mut waiting = self.lines.lock();
        self.changed.wait_while(&mut waiting, |waiting| waiting.bytes.is_empty());
        waiting.is_writing = true;
        mem::take(&mut waiting.bytes)
    }

    /// Waits until everything is written, or until the deadline.
    fn flush(&self, deadline: Instant) {
        let is_busy = |waiting: &mut WaitingLines| waiting.is_writing || !waiting.bytes.is_empty();
        self.changed.wait_while_until(&mut self.lines.lock(), is_busy, deadline);
    }
}

/// Number of lines, the last of which may have no end.
fn count(lines: &[u8]) -> u64 {
    lines.split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// Writes bytes, and waits for an output that is full. Returns the number of bytes written.
fn write(stream: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another program has made the pipe or terminal non-blocking, which it shares.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_PAUSE),
            Err(_) => break,
        }
    }
    // Standard output is buffered up to the end of a line.
    if stream.flush().is_ok() { written } else { 0 }
}

/// Hands messages to the queue. An error would be printed to standard error directly.
struct QueueWriter(Arc<LineQueue>);

impl Write for QueueWriter {
    /// Takes a whole message.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        self.0.push(message);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// Limit of every wait in these tests.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// An output whose results the test sets, one for each write. A write waits for its result.
    struct Scripted {
        results: Receiver<io::Result<usize>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.results.recv_timeout(DEADLINE).unwrap()?.min(bytes.len());
            self.written.send(bytes[..count].to_vec()).unwrap();
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Test {
        queue: Arc<LineQueue>,
        results: Sender<io::Result<usize>>,
        written: Receiver<Vec<u8>>,
        reports: Receiver<u64>,
    }

    /// Starts the thread of a queue whose output the test controls.
    fn start() -> Test {
        let queue = Arc::<LineQueue>::default();
        let ((results, of_test), (written, by_thread)) = (mpsc::channel(), mpsc::channel());
        let (report, reports) = mpsc::channel();
        let output = Scripted { results: of_test, written };
        thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.write_to(output, |lines| report.send(lines).unwrap())
        });
        Test { queue, results, written: by_thread, reports }
    }

    impl Test {
        /// Lets the next write have a result, and returns the bytes of the next one that succeeds.
        fn write(&self, results: impl IntoIterator<Item = io::Result<usize>>) -> String {
            results.into_iter().for_each(|result| self.results.send(result).unwrap());
            String::from_utf8(self.written.recv_timeout(DEADLINE).unwrap()).unwrap()
        }

        /// Waits until the thread has nothing to do.
        fn settle(&self) {
            self.queue.flush(Instant::now() + DEADLINE);
        }
    }

    const ALL: io::Result<usize> = Ok(usize::MAX);

    fn failed(kind: ErrorKind) -> io::Result<usize> {
        Err(kind.into())
    }

    // One test, since all queues of a process share the count.
    #[test]
    fn lost_lines_are_counted_and_reported_once_output_works_again() {
        let lost = lost_lines();
        let test = start();
        test.queue.push(b"first\n");
        assert_eq!(test.write([ALL]), "first\n");
        test.settle();

        // A full disk takes a part of a line, and then nothing.
        test.queue.push(b"second\n");
        assert_eq!(test.write([Ok(3), failed(ErrorKind::StorageFull)]), "sec");
        test.settle();
        assert_eq!(lost.get(), 1);
        test.results.send(failed(ErrorKind::BrokenPipe)).unwrap();
        test.queue.push(b"third\nfourth\n");
        test.settle();
        assert_eq!(lost.get(), 3);
        assert!(test.reports.try_recv().is_err(), "nothing can be written yet");

        test.queue.push(b"fifth\n");
        assert_eq!(test.write([ALL, ALL]), "\n", "a new line begins");
        assert_eq!(test.write([]), "fifth\n");
        assert_eq!(test.reports.recv_timeout(DEADLINE), Ok(3));
        test.queue.push(b"sixth\n");
        assert_eq!(test.write([ALL]), "sixth\n");
        test.settle();
        assert!(test.reports.try_recv().is_err(), "it was reported");

        // A reader that pauses: this write does not return, and the next lines wait for it.
        test.queue.push(b"seventh\n");
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        let count = CAPACITY / line.len() + 10;
        // Once the first line is taken.
        let began = Instant::now();
        while !test.queue.lines.lock().is_writing {
            assert!(began.elapsed() < DEADLINE);
        }
        (0..count).for_each(|_| test.queue.push(&line));
        assert_eq!(lost.get(), 3 + 10);
        test.queue.flush(Instant::now());
        assert_eq!(test.write([ALL, ALL]), "seventh\n");
        assert_eq!(test.written.recv_timeout(DEADLINE).unwrap().len(), CAPACITY);
        assert_eq!(test.reports.recv_timeout(DEADLINE), Ok(13));
    }

    #[test]
    fn an_interrupted_or_non_blocking_output_loses_nothing() {
        let test = start();
        test.queue.push(b"line\n");
        assert_eq!(test.write([failed(ErrorKind::Interrupted), Ok(2)]), "li");
        assert_eq!(test.write([failed(ErrorKind::WouldBlock), ALL]), "ne\n");
        test.settle();
    }

    #[test]
    fn a_message_never_gets_an_error() {
        let queue = Arc::<LineQueue>::default();
        let mut writer = QueueWriter(Arc::clone(&queue));
        writer.write_all(b"line\n").unwrap();
        assert_eq!(queue.take(), b"line\n");
    }
}
