//! The checks where the server helps, by its probe.

use std::{cell::Cell, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::{Method, Url};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use waterclock::{
    diagnose::{
        Check, Delivery, Fault, Finding, PACES, Pace, Probe, Protocol, Reader, Report, Verdict,
        judge::{self, AT_ONCE, COMPRESSIBLE},
    },
    offset::{Offset, Sample},
    timestamp::Timestamp,
};

use super::{
    Diagnose, PATIENCE, Progress,
    ask::{Answer, Asker, End, Failure},
};

/// How often the server is asked for its time.
const SAMPLES: usize = 5;

/// Measures all, the silence beside the rest.
pub(super) async fn measure(
    asker: &Asker,
    probe: Url,
    first: &Answer,
    options: &Diagnose,
    mut progress: Progress,
) -> Report {
    let probe = ByProbe { asker, url: probe };
    let seen = first.reader.seen.clone().unwrap_or_default();
    let heartbeat = Duration::from_millis(seen.heartbeat_ms);
    let path = progress.report.path.clone();
    progress.tell(judge::protocol(path.client, path.server));
    let rest = async {
        for finding in probe.times().await {
            progress.tell(finding);
        }
        probe.delivery(&mut progress).await;
        progress.tell(probe.resume().await);
        progress.tell(probe.streams_at_once(usize::from(options.streams), path.client).await);
    };
    let (idle, ()) = tokio::join!(probe.idle(options.idle, heartbeat), rest);
    progress.tell(idle);
    progress.end()
}

struct ByProbe<'a> {
    asker: &'a Asker,
    url: Url,
}

impl ByProbe<'_> {
    fn url(&self, query: &str) -> Url {
        let mut url = self.url.clone();
        url.set_query(Some(query));
        url
    }

    /// Reads a stream of that pace whole.
    async fn paced(&self, method: Method, pace: Pace) -> Result<Answer, Failure> {
        let request = self.asker.request(method, &self.url(&pace.query()));
        self.asker.read(request, pace.lasts() + PATIENCE, |_| false).await
    }

    /// The headers, the clock and the round trip, all by one event each.
    async fn times(&self) -> Vec<Finding> {
        let has_event = |reader: &Reader| !reader.messages.is_empty();
        let mut samples = Vec::new();
        let mut times = Vec::new();
        for _ in 0..SAMPLES {
            let request = self.asker.get(&self.url);
            let Ok(answer) = self.asker.read(request, PATIENCE, has_event).await else { continue };
            if let Some(arrival) = answer.reader.arrivals.first() {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a time"
                )]
                let server = Timestamp::from_millis(arrival.sent as u64);
                let received = arrival.arrived;
                samples.push(Sample { sent: answer.asked, server, received });
                times.push(arrival.sent.to_bits());
            }
        }
        let asked = times.len();
        times.sort_unstable();
        times.dedup();
        let shortest = samples.iter().map(|sample| sample.received - sample.sent);
        let shortest = shortest.fold(f64::INFINITY, f64::min);

        let request = self.asker.get_as_browsers_do(&self.url(&COMPRESSIBLE.query()));
        let answer = self.asker.read(request, PATIENCE, |_| false).await;
        let headers = answer.map_or_else(
            |_| Finding::unknown(Check::Headers, "there was no answer"),
            |answer| judge::headers(answer.headers(), times.len() < asked, true),
        );
        vec![
            headers,
            judge::clock(Offset::of(&samples)),
            judge::round_trip(millis(shortest).filter(|_| asked > 0)),
        ]
    }

    /// Delivery, and what is told by the same streams: the first event, the fields, GET and POST.
    async fn delivery(&self, progress: &mut Progress) {
        let [slow, burst, long] = PACES;
        let (get, post) =
            tokio::join!(self.paced(Method::GET, slow), self.paced(Method::POST, slow));
        let get = get.map_err(|_| "there was no answer".to_owned()).and_then(usable);
        let get = match get {
            Ok(get) => get,
            Err(why) => {
                for check in [Check::FirstEvent, Check::Delivery, Check::Fields, Check::Post] {
                    progress.tell(Finding::unknown(check, &*why));
                }
                return;
            }
        };
        let is_held = Delivery::is_held(&get.reader.arrivals);
        let took = get.reader.arrivals.first().map(|first| first.arrived - get.asked);
        let took = took.and_then(millis).ok_or(PATIENCE + slow.lasts());
        progress.tell(judge::first_event(took, is_held));
        progress.tell(judge::fields(&get.reader));
        progress.tell(match post {
            Ok(post) if post.reader.goodbye().is_some() => {
                Finding::unknown(Check::Post, "the server has ended the stream")
            }
            Ok(post) if post.status.is_success() => {
                judge::post(Ok(Delivery::is_held(&post.reader.arrivals)), is_held)
            }
            Ok(post) => judge::post(Err(post.status.as_u16()), is_held),
            Err(_) => Finding::unknown(Check::Post, "there was no answer to a POST"),
        });

        let arrivals = |answer: Result<Answer, Failure>| {
            answer.map(|answer| answer.reader.arrivals).unwrap_or_default()
        };
        let is_complete = get.reader.is_complete(slow.events);
        let (count, end) = (get.reader.numbers.len(), get.end);
        let mut delivery = Delivery { slow: get.reader.arrivals, ..Delivery::default() };
        delivery.burst = arrivals(self.paced(Method::GET, burst).await);
        if delivery.needs_long() {
            delivery.long = arrivals(self.paced(Method::GET, long).await);
        }
        progress.tell(if is_complete {
            delivery.judge()
        } else {
            let ended = match end {
                End::Cut => ", then it was cut",
                End::TimedOut => ", then nothing more",
                End::Enough | End::Complete => "",
            };
            let words =
                format!("{count} of {} events arrived, or in another order{ended}", slow.events);
            Finding::wrong(Check::Delivery, Verdict::Bad, words, [Fault::EventsLost])
        });
    }

    async fn resume(&self) -> Finding {
        let id = Probe::id(7);
        let request = self.asker.get(&self.url).header("last-event-id", &id);
        let answer = self.asker.read(request, PATIENCE, |_| false).await;
        judge::resume(&id, answer.ok().and_then(|answer| answer.reader.seen).as_ref())
    }

    /// A silence between two events, the first of which may be held back meanwhile.
    async fn idle(&self, tried: Duration, heartbeat: Duration) -> Finding {
        let url = self.url(&format!("events=2&every={}", tried.as_millis()));
        let began = Instant::now();
        let answer = self.asker.read(self.asker.get(&url), tried + PATIENCE, |_| false).await;
        let answer = match answer {
            Ok(answer) => answer,
            // Cut before its head, which was held back.
            Err(Failure::NotReached(error)) if !error.is_connect() => {
                return judge::idle(Some(began.elapsed().min(tried)), Some(heartbeat), tried);
            }
            Err(_) => return Finding::unknown(Check::Idle, "there was no answer"),
        };
        let answer = match usable(answer) {
            Ok(answer) => answer,
            Err(why) => return Finding::unknown(Check::Idle, why),
        };
        let has_ended = answer.end != End::TimedOut;
        judge::silence(&answer.reader, (answer.asked, answer.ended), has_ended, heartbeat, tried)
    }

    /// Opens so many at once; all are closed when it is known how many there could be.
    async fn streams_at_once(&self, tried: usize, protocol: Option<Protocol>) -> Finding {
        let url = self.url(&AT_ONCE.query());
        let (began, mut has_begun) = mpsc::unbounded_channel();
        let mut streams: FuturesUnordered<_> =
            (0..tried).map(|_| self.tell_beginning(&url, began.clone())).collect();
        // By the server's clock, since the first event may be held back until the end. Those that have not
        // begun after twice the time wait for others to end.
        let until = Instant::now() + 2 * AT_ONCE.lasts() + Duration::from_secs(2);
        let mut times = Vec::new();
        let all = async {
            while times.len() < tried {
                tokio::select! {
                    Some(time) = has_begun.recv() => times.push(time),
                    Some(()) = streams.next() => {}
                    // None is left that could still begin.
                    else => break,
                }
            }
        };
        drop(began);
        let _ = timeout_at(until, all).await;
        judge::streams_at_once(judge::open_together(&times), tried, protocol, false)
    }

    /// Reads a stream, and tells as soon as it is known when it began by the server's clock.
    async fn tell_beginning(&self, url: &Url, began: mpsc::UnboundedSender<f64>) {
        let is_told = Cell::new(false);
        let tell = |reader: &Reader| {
            if let Some(first) = reader.arrivals.first()
                && !is_told.replace(true)
            {
                // Who counts them is there for as long as they are read.
                let _ = began.send(first.sent);
            }
            false
        };
        // How it ends does not matter.
        let _ = self.asker.read(self.asker.get(url), AT_ONCE.lasts() + PATIENCE, tell).await;
    }
}

/// The answer, unless it tells nothing of the path; then why.
fn usable(answer: Answer) -> Result<Answer, String> {
    match judge::refused(answer.status.as_u16(), &answer.reader) {
        Some(why) => Err(why),
        None => Ok(answer),
    }
}

fn millis(millis: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(millis / 1000.0).ok()
}
