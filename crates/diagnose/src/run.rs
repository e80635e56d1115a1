//! A run: asks for the probe as each check needs it, one after the other, the silence beside the rest.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{join, select},
    stream::FuturesUnordered,
};

use waterclock::{
    notice::GoodbyeReason,
    offset::{Offset, Sample},
    timestamp::Timestamp,
};

use crate::{
    Answer, Arrival, Check, Client, Delivery, End, Finding, Method, NoAnswer, PACES, PATIENCE,
    Pace, Probe, Protocol, Question, Reader, duration,
    judge::{self, AT_ONCE, COMPRESSIBLE, TOGETHER},
};

/// How often the server is asked for its time.
const SAMPLES: usize = 5;
/// What breaks so soon has not broken for a silence.
const NO_SILENCE: Duration = Duration::from_millis(500);
/// What a stream may take longer than it should.
const MARGIN: Duration = Duration::from_millis(500);
/// How often it is looked at most whether the server is still there, and how long from one look to the next.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// Said when there is no answer.
const NO_ANSWER: &str = "there was no answer";

/// What to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Which version of HTTP the client has spoken to whom it has reached.
    pub protocol: Option<Protocol>,
    /// How long a silence.
    pub silence: Duration,
    /// How many streams at once.
    pub streams: usize,
}

/// Makes all checks that take no more than a probe. `first` is the answer by which the server was found.
///
/// # Errors
///
/// If the server was not there until the end: how that is known. What could then not be told is told as such.
pub async fn run<C: Client>(client: &C, first: &Answer, plan: Plan) -> Result<(), String> {
    let seen = first.reader.seen.clone().unwrap_or_default();
    let heartbeat = Duration::from_millis(seen.heartbeat_ms);
    let run = Run { client, plan, heartbeat, first, looks: Cell::default() };
    client.tell(judge::protocol(plan.protocol, Protocol::parse(&seen.version)));
    run.times().await;
    // Before the silence, which would be one of them.
    run.streams_at_once().await;
    let rest = async {
        run.delivery().await;
        run.resume().await;
    };
    join(run.silence(), rest).await;
    run.is_still_there().await
}

struct Run<'a, C> {
    client: &'a C,
    plan: Plan,
    /// How often the server sends heartbeats.
    heartbeat: Duration,
    /// The answer by which the server was found.
    first: &'a Answer,
    /// How often it was looked whether the server is still there.
    looks: Cell<u32>,
}

/// Why the server is not taken for the one that was asked first.
enum Absence {
    /// There is no good answer, and why.
    NoAnswer(String),
    /// It was started after that.
    Anew,
}

impl<C: Client> Run<'_, C> {
    /// An answer that tells something of the path; or why there is none.
    async fn ask(&self, question: Question) -> Result<Answer, String> {
        let answer = self.client.ask(question, |_| ()).await.map_err(|_| NO_ANSWER.to_owned())?;
        judge::refused(&answer).map_or(Ok(answer), Err)
    }

    /// Tells what was found.
    async fn tell(&self, finding: Finding) {
        if finding.faults.is_empty() {
            self.client.tell(finding);
        } else {
            self.tell_if_still_there(finding).await;
        }
    }

    /// Tells what a server that is gone would look like, too: so it is asked once more.
    async fn tell_if_still_there(&self, finding: Finding) {
        self.client.tell(match self.is_still_there().await {
            Ok(()) => finding,
            Err(why) => Finding::unknown(finding.check, why),
        });
    }

    /// Whether the server was there all the while; or how it is known that it was not.
    async fn is_still_there(&self) -> Result<(), String> {
        let mut is_there = self.look().await;
        // What was closed just now may still be counted; and a browser takes its time to see that a connection of
        // HTTP/2 is dead.
        for _ in 1..LOOKS {
            if !matches!(is_there, Err(Absence::NoAnswer(_))) {
                break;
            }
            self.client.sleep(BETWEEN_LOOKS).await;
            is_there = self.look().await;
        }
        is_there.map_err(|absence| match absence {
            Absence::NoAnswer(why) => format!("the server does not answer any more: {why}"),
            Absence::Anew => "the server was started anew meanwhile".to_owned(),
        })
    }

    async fn look(&self) -> Result<(), Absence> {
        self.looks.set(self.looks.get() + 1);
        // Whatever is between must ask the server itself.
        let number = Some(format!("{}-{}", self.first.asked, self.looks.get()));
        let question = Question { number, ..Question::get(Pace::ONE) };
        let answer = self.client.ask(question, |_| ()).await;
        let answer = answer.map_err(|_| Absence::NoAnswer(NO_ANSWER.to_owned()))?;
        // Who has no more streams is there.
        if answer.reader.goodbye() == Some(GoodbyeReason::Limit) {
            return Ok(());
        }
        if let Some(why) = judge::refused(&answer) {
            return Err(Absence::NoAnswer(why));
        }
        let Some(seen) = &answer.reader.seen else {
            return Err(Absence::NoAnswer("something else answers".to_owned()));
        };
        let written = |answer: &Answer| answer.reader.arrivals.first().map(|one| one.sent);
        let is_kept = written(&answer) <= written(self.first);
        let lasted = duration(answer.asked - self.first.asked).unwrap_or_default();
        match seen.uptime_ms.map(Duration::from_millis) {
            Some(uptime) if uptime < lasted && !is_kept => Err(Absence::Anew),
            _ => Ok(()),
        }
    }

    /// The clock and the round trip, by one event each; and whether such an answer is given out twice.
    async fn times(&self) {
        self.client.begin(&[Check::Headers, Check::Clock, Check::RoundTrip]);
        let mut samples = Vec::new();
        let mut times = BTreeSet::new();
        for _ in 0..SAMPLES {
            let Ok(answer) = self.ask(Question::get(Pace::ONE)).await else { continue };
            let Some(arrival) = answer.reader.arrivals.first() else { continue };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time")]
            let server = Timestamp::from_millis(arrival.sent as u64);
            samples.push(Sample { sent: answer.asked, server, received: arrival.arrived });
            times.insert(arrival.sent.to_bits());
        }
        // One that is given out again was written at the same time.
        let is_cached = times.len() < samples.len();
        let question = Question { accepts_compression: true, ..Question::get(COMPRESSIBLE) };
        self.tell(match self.ask(question).await {
            Ok(answer) => judge::headers(answer.headers(), is_cached, true),
            Err(why) => Finding::unknown(Check::Headers, why),
        })
        .await;
        // What was kept tells the time of then.
        let offset = Offset::of(&samples).filter(|_| !is_cached);
        self.tell(judge::clock(offset)).await;
        let round_trip = offset.and_then(|offset| duration(offset.round_trip()));
        self.tell(judge::round_trip(round_trip)).await;
    }

    /// How many could be open together. All are closed then.
    async fn streams_at_once(&self) {
        self.client.begin(&[Check::StreamsAtOnce]);
        let Plan { streams: tried, protocol, .. } = self.plan;
        let begun = RefCell::new(Vec::new());
        let refused = Cell::new(None);
        let mut streams: FuturesUnordered<_> = (0..tried)
            .map(async |number| {
                if let Some(reason) = self.stream(number, &begun).await {
                    refused.set(Some(reason));
                }
            })
            .collect();
        let mut until_begun = async |count: usize, time| {
            let have_begun = poll_fn(|context| {
                while let Poll::Ready(Some(())) = streams.poll_next_unpin(context) {}
                let is_over = begun.borrow().len() >= count || streams.is_empty();
                if is_over { Poll::Ready(()) } else { Poll::Pending }
            });
            select(have_begun, pin!(self.client.sleep(time))).await;
        };
        until_begun(1, PATIENCE).await;
        // Those that begin when the first have ended were not open with them.
        until_begun(tried, TOGETHER).await;
        // Closed, so that the rest has its connections.
        drop(streams);
        let open = judge::open_together(&begun.borrow());
        if open < tried {
            // Those that waited may have begun just as the first were closed, and Chromium reads a short answer to
            // its end, to use the connection again, though nobody wants it any more.
            self.client.sleep(AT_ONCE.lasts() + MARGIN).await;
        }
        let finding = if let Some(reason) = refused.get() {
            judge::no_more_streams(open, tried, reason)
        } else {
            judge::streams_at_once(open, tried, protocol, C::IS_BROWSER)
        };
        self.tell(finding).await;
    }

    /// Reads a stream, and notes when it has begun by the server's clock. Why the server has refused it, if so.
    async fn stream(&self, number: usize, begun: &RefCell<Vec<f64>>) -> Option<GoodbyeReason> {
        let is_first = Cell::new(true);
        let note = |reader: &Reader| {
            if let Some(first) = reader.arrivals.first()
                && is_first.replace(false)
            {
                begun.borrow_mut().push(first.sent);
            }
        };
        // Of one that is asked for twice, browsers wait for the first answer's head: it might be kept.
        let number = Some(number.to_string());
        let question = Question { number, ..Question::get(AT_ONCE) };
        self.client.ask(question, note).await.ok()?.reader.goodbye()
    }

    /// Delivery, and what is told by the same streams: the first event, the fields, GET and POST.
    async fn delivery(&self) {
        const TOGETHER: [Check; 4] =
            [Check::FirstEvent, Check::Fields, Check::Post, Check::Delivery];
        let [slow, ..] = PACES;
        self.client.begin(&TOGETHER);
        let by_post = Question { method: Method::Post, ..Question::get(slow) };
        let post = self.client.ask(by_post, |_| ());
        let (get, post) = join(self.ask(Question::get(slow)), post).await;
        let mut get = match get {
            Ok(get) => get,
            Err(why) => {
                for check in TOGETHER {
                    self.client.tell(Finding::unknown(check, &*why));
                }
                return;
            }
        };
        // A busy machine holds up a stream once, a buffer does it again.
        if Delivery::is_held(&get.reader.arrivals)
            && let Ok(again) = self.ask(Question::get(slow)).await
            && again.reader.is_complete(slow.events)
            && !Delivery::is_held(&again.reader.arrivals)
        {
            get = again;
        }
        let is_held = Delivery::is_held(&get.reader.arrivals);
        let since_asked = |time: f64| duration(time - get.asked);
        let took = get.reader.arrivals.first().and_then(|first| since_asked(first.arrived));
        let took = took.ok_or(since_asked(get.ended).unwrap_or_default());
        self.tell(judge::first_event(took, is_held)).await;
        self.tell(judge::fields(&get.reader)).await;
        self.tell(judge::post(post.as_ref().ok(), slow, is_held)).await;
        if let Some(lost) = judge::lost(&get, slow) {
            return self.tell(lost).await;
        }

        let delivery = self.delivery_of(get.reader.arrivals).await;
        self.tell(delivery.unwrap_or_else(|why| Finding::unknown(Check::Delivery, why))).await;
    }

    /// Delivery, once the slow stream is there; or why it cannot be told.
    async fn delivery_of(&self, slow: Vec<Arrival>) -> Result<Finding, String> {
        let [_, burst, long] = PACES;
        let mut delivery = Delivery { slow, ..Delivery::default() };
        let answer = self.ask(Question::get(burst)).await?;
        // One that is only slow may take longer than we wait.
        if answer.end != End::TimedOut
            && let Some(lost) = judge::lost(&answer, burst)
        {
            return Ok(lost);
        }
        delivery.burst = answer.reader.arrivals;
        if delivery.needs_long() {
            delivery.long = self.ask(Question::get(long)).await?.reader.arrivals;
        }
        Ok(delivery.judge())
    }

    async fn resume(&self) {
        self.client.begin(&[Check::Resume]);
        let seen = self.client.resume().await;
        self.tell(judge::resume(&Probe::id(1), seen.as_ref())).await;
    }

    /// A silence between two events, the first of which may be held back meanwhile.
    async fn silence(&self) {
        self.client.begin(&[Check::Idle]);
        let Plan { silence: tried, .. } = self.plan;
        let question = Question::get(Pace { events: 2, every: tried, bytes: 0 });
        let finding = match self.client.ask(question, |_| ()).await {
            Ok(answer) => judge::silence(&answer, self.heartbeat, tried),
            // Before its head, which was held back.
            Err(NoAnswer::Cut(after)) if after > NO_SILENCE => {
                judge::idle(Some(after.min(tried)), Some(self.heartbeat), tried)
            }
            Err(_) => Finding::unknown(Check::Idle, NO_ANSWER),
        };
        // Where heartbeats come in time, a cut is no fault.
        self.tell_if_still_there(finding).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::Semaphore,
        time::{Instant, sleep, timeout_at},
    };

    use waterclock::sse::Block;

    use super::*;
    use crate::{Fault, Seen, Verdict};

    /// A client, and a server that is there for a while only.
    struct Fake {
        began: Instant,
        /// When the server goes without a word.
        goes: Option<Duration>,
        /// When it is back.
        is_back: Option<Duration>,
        /// After which silence the path cuts a stream.
        cuts_after: Option<Duration>,
        /// From when until when nothing comes through.
        stalls: Option<(Duration, Duration)>,
        /// How many streams the path lets through at once; others wait.
        connections: Semaphore,
        /// Whether the path gives out the first answer to all that ask for one event.
        is_kept: bool,
        kept: RefCell<Option<Probe>>,
        is_looked_at: RefCell<BTreeSet<Check>>,
        found: RefCell<Vec<Finding>>,
    }

    impl Default for Fake {
        fn default() -> Self {
            Self {
                began: Instant::now(),
                goes: None,
                is_back: None,
                cuts_after: None,
                stalls: None,
                connections: Semaphore::new(100),
                is_kept: false,
                kept: RefCell::default(),
                is_looked_at: RefCell::default(),
                found: RefCell::default(),
            }
        }
    }

    impl Fake {
        fn now(&self) -> f64 {
            self.began.elapsed().as_secs_f64() * 1000.0
        }

        fn uptime(&self) -> Option<Duration> {
            let now = self.began.elapsed();
            let since_back = self.is_back.and_then(|back| now.checked_sub(back));
            let was_gone = self.goes.is_some_and(|goes| now >= goes);
            since_back.or((!was_gone).then_some(Duration::from_hours(1) + now))
        }

        /// What the server saw; none if it is not there.
        fn seen(&self) -> Option<Seen> {
            Some(Seen {
                version: "HTTP/1.1".to_owned(),
                last_event_id: Some(Probe::id(1)),
                heartbeat_ms: 1000,
                uptime_ms: Some(u64::try_from(self.uptime()?.as_millis()).unwrap()),
                ..Seen::default()
            })
        }

        /// Reads a stream, until it is cut.
        async fn read(&self, pace: Pace, reader: &mut Reader, note: impl Fn(&Reader)) -> End {
            let began = Instant::now();
            for number in 1..=pace.events {
                if number > 1 && self.cuts_after.is_some_and(|after| after < pace.every) {
                    sleep(self.cuts_after.unwrap_or_default()).await;
                    return End::Cut;
                }
                let due = began + pace.every * (number - 1);
                if let Some(goes) = self.goes.filter(|goes| began < self.began + *goes)
                    && due >= self.began + goes
                {
                    tokio::time::sleep_until(self.began + goes).await;
                    return End::Cut;
                }
                tokio::time::sleep_until(due).await;
                let time = match self.stalls {
                    // It was sent in time, and waits on its way.
                    Some(_) => (due - self.began).as_secs_f64() * 1000.0,
                    None => self.now(),
                };
                let request = if number == 1 { self.seen() } else { None };
                let padding = "x".repeat(pace.bytes as usize);
                let mut probe = Probe { number, time, padding, request };
                if self.is_kept && pace.events == 1 {
                    probe = self.kept.borrow_mut().get_or_insert(probe).clone();
                }
                let mut bytes = b": x\n".to_vec();
                let block = Block {
                    id: Some(&Probe::id(number)),
                    name: Some(Probe::NAME),
                    retry: Some(Duration::from_secs(1)),
                    data: Some(&serde_json::to_string(&probe).unwrap()),
                };
                block.encode(&mut bytes).unwrap();
                if let Some((from, until)) = self.stalls
                    && (from..until).contains(&self.began.elapsed())
                {
                    tokio::time::sleep_until(self.began + until).await;
                }
                reader.feed(&bytes, self.now());
                note(reader);
            }
            End::Complete
        }
    }

    impl Client for Fake {
        const IS_BROWSER: bool = false;

        async fn ask(
            &self,
            question: Question,
            note: impl Fn(&Reader),
        ) -> Result<Answer, NoAnswer> {
            let asked = self.now();
            let until = Instant::now() + question.within();
            let permit = timeout_at(until, self.connections.acquire()).await;
            let _permit = permit.map_err(|_| NoAnswer::TimedOut)?;
            // What is on the way takes its time.
            sleep(Duration::from_millis(1)).await;
            self.uptime().ok_or(NoAnswer::NotReached)?;
            let headers = [
                ("content-type", "text/event-stream"),
                ("cache-control", "no-cache, no-transform"),
            ];
            let mut reader = Reader::default();
            let end = timeout_at(until, self.read(question.pace, &mut reader, note)).await;
            Ok(Answer {
                status: 200,
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                asked,
                ended: self.now(),
                end: end.unwrap_or(End::TimedOut),
                reader,
            })
        }

        async fn resume(&self) -> Option<Seen> {
            self.seen()
        }

        async fn sleep(&self, time: Duration) {
            sleep(time).await;
        }

        fn begin(&self, checks: &[Check]) {
            self.is_looked_at.borrow_mut().extend(checks);
        }

        fn tell(&self, finding: Finding) {
            self.is_looked_at.borrow_mut().remove(&finding.check);
            self.found.borrow_mut().push(finding);
        }
    }

    /// What a run has found, each check once, and how it has ended.
    async fn found(fake: Fake) -> (Vec<Finding>, Result<(), String>) {
        let first = fake.ask(Question::get(Pace::ONE), |_| ()).await.unwrap();
        let plan =
            Plan { protocol: Some(Protocol::Http11), silence: Duration::from_secs(20), streams: 8 };
        let ended = run(&fake, &first, plan).await;
        assert!(fake.is_looked_at.borrow().is_empty(), "all that was begun is told");
        let found = fake.found.into_inner();
        let mut checks: Vec<_> = found.iter().map(|finding| finding.check).collect();
        checks.sort();
        let all = Check::ALL.into_iter().filter(|check| *check != Check::ServiceWorker);
        assert!(checks.into_iter().eq(all));
        (found, ended)
    }

    /// While each of the checks is made.
    fn moments() -> impl Iterator<Item = Duration> {
        let begin = (2..50).map(Duration::from_millis);
        begin.chain((1..=46).map(|step| Duration::from_millis(430) * step))
    }

    #[tokio::test(start_paused = true)]
    async fn a_clean_path_is_found_clean() {
        let (found, ended) = found(Fake::default()).await;
        assert_eq!(ended, Ok(()));
        for finding in found {
            assert_eq!(finding.verdict, Verdict::Good, "{finding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_up_once_is_not_held_back() {
        let stalls = Some((Duration::from_millis(300), Duration::from_millis(1600)));
        let (found, ended) = found(Fake { stalls, ..Fake::default() }).await;
        assert_eq!(ended, Ok(()));
        for finding in found {
            assert_eq!(finding.verdict, Verdict::Good, "{finding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_path_cuts_is_a_fault() {
        let cuts_after = Some(Duration::from_millis(900));
        let (found, ended) = found(Fake { cuts_after, ..Fake::default() }).await;
        assert_eq!(ended, Ok(()));
        let faults: Vec<_> = found.iter().flat_map(|finding| &finding.faults).collect();
        assert_eq!(faults, [&Fault::IdleTimeout]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_tried_at_once_does_not_stand_in_the_way_of_the_rest() {
        let connections = Semaphore::new(4);
        let (found, ended) = found(Fake { connections, ..Fake::default() }).await;
        assert_eq!(ended, Ok(()));
        for finding in found {
            let expected: &[_] = match finding.check {
                Check::StreamsAtOnce => &[Fault::ConnectionLimit],
                _ => &[],
            };
            assert_eq!(finding.faults, expected, "{finding}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_named_also_if_it_tells_of_a_server_that_was_young() {
        let fake = Fake { is_kept: true, is_back: Some(Duration::ZERO), ..Fake::default() };
        let (found, ended) = found(fake).await;
        assert_eq!(ended, Ok(()));
        let faults: Vec<_> = found.iter().flat_map(|finding| &finding.faults).collect();
        assert_eq!(faults, [&Fault::Cached]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_goes_is_no_fault_of_the_path() {
        for goes in moments() {
            let (found, ended) = found(Fake { goes: Some(goes), ..Fake::default() }).await;
            for finding in &found {
                assert_eq!(finding.faults, [], "{goes:?}: {finding}");
            }
            let are_told = found.iter().all(|finding| finding.verdict == Verdict::Good);
            assert_eq!(ended.is_ok(), are_told, "{goes:?}: {ended:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nor_is_one_that_is_started_anew() {
        for goes in moments() {
            let fake = Fake { goes: Some(goes), is_back: Some(goes), ..Fake::default() };
            let (found, ended) = found(fake).await;
            for finding in &found {
                assert_eq!(finding.faults, [], "{goes:?}: {finding}");
            }
            assert_eq!(ended, Err("the server was started anew meanwhile".to_owned()), "{goes:?}");
        }
    }
}
