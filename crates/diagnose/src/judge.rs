//! What the observations of each check mean. Each judge takes what was seen, and nothing else. That of delivery
//! is [`Delivery::judge`](crate::Delivery::judge).

use std::time::Duration;

use waterclock::{notice::GoodbyeReason, offset::Offset, sse};

use crate::{
    Answer, Check, Delivery, End, Fault, Finding, Pace, Protocol, Reader, Seen, Verdict, duration,
    time,
};

/// What the first event may take.
pub const FIRST_EVENT: Duration = Duration::from_secs(2);
/// How far the clocks may be apart.
const CLOCK: Duration = Duration::from_secs(2);
/// What a question and its answer may take, for nothing to be said of it.
const ROUND_TRIP: Duration = Duration::from_secs(1);
/// Streams that began within that time were open at once: less than [`AT_ONCE`] lasts.
pub const TOGETHER: Duration = Duration::from_millis(2500);
/// When so little of a silence is missing at its end, it was survived.
const NEARLY: f64 = 0.98;
/// As many connections a browser opens to a host over HTTP/1.1.
pub const BROWSER_CONNECTIONS: usize = 6;

/// The streams that are open at once: for three seconds, and never silent, which might have them cut.
pub const AT_ONCE: Pace = Pace { events: 13, every: Duration::from_millis(250), bytes: 0 };
/// A probe whose answer is long enough to be compressed: Caddy leaves alone what begins with less than 512 bytes.
pub const COMPRESSIBLE: Pace = Pace { events: 1, every: Duration::ZERO, bytes: 4096 };

/// Why something could not be told: it is no Waterclock.
pub const NO_PROBE: &str = "there is no probe of Waterclock there";

/// The versions of HTTP: of the answer as the client got it, and of the request as the server saw it.
pub fn protocol(client: Option<Protocol>, server: Option<Protocol>) -> Finding {
    let check = Check::Protocol;
    let measured = match (client, server) {
        (Some(client), Some(server)) if client == server => format!("{client} at both ends"),
        (Some(client), Some(server)) => format!("{client} to here, {server} to the server"),
        (Some(client), None) => {
            format!("{client} to here; what the server is asked in is not known")
        }
        (None, Some(server)) => format!("{server} to the server; what it is to here is not known"),
        (None, None) => return Finding::unknown(check, "nothing tells the versions"),
    };
    let mut faults = Vec::new();
    if client == Some(Protocol::Http10) {
        faults.push(Fault::Http10);
    }
    if server == Some(Protocol::Http10) {
        faults.push(Fault::Http10Upstream);
    }
    if faults.is_empty() {
        return Finding::good(check, measured);
    }
    Finding::wrong(check, Verdict::Warning, measured, faults)
}

/// How many of the streams that were asked for together, each at the pace [`AT_ONCE`], were open together: by when
/// they began by the server's clock, in milliseconds, since their first events may be held back until the end.
pub fn open_together(began: &[f64]) -> usize {
    let first = began.iter().copied().fold(f64::INFINITY, f64::min);
    let together = TOGETHER.as_secs_f64() * 1000.0;
    began.iter().filter(|time| **time < first + together).count()
}

/// How many streams were open at once, of so many that were tried, and in which version of HTTP.
pub fn streams_at_once(
    open: usize,
    tried: usize,
    protocol: Option<Protocol>,
    is_browser: bool,
) -> Finding {
    let check = Check::StreamsAtOnce;
    if open >= tried {
        return Finding::good(check, format!("{open}; more were not tried"));
    }
    if open == 0 {
        // One at a time there was, by which the rest was measured.
        return Finding::unknown(check, format!("none of {tried} had an event in time"));
    }
    let measured = format!("{open} of {tried} that were tried");
    let is_http1 = protocol.is_none_or(|protocol| protocol <= Protocol::Http11);
    if is_browser && is_http1 && open >= BROWSER_CONNECTIONS - 1 {
        // One may be another page's.
        return Finding::wrong(check, Verdict::Warning, measured, [Fault::SixConnections]);
    }
    let verdict = if open < BROWSER_CONNECTIONS { Verdict::Bad } else { Verdict::Warning };
    Finding::wrong(check, verdict, measured, [Fault::ConnectionLimit])
}

/// The same where the server itself has refused some: that is no fault of the path.
pub fn no_more_streams(open: usize, tried: usize, reason: GoodbyeReason) -> Finding {
    let reason = reason.as_str();
    let words = format!("{open} of {tried}; the server itself takes no more now (`{reason}`)");
    Finding::unknown(Check::StreamsAtOnce, words)
}

/// How long the first event took from the request on, or none within so long; and whether the stream's events were
/// held back, which explains it.
pub fn first_event(took: Result<Duration, Duration>, is_held: bool) -> Finding {
    let check = Check::FirstEvent;
    let fault = if is_held { Fault::Buffering } else { Fault::LateFirstEvent };
    match took {
        Ok(took) if took <= FIRST_EVENT && !is_held => {
            Finding::good(check, format!("after {}", time(took)))
        }
        Ok(took) => {
            let measured = format!("only after {}", time(took));
            let verdict = if is_held { Verdict::Bad } else { Verdict::Warning };
            Finding::wrong(check, verdict, measured, [fault])
        }
        Err(waited) => {
            Finding::wrong(check, Verdict::Bad, format!("none in {}", time(waited)), [fault])
        }
    }
}

/// Whether comments, `retry` and ids are in what was read of a probe.
pub fn fields(reader: &Reader) -> Finding {
    let check = Check::Fields;
    if reader.messages.is_empty() {
        return Finding::unknown(check, "no event arrived");
    }
    let seen = [
        (reader.has_comment(), "comments", Fault::CommentsLost),
        (reader.retry.is_some(), "`retry`", Fault::RetryLost),
        (reader.has_ids(), "ids", Fault::IdsLost),
    ];
    let faults: Vec<_> = seen.iter().filter(|field| !field.0).map(|field| field.2).collect();
    if faults.is_empty() {
        return Finding::good(check, "comments, `retry` and ids get through");
    }
    let lost: Vec<_> = seen.iter().filter(|field| !field.0).map(|field| field.1).collect();
    let is_bad = faults.contains(&Fault::IdsLost);
    let verdict = if is_bad { Verdict::Bad } else { Verdict::Warning };
    Finding::wrong(check, verdict, format!("lost: {}", lost.join(", ")), faults)
}

/// The same for a stream that may have none of them by itself.
pub fn fields_of_others(reader: &Reader) -> Finding {
    let check = Check::Fields;
    let seen = [
        (reader.has_comment(), "comments"),
        (reader.retry.is_some(), "`retry`"),
        (reader.has_ids(), "ids"),
    ];
    let names = |is_seen| {
        let names = seen.iter().filter(|field| field.0 == is_seen).map(|field| field.1);
        names.collect::<Vec<_>>().join(", ")
    };
    if names(false).is_empty() {
        return Finding::good(check, "comments, `retry` and ids get through");
    }
    let seen = Some(names(true)).filter(|names| !names.is_empty());
    let seen = seen.unwrap_or("nothing".to_owned());
    let lacks = names(false);
    Finding::unknown(check, format!("{seen} seen; {lacks} not, perhaps the server sends none"))
}

/// The headers of the answer to a request that accepts compression, as browsers' do; whether answers were given out
/// twice; and whether the server is a Waterclock, which sends `Cache-Control: no-cache, no-transform`.
pub fn headers<'a>(
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    is_cached: bool,
    is_ours: bool,
) -> Finding {
    let headers: Vec<_> = headers.into_iter().collect();
    // Several of one name are one with commas between them (RFC 9110, 5.3).
    let get = |wanted: &str| {
        let found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let values: Vec<_> = found.map(|(_, value)| value.trim().to_ascii_lowercase()).collect();
        (!values.is_empty()).then(|| values.join(", "))
    };
    let mut wrong = Vec::new();
    let mut verdict = Verdict::Good;
    let mut find = |fault, of, words: String| {
        verdict = verdict.max(of);
        wrong.push((fault, words));
    };
    let content_type = get("content-type").unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some(sse::CONTENT_TYPE) {
        let words = format!("the content type is `{content_type}`");
        find(Fault::ContentType, Verdict::Bad, words);
    }
    if let Some(encoding) = get("content-encoding").filter(|encoding| encoding != "identity") {
        let words = format!("compressed by `{encoding}` for who accepts it, as browsers do");
        find(Fault::Compression, Verdict::Bad, words);
    }
    let cache_control = get("cache-control").unwrap_or_default();
    let has = |word: &str| cache_control.split(',').any(|part| part.trim() == word);
    if !(has("no-cache") || has("no-store")) || is_ours && !has("no-transform") {
        let words = match &*cache_control {
            "" => "no `Cache-Control`".to_owned(),
            other => format!("`Cache-Control` is `{other}`"),
        };
        // Others may never have sent it.
        if is_ours {
            find(Fault::CacheControl, Verdict::Warning, words);
        }
    }
    let age = get("age").and_then(|age| age.parse::<u64>().ok()).unwrap_or_default();
    let is_hit = get("x-cache").is_some_and(|value| value.starts_with("hit"));
    if is_cached || age > 0 || is_hit {
        find(Fault::Cached, Verdict::Bad, "an answer came from a cache".to_owned());
    }
    if wrong.is_empty() {
        return Finding::good(
            Check::Headers,
            "as a stream's should be, not compressed, not cached",
        );
    }
    let (faults, words): (Vec<_>, Vec<_>) = wrong.into_iter().unzip();
    Finding::wrong(Check::Headers, verdict, words.join("; "), faults)
}

/// Why an answer tells nothing of the path: another status than 200, or the server has ended it.
pub fn refused(answer: &Answer) -> Option<String> {
    if answer.status != 200 {
        return Some(format!("it was answered with status {}", answer.status));
    }
    let reason = answer.reader.goodbye()?;
    Some(format!("the server has ended the stream (`{}`)", reason.as_str()))
}

/// What of a stream of that pace is missing, if something is.
pub fn lost(answer: &Answer, pace: Pace) -> Option<Finding> {
    if answer.reader.is_complete(pace.events) {
        return None;
    }
    let ended = match answer.end {
        End::Cut => ", then it was cut",
        End::TimedOut => ", then nothing more",
        End::Enough | End::Complete => "",
    };
    let (arrived, events) = (answer.reader.numbers.len(), pace.events);
    let words = format!("{arrived} of {events} events arrived, or in another order{ended}");
    Some(Finding::wrong(Check::Delivery, Verdict::Bad, words, [Fault::EventsLost]))
}

/// How a stream went that had a silence between its two events; and how often the server sends heartbeats, and how
/// long a silence was tried.
pub fn silence(answer: &Answer, heartbeat: Duration, tried: Duration) -> Finding {
    let Answer { reader, asked, ended, end, .. } = answer;
    if let Some(why) = refused(answer) {
        return Finding::unknown(Check::Idle, why);
    }
    if reader.is_complete(2) {
        return idle(None, Some(heartbeat), tried);
    }
    let since = |from: f64| duration(ended - from).unwrap_or_default();
    if *end != End::TimedOut && since(*asked) > tried.mul_f64(NEARLY) {
        return Finding::unknown(Check::Idle, "the event after the silence did not arrive");
    }
    // The silence began with the first event, unless that was held back.
    let began = reader.messages.last().map_or(*asked, |(_, arrived)| *arrived);
    // Where it is not closed, nothing comes through any more all the same.
    idle(Some(since(began).min(tried)), Some(heartbeat), tried)
}

/// After which time of silence the stream was cut, none if it was not; how often the server sends heartbeats, if that
/// is known; and how long a silence was tried.
pub fn idle(cut_after: Option<Duration>, heartbeat: Option<Duration>, tried: Duration) -> Finding {
    let check = Check::Idle;
    let faults = [Fault::IdleTimeout];
    match (cut_after, heartbeat) {
        (Some(cut), Some(heartbeat)) => {
            let words = |then| {
                let (cut, heartbeat) = (time(cut), time(heartbeat));
                format!("cut after {cut} of silence; {then} (a heartbeat every {heartbeat})")
            };
            // One that is just as long is a race.
            if cut <= heartbeat + heartbeat / 10 {
                Finding::wrong(
                    check,
                    Verdict::Bad,
                    words("a quiet stream breaks each time"),
                    faults,
                )
            } else if cut < 2 * heartbeat {
                let words = words("a heartbeat comes just before");
                Finding::wrong(check, Verdict::Warning, words, faults)
            } else {
                Finding::good(check, words("heartbeats come in time"))
            }
        }
        (Some(cut), None) => {
            let words = format!("cut after {} of silence", time(cut));
            Finding::wrong(check, Verdict::Bad, words, faults)
        }
        (None, Some(heartbeat)) if tried < heartbeat => {
            let (tried, heartbeat) = (time(tried), time(heartbeat));
            let words = format!(
                "{tried} of silence are survived, but a heartbeat comes only every {heartbeat}: try longer than that"
            );
            Finding::unknown(check, words)
        }
        (None, Some(heartbeat)) => {
            let (tried, heartbeat) = (time(tried), time(heartbeat));
            Finding::good(
                check,
                format!("{tried} are survived; a heartbeat comes every {heartbeat}"),
            )
        }
        (None, None) => Finding::good(check, format!("{} are survived", time(tried))),
    }
}

/// Whether the server saw the `Last-Event-ID` that was sent.
pub fn resume(sent: &str, seen: Option<&Seen>) -> Finding {
    let check = Check::Resume;
    match seen {
        None => Finding::unknown(check, "the server did not say what it saw"),
        Some(seen) => match &seen.last_event_id {
            Some(id) if id == sent => Finding::good(check, "reaches the server"),
            Some(id) => {
                let id: String = id.chars().take(40).collect();
                let words = format!("reaches the server as `{id}`, not `{sent}`");
                Finding::wrong(check, Verdict::Bad, words, [Fault::LastEventIdLost])
            }
            None => {
                let words = "does not reach the server, so a reconnect loses events";
                Finding::wrong(check, Verdict::Bad, words, [Fault::LastEventIdLost])
            }
        },
    }
}

/// How a POST for the same stream of that pace went, if there was an answer; and whether the GET's events were held
/// back.
pub fn post(answer: Option<&Answer>, pace: Pace, get_is_held: bool) -> Finding {
    let check = Check::Post;
    let Some(answer) = answer else {
        return Finding::unknown(check, "there was no answer to a POST");
    };
    if answer.status != 200 {
        let words = format!("a POST is answered {}", answer.status);
        return Finding::wrong(check, Verdict::Warning, words, [Fault::PostRefused]);
    }
    if let Some(why) = refused(answer) {
        return Finding::unknown(check, why);
    }
    if lost(answer, pace).is_some() {
        return Finding::unknown(check, "not all events of a POST arrived");
    }
    match (Delivery::is_held(&answer.reader.arrivals), get_is_held) {
        (false, true) => {
            let words = "a POST's events arrive as they are sent, a GET's are held back";
            Finding::wrong(check, Verdict::Bad, words, [Fault::GetUnlikePost])
        }
        (true, false) => Finding::good(check, "a POST's events are held back, a GET's are not"),
        (true, true) => Finding::good(check, "treated alike: both are held back"),
        (false, false) => Finding::good(check, "treated alike"),
    }
}

/// Whether a service worker controls the page, and whether it has answered the request.
pub fn service_worker(controls: bool, answered: bool) -> Finding {
    let check = Check::ServiceWorker;
    match (controls, answered) {
        (_, true) => {
            let words = "one answers the stream's requests";
            Finding::wrong(check, Verdict::Warning, words, [Fault::ServiceWorker])
        }
        (true, false) => Finding::good(check, "one is there, and leaves the stream alone"),
        (false, false) => Finding::good(check, "none"),
    }
}

/// How far the clocks are apart.
pub fn clock(offset: Option<Offset>) -> Finding {
    let check = Check::Clock;
    let Some(Offset { millis, uncertainty }) = offset else {
        return Finding::unknown(check, "the server did not tell its time");
    };
    let of = |millis| duration(millis).unwrap_or_default();
    let (apart, give) = (of(millis.abs()), time(of(uncertainty)));
    let which = if millis < 0.0 { "behind" } else { "ahead" };
    let words = format!("the server's is {} {which}, give or take {give}", time(apart));
    if apart > CLOCK + of(uncertainty) {
        return Finding::wrong(check, Verdict::Warning, words, [Fault::ClockOff]);
    }
    Finding::good(check, words)
}

/// The shortest time from a question to the end of its answer.
pub fn round_trip(shortest: Option<Duration>) -> Finding {
    let check = Check::RoundTrip;
    match shortest {
        None => Finding::unknown(check, "nothing was answered"),
        Some(took) if took > ROUND_TRIP => Finding::wrong(check, Verdict::Warning, time(took), []),
        Some(took) => Finding::good(check, time(took)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arrival;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[track_caller]
    fn is(finding: &Finding, verdict: Verdict, faults: &[Fault], measured: &str) {
        assert_eq!((finding.verdict, &*finding.faults), (verdict, faults), "{}", finding.measured);
        assert_eq!(finding.measured, measured);
    }

    #[test]
    fn protocols() {
        use Protocol::{Http2, Http10, Http11};
        is(
            &protocol(Some(Http2), Some(Http11)),
            Verdict::Good,
            &[],
            "HTTP/2 to here, HTTP/1.1 to the server",
        );
        is(&protocol(Some(Http11), Some(Http11)), Verdict::Good, &[], "HTTP/1.1 at both ends");
        is(
            &protocol(Some(Http10), Some(Http10)),
            Verdict::Warning,
            &[Fault::Http10, Fault::Http10Upstream],
            "HTTP/1.0 at both ends",
        );
        assert_eq!(protocol(None, None).verdict, Verdict::Unknown);
        assert_eq!(protocol(Some(Http2), None).verdict, Verdict::Good);
    }

    #[test]
    fn how_many_streams() {
        use Protocol::{Http2, Http11};
        assert_eq!(streams_at_once(32, 32, Some(Http11), false).verdict, Verdict::Good);
        assert_eq!(streams_at_once(0, 32, Some(Http2), false).verdict, Verdict::Unknown);
        for (open, protocol, is_browser, verdict, fault) in [
            (6, Http11, true, Verdict::Warning, Fault::SixConnections),
            (5, Http11, true, Verdict::Warning, Fault::SixConnections),
            (3, Http11, true, Verdict::Bad, Fault::ConnectionLimit),
            (6, Http2, true, Verdict::Warning, Fault::ConnectionLimit),
            (6, Http11, false, Verdict::Warning, Fault::ConnectionLimit),
            (1, Http2, false, Verdict::Bad, Fault::ConnectionLimit),
        ] {
            let finding = streams_at_once(open, 32, Some(protocol), is_browser);
            is(&finding, verdict, &[fault], &format!("{open} of 32 that were tried"));
        }
    }

    #[test]
    fn first_events() {
        is(&first_event(Ok(Duration::from_millis(20)), false), Verdict::Good, &[], "after 20 ms");
        let late = [Fault::LateFirstEvent];
        is(&first_event(Ok(seconds(3)), false), Verdict::Warning, &late, "only after 3 s");
        is(&first_event(Ok(seconds(2)), true), Verdict::Bad, &[Fault::Buffering], "only after 2 s");
        is(&first_event(Err(seconds(10)), false), Verdict::Bad, &late, "none in 10 s");
    }

    #[test]
    fn which_fields() {
        let read = |stream: &str| {
            let mut reader = Reader::default();
            reader.feed(stream.as_bytes(), 0.0);
            reader
        };
        let all = read(": x\nretry: 1\nid: 1\ndata: x\n\n");
        is(&fields(&all), Verdict::Good, &[], "comments, `retry` and ids get through");
        let none = read("data: x\n\n");
        let faults = [Fault::CommentsLost, Fault::RetryLost, Fault::IdsLost];
        is(&fields(&none), Verdict::Bad, &faults, "lost: comments, `retry`, ids");
        let finding = fields(&read("retry: 1\nid: 1\ndata: x\n\n"));
        is(&finding, Verdict::Warning, &[Fault::CommentsLost], "lost: comments");
        assert_eq!(fields(&Reader::default()).verdict, Verdict::Unknown);
        assert_eq!(fields_of_others(&all).verdict, Verdict::Good);
        let words = "nothing seen; comments, `retry`, ids not, perhaps the server sends none";
        is(&fields_of_others(&none), Verdict::Unknown, &[], words);
    }

    #[test]
    fn which_headers() {
        const OURS: [(&str, &str); 2] =
            [("content-type", "text/event-stream"), ("cache-control", "no-cache, no-transform")];
        let with = |headers: &[(&'static str, &'static str)], is_cached| {
            let others = OURS.iter().filter(|our| headers.iter().all(|one| one.0 != our.0));
            let all: Vec<_> = others.chain(headers).copied().collect();
            super::headers(all, is_cached, true)
        };
        assert_eq!(with(&[], false).verdict, Verdict::Good);
        assert_eq!(with(&[("content-type", "text/event-stream; charset=utf-8")], false).faults, []);
        for (header, verdict, fault) in [
            (("content-type", "text/html"), Verdict::Bad, Fault::ContentType),
            (("content-type", ""), Verdict::Bad, Fault::ContentType),
            (("content-encoding", "gzip"), Verdict::Bad, Fault::Compression),
            (("cache-control", "no-cache"), Verdict::Warning, Fault::CacheControl),
            (("cache-control", "max-age=60"), Verdict::Warning, Fault::CacheControl),
            (("age", "3"), Verdict::Bad, Fault::Cached),
            (("x-cache", "HIT"), Verdict::Bad, Fault::Cached),
        ] {
            let finding = with(&[header], false);
            assert_eq!(
                (finding.verdict, &finding.faults[..]),
                (verdict, &[fault][..]),
                "{header:?}"
            );
        }
        assert_eq!(with(&[], true).faults, [Fault::Cached]);
        // Others need not say so much.
        let finding = headers([("Content-Type", "text/event-stream")], false, false);
        assert_eq!(finding.verdict, Verdict::Good);
    }

    #[test]
    fn silences() {
        let heartbeat = Some(seconds(15));
        let fault = [Fault::IdleTimeout];
        is(
            &idle(None, heartbeat, seconds(20)),
            Verdict::Good,
            &[],
            "20 s are survived; a heartbeat comes every 15 s",
        );
        is(
            &idle(Some(seconds(1)), heartbeat, seconds(20)),
            Verdict::Bad,
            &fault,
            "cut after 1 s of silence; a quiet stream breaks each time (a heartbeat every 15 s)",
        );
        assert_eq!(idle(Some(seconds(16)), heartbeat, seconds(60)).verdict, Verdict::Bad);
        assert_eq!(idle(Some(seconds(20)), heartbeat, seconds(60)).verdict, Verdict::Warning);
        assert_eq!(idle(Some(seconds(60)), heartbeat, seconds(90)).verdict, Verdict::Good);
        assert_eq!(idle(None, heartbeat, seconds(5)).verdict, Verdict::Unknown);
        assert_eq!(idle(None, None, seconds(5)).verdict, Verdict::Good);
        is(
            &idle(Some(seconds(5)), None, seconds(9)),
            Verdict::Bad,
            &fault,
            "cut after 5 s of silence",
        );
    }

    #[test]
    fn resumes() {
        let saw =
            |id: Option<&str>| Seen { last_event_id: id.map(str::to_owned), ..Seen::default() };
        assert_eq!(resume("probe-7", Some(&saw(Some("probe-7")))).verdict, Verdict::Good);
        for seen in [None, Some("x")] {
            assert_eq!(resume("probe-7", Some(&saw(seen))).faults, [Fault::LastEventIdLost]);
        }
        assert_eq!(resume("probe-7", None).verdict, Verdict::Unknown);
    }

    /// An answer whose events came as they were sent, or all at the end.
    fn answer(status: u16, is_held: bool) -> Answer {
        let mut reader = Reader::default();
        for number in 1..=20 {
            let sent = f64::from(number) * 100.0;
            let arrived = if is_held { 2000.0 } else { sent };
            reader.arrivals.push(Arrival { sent, arrived, bytes: 100 });
            reader.numbers.push(number);
        }
        Answer {
            status,
            headers: Vec::new(),
            asked: 0.0,
            ended: 2000.0,
            end: End::Complete,
            reader,
        }
    }

    #[test]
    fn posts() {
        const PACE: Pace = Pace { events: 20, ..Pace::ONE };
        let post = |answer: Option<&Answer>, get_is_held| super::post(answer, PACE, get_is_held);
        let (prompt, held) = (answer(200, false), answer(200, true));
        assert_eq!(post(Some(&prompt), false).verdict, Verdict::Good);
        assert_eq!(post(Some(&held), false).verdict, Verdict::Good);
        assert_eq!(post(Some(&held), true).verdict, Verdict::Good);
        assert_eq!(post(Some(&prompt), true).faults, [Fault::GetUnlikePost]);
        assert_eq!(post(None, false).verdict, Verdict::Unknown);
        is(
            &post(Some(&answer(405, false)), false),
            Verdict::Warning,
            &[Fault::PostRefused],
            "a POST is answered 405",
        );
        let mut cut = answer(200, false);
        cut.reader.numbers.pop();
        assert_eq!(post(Some(&cut), true).verdict, Verdict::Unknown);
        let mut ended = answer(200, false);
        ended.reader.feed(b"event: goodbye\ndata: {\"reason\":\"limit\",\"retry_ms\":1}\n\n", 0.0);
        is(
            &post(Some(&ended), true),
            Verdict::Unknown,
            &[],
            "the server has ended the stream (`limit`)",
        );
    }

    #[test]
    fn what_is_lost() {
        let pace = Pace { events: 20, ..Pace::ONE };
        let mut answer = answer(200, false);
        assert_eq!(lost(&answer, pace), None);
        answer.reader.numbers.remove(2);
        for (end, words) in [(End::Complete, ""), (End::Cut, ", then it was cut")] {
            answer.end = end;
            let words = format!("19 of 20 events arrived, or in another order{words}");
            is(&lost(&answer, pace).unwrap(), Verdict::Bad, &[Fault::EventsLost], &words);
        }
    }

    #[test]
    fn service_workers() {
        assert_eq!(service_worker(true, true).faults, [Fault::ServiceWorker]);
        assert_eq!(service_worker(true, false).verdict, Verdict::Good);
        assert_eq!(service_worker(false, false).measured, "none");
    }

    #[test]
    fn clocks_and_round_trips() {
        let apart = |millis| clock(Some(Offset { millis, uncertainty: 10.0 }));
        is(&apart(-30.0), Verdict::Good, &[], "the server's is 30 ms behind, give or take 10 ms");
        assert_eq!(apart(3000.0).faults, [Fault::ClockOff]);
        assert_eq!(clock(None).verdict, Verdict::Unknown);
        assert_eq!(round_trip(Some(Duration::from_millis(20))).measured, "20 ms");
        assert_eq!(round_trip(Some(seconds(2))).verdict, Verdict::Warning);
        assert_eq!(round_trip(None).verdict, Verdict::Unknown);
    }
}
