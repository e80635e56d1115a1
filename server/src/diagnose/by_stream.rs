//! The checks where the server does not help: what one of its streams shows by itself.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use reqwest::{Method, Url};
use tokio::time::{Instant, timeout_at};
use waterclock_diagnose::{Check, End, Finding, PATIENCE, Protocol, Report, duration, judge, time};

use super::{
    Diagnose, Progress,
    ask::{Asker, Read},
};

/// How long streams are given to open.
const AT_ONCE: Duration = Duration::from_secs(5);
/// Who ends a stream within so many milliseconds of an event does not end it for a silence.
const NO_SILENCE: f64 = 500.0;

/// Measures what can be.
pub(super) async fn measure(
    asker: &Asker,
    first: &Read,
    options: &Diagnose,
    mut progress: Progress,
) -> Report {
    let url = &first.url;
    let client = progress.report.path.client;
    progress.tell(judge::protocol(client, None));
    let rest = async {
        let read = asker.read(asker.as_browsers_do(Method::GET, url), PATIENCE, |_| true).await;
        progress.tell(read.map_or_else(
            |_| Finding::unknown(Check::Headers, "there was no answer"),
            |read| judge::headers(read.answer.headers(), false, false),
        ));
        let (finding, round_trip) =
            streams_at_once(asker, url, usize::from(options.streams), client).await;
        progress.tell(finding);
        progress.tell(judge::round_trip(round_trip));
        for check in [Check::Delivery, Check::Resume, Check::Post, Check::Clock] {
            progress.tell(Finding::unknown(check, judge::NO_PROBE));
        }
    };
    let lasts = options.idle.max(PATIENCE);
    let (one, ()) = tokio::join!(asker.read(asker.get(url), lasts, |_| false), rest);
    match one {
        Ok(one) => {
            let first = one.answer.reader.messages.first();
            let took = first.and_then(|(_, at)| duration(at - one.answer.asked));
            progress.tell(match took {
                Some(took) if took <= judge::FIRST_EVENT => judge::first_event(Ok(took), false),
                // It may have had none to send.
                Some(took) => Finding::unknown(Check::FirstEvent, format!("after {}", time(took))),
                None => Finding::unknown(Check::FirstEvent, format!("none in {}", time(lasts))),
            });
            progress.tell(judge::fields_of_others(&one.answer.reader));
            progress.tell(idle(&one));
        }
        Err(_) => {
            for check in [Check::FirstEvent, Check::Fields, Check::Idle] {
                progress.tell(Finding::unknown(check, "there was no answer"));
            }
        }
    }
    progress.end()
}

/// What silences there were, and whether the stream was cut in one.
fn idle(read: &Read) -> Finding {
    let last = duration(read.last_silence).unwrap_or_default();
    let longest = time(duration(read.longest_silence).unwrap_or_default());
    match read.answer.end {
        End::Enough | End::TimedOut => {
            let words = format!("the longest silence was {longest}, and it is survived");
            Finding::good(Check::Idle, words)
        }
        End::Complete | End::Cut if read.last_silence > NO_SILENCE => {
            judge::idle(Some(last), None, last)
        }
        End::Complete | End::Cut => {
            let words =
                format!("the stream has ended by itself; the longest silence was {longest}");
            Finding::unknown(Check::Idle, words)
        }
    }
}

/// Opens so many at once, and keeps them until all are or a time has passed. Also how long the quickest took.
async fn streams_at_once(
    asker: &Asker,
    url: &Url,
    tried: usize,
    protocol: Option<Protocol>,
) -> (Finding, Option<Duration>) {
    let until = Instant::now() + AT_ONCE;
    let began = Instant::now();
    let mut opening: FuturesUnordered<_> = (0..tried).map(|_| asker.open(asker.get(url))).collect();
    let mut open = Vec::new();
    let mut quickest = None;
    while let Ok(Some(answer)) = timeout_at(until, opening.next()).await {
        if let Some(answer) = answer {
            quickest.get_or_insert(began.elapsed());
            open.push(answer);
        }
    }
    (judge::streams_at_once(open.len(), tried, protocol, false), quickest)
}
