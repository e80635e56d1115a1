//! Who asks for the probe: the terminal or a page, each in its own way. What is asked for, and what comes.

use std::time::Duration;

use crate::{Check, Finding, Pace, Reader, Seen};

/// How long an answer is waited for, besides what it is meant to last.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a [`run`](crate::run) needs of its surroundings.
pub trait Client {
    /// Whether it is a browser, which has its own limit of connections.
    const IS_BROWSER: bool;

    /// Asks for the probe, and reads its answer for [`within`](Question::within) at most. `note` is told whenever
    /// there is more. What is dropped before its end is closed.
    fn ask(
        &self,
        question: Question,
        note: impl Fn(&Reader),
    ) -> impl Future<Output = Result<Answer, NoAnswer>>;

    /// What the server sees of a stream that is resumed after the probe's first event; none if it does not tell
    /// within [`PATIENCE`].
    fn resume(&self) -> impl Future<Output = Option<Seen>>;

    /// Waits for so long.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()>;

    /// These are looked at now, until each is told.
    fn begin(&self, checks: &[Check]);

    /// Takes what a check has found.
    fn tell(&self, finding: Finding);
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// As `EventSource` asks.
    Get,
    /// As those ask who give up on GET.
    Post,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The request's method.
    pub method: Method,
    /// What the probe is to send.
    pub pace: Pace,
    /// Whether compression is accepted, through which a terminal measures nothing but headers. Browsers always
    /// accept it.
    pub accepts_compression: bool,
    /// Makes the URL another one, for who keeps answers, or asks for each URL once at a time, as browsers do.
    pub number: Option<String>,
}

impl Question {
    /// A GET for a probe of that pace.
    pub fn get(pace: Pace) -> Self {
        Self { method: Method::Get, pace, accepts_compression: false, number: None }
    }

    /// The query of its URL, without `?`.
    pub fn query(&self) -> String {
        let Pace { events, every, bytes } = self.pace;
        let number = self.number.as_ref().map(|number| format!("&number={number}"));
        let number = number.unwrap_or_default();
        format!("events={events}&every={}&bytes={bytes}{number}", every.as_millis())
    }

    /// How long its answer may take as a whole.
    pub fn within(&self) -> Duration {
        self.pace.lasts() + PATIENCE
    }
}

/// An answer, and what was read of it. All times are by the client's clock, in milliseconds since 1970.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, as far as they are text and the client may see them.
    pub headers: Vec<(String, String)>,
    /// When it was asked for.
    pub asked: f64,
    /// When reading has ended.
    pub ended: f64,
    /// How reading has ended.
    pub end: End,
    /// What was read.
    pub reader: Reader,
}

impl Answer {
    /// Its headers.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }
}

/// How reading an answer has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// What was wanted is there.
    Enough,
    /// The answer was complete.
    Complete,
    /// The connection broke.
    Cut,
    /// The time was over.
    TimedOut,
}

/// Why there is no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// There is no connection.
    NotReached,
    /// The connection broke, so long after the request; where that cannot be told from the former, too.
    Cut(Duration),
    /// None came in time.
    TimedOut,
}
