//! The one error type of the HTTP edge: `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{
            CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
        },
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;

use waterclock::{
    event::{InvalidName, InvalidTopic},
    pattern::{InvalidPattern, Pattern},
};

use crate::{
    access::{COOKIE_NAME, Foreign},
    events::MAX_PATTERNS,
    load::{MAX_RATE, MAX_SECONDS},
    metrics::Refusal,
    poll::MAX_WAIT,
    probe,
    publish::{MAX_DATA, MAX_KEY},
    token::BadToken,
};

/// Why a request was refused, and what would be accepted.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// `topic` is no pattern.
    #[error("{0:?} is {InvalidPattern}.")]
    BadPattern(String),
    /// More patterns than a stream may have.
    #[error("A stream has at most {MAX_PATTERNS} patterns. Use wildcards, or several streams.")]
    TooManyPatterns,
    /// What is published to is no topic.
    #[error("{0:?} is {InvalidTopic}.")]
    BadTopic(String),
    /// `name` cannot be the name of an event.
    #[error("{name:?} cannot be the name of an event: {why}.")]
    BadName {
        /// What was sent.
        name: String,
        /// Why not.
        why: InvalidName,
    },
    /// `split` is not one of those there are.
    #[error("There is no split {0:?}. Leave `split` out, or set it to `lines`.")]
    BadSplit(String),
    /// Something went wrong after some lines.
    #[error("{why} {published} lines were published before.")]
    AfterLines {
        /// How many events were published.
        published: u64,
        /// What went wrong.
        why: Box<Problem>,
    },
    /// The data of an event is too long.
    #[error("The data of an event is at most {MAX_DATA} bytes long.")]
    TooMuchData,
    /// The data of an event is not UTF-8.
    #[error("The data of an event is UTF-8, and this is not. Encode it, as Base64 for instance.")]
    NotUtf8,
    /// The data of an event did not come in time.
    #[error("The data of the event did not arrive in time.")]
    SlowBody,
    /// The body is not what HTTP/1.1 has it be.
    #[error("The request's body breaks the rules of HTTP/1.1 (RFC 9112, 7.1).")]
    BrokenBody,
    /// The body ended before it was complete. Nobody reads this: the client is gone.
    #[error("The request's body broke off.")]
    CutBody,
    /// A request of HTTP/1.1 does not say once and clearly for which host it is.
    #[error("A request has one `Host`: a name or an address, with a port perhaps.")]
    BadHost,
    /// A transfer coding that is not understood.
    #[error("`Transfer-Encoding` is `chunked`, once, or left out.")]
    NoSuchCoding,
    /// The token allows nothing.
    #[error("The token is refused: {0}.")]
    BadToken(BadToken),
    /// There is no token.
    #[error(
        "A token is needed: `Authorization: Bearer` with a JSON Web Token, or the cookie `{COOKIE_NAME}`."
    )]
    NoToken,
    /// The token allows something else.
    #[error("The token's `{claim}` does not list `{pattern}`. It lists {}.", list(listed))]
    NotInToken {
        /// Which of its claims.
        claim: &'static str,
        /// What was asked for.
        pattern: String,
        /// What is listed there.
        listed: Vec<Pattern>,
    },
    /// The client publishes too much at a time.
    #[error(
        "So many events a second are more than this client may publish. `Retry-After` says when to go on."
    )]
    TooManyPublishes(Duration),
    /// `Idempotency-Key` cannot be one.
    #[error("`Idempotency-Key` is given once, and is a text of 1 to {MAX_KEY} ASCII characters.")]
    BadKey,
    /// `Idempotency-Key` with `split=lines`.
    #[error("`Idempotency-Key` is for one event; with `split=lines` there are many.")]
    KeyOfLines,
    /// `Idempotency-Key` was used for another event.
    #[error(
        "This `Idempotency-Key` was used for an event of another name or data. Take a new key."
    )]
    KeyTaken,
    /// The event with this `Idempotency-Key` is being published.
    #[error(
        "An event with this `Idempotency-Key` is just being published. Ask again when it is done."
    )]
    KeyIsRunning,
    /// There is no room for another topic.
    #[error(
        "There are as many topics with events as there may be. The option --max-topics says how many."
    )]
    TooManyTopics,
    /// There is no room for the event.
    #[error("The server's disk is full. The event could not be kept, and nobody has seen it.")]
    DiskFull,
    /// Only the server publishes to `clock`.
    #[error("Only the server itself publishes to `clock`. Take another topic.")]
    ClockIsOurs,
    /// `wait` is no time that a poll may take.
    #[error(
        "{0:?} is no time to wait. `wait` is a whole number of seconds from 0 to {MAX_WAIT}, or left out."
    )]
    BadWait(String),
    /// The log could not be read.
    #[error("The events could not be read. The server's log says why.")]
    NotRead,
    /// The log could not keep an event.
    #[error("The event could not be kept, and nobody has seen it. The server's log says why.")]
    NotKept,
    /// `format` is not one of those there are.
    #[error("There is no format {0:?}. Leave `format` out, or set it to `json`.")]
    NoSuchFormat(String),
    /// `limit` is no number of events.
    #[error(
        "The limit {0:?} is no number of events. `limit` is a whole number from 1 to {max}, or left out.",
        max = u64::MAX
    )]
    BadLimit(String),
    /// `conflate` is neither yes nor no.
    #[error("{0:?} says neither yes nor no. `conflate` is `true`, `false`, or left out.")]
    BadConflate(String),
    /// Only the server's own machine publishes.
    #[error("Only the server's own machine may publish, and the request is not from there: {0}.")]
    MayNotPublish(Foreign),
    /// The topic is read on the server's own machine only.
    #[error("This topic is not public, and the request is not from the server's own machine: {0}.")]
    NotPublic(Foreign),
    /// This is read on the server's own machine only.
    #[error("This is for the server's own machine only, and the request is not from there: {0}.")]
    NotLocal(Foreign),
    /// A page of another origin asks for a WebSocket.
    #[error(
        "A page of the origin {0:?} may not open a WebSocket here: it is not this server's own, which is told \
         by `Host`. The option --cors-origin lets others read."
    )]
    ForeignOrigin(String),
    /// It is no handshake of a WebSocket.
    #[error("This is for WebSockets (RFC 6455), and the request asks for none: {0}.")]
    NotWebSocket(String),
    /// What a WebSocket's client has sent is not understood.
    #[error(
        "The message is not understood: {0}. A client may send \
         {{\"publish\": {{\"topic\": …, \"name\": …, \"data\": …, \"key\": …}}}}, the name and the key if it likes."
    )]
    BadMessage(String),
    /// A meter's name is too easy to guess, or has other characters.
    #[error("{0:?} is no name of a meter: 16 to 64 of `A-Za-z0-9_-`, drawn at random.")]
    BadMeter(String),
    /// Nothing was counted by that name.
    #[error("There is no meter of that name, or nobody has asked for it for long.")]
    NoSuchMeter,
    /// The load is not one that there can be.
    #[error(
        "`rate` is 1 to {MAX_RATE} events a second, `size` 0 to {MAX_DATA} bytes, `seconds` 1 to {MAX_SECONDS}."
    )]
    BadLoad,
    /// The probe is not one that there can be.
    #[error(
        "`events` is 1 to {max_events}, `every` 0 to {max_every} milliseconds, `bytes` 0 to {max_bytes}, `retry` a \
         number of milliseconds. A probe lasts at most {minutes} minutes, and has at most {total} bytes of padding.",
        max_events = probe::MAX_EVENTS,
        max_every = probe::MAX_EVERY,
        max_bytes = probe::MAX_BYTES,
        minutes = probe::MAX_SECONDS / 60,
        total = probe::MAX_TOTAL
    )]
    BadProbe,
    /// There is a load already.
    #[error(
        "A load of {rate} events a second of {size} bytes runs already, perhaps for somebody else. It ends \
         soon after they do, or by `DELETE /load`."
    )]
    LoadRuns {
        /// Events a second.
        rate: u32,
        /// Bytes of each.
        size: usize,
    },
    /// The server takes no new clients.
    #[error("The server is stopping.")]
    Stopping,
    /// No route and no file has that path.
    #[error("There is nothing here. The events are at `/events`, a page that shows them at `/`.")]
    NothingHere,
    /// The route does not offer the method. The `Allow` header says which it offers.
    #[error("This method is not offered here. The `Allow` header says which ones are.")]
    MethodNotAllowed,
}

/// The body, as RFC 9457 has it. Without a `type`, `title` is that of the status.
#[derive(Serialize)]
pub(crate) struct Body {
    title: &'static str,
    status: u16,
    detail: String,
}

impl Problem {
    /// What went wrong, whatever went well before.
    fn reason(&self) -> &Self {
        match self {
            Self::AfterLines { why, .. } => why,
            other => other,
        }
    }

    pub(crate) fn body(&self) -> Body {
        let status = self.status();
        Body {
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: self.to_string(),
        }
    }

    /// As what it is counted, if it may be an attack.
    fn refusal(&self) -> Option<Refusal> {
        match self.reason() {
            Self::BrokenBody | Self::BadHost | Self::NoSuchCoding => Some(Refusal::Malformed),
            Self::TooMuchData => Some(Refusal::TooLong),
            Self::NotPublic(_)
            | Self::NotLocal(_)
            | Self::ForeignOrigin(_)
            | Self::MayNotPublish(_) => Some(Refusal::Foreign),
            _ => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::AfterLines { why, .. } => why.status(),
            Self::NothingHere | Self::NoSuchMeter => StatusCode::NOT_FOUND,
            Self::BadPattern(_)
            | Self::TooManyPatterns
            | Self::BadTopic(_)
            | Self::BadName { .. }
            | Self::BadSplit(_)
            | Self::BadKey
            | Self::KeyOfLines
            | Self::NotUtf8
            | Self::BrokenBody
            | Self::CutBody
            | Self::BadHost
            | Self::NoSuchFormat(_)
            | Self::BadLimit(_)
            | Self::BadWait(_)
            | Self::BadMessage(_)
            | Self::BadMeter(_)
            | Self::BadLoad
            | Self::BadProbe
            | Self::BadConflate(_) => StatusCode::BAD_REQUEST,
            Self::ClockIsOurs
            | Self::NotPublic(_)
            | Self::NotLocal(_)
            | Self::ForeignOrigin(_)
            | Self::MayNotPublish(_)
            | Self::NotInToken { .. } => StatusCode::FORBIDDEN,
            Self::BadToken(_) | Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::TooManyPublishes(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::KeyTaken => StatusCode::UNPROCESSABLE_ENTITY,
            Self::KeyIsRunning | Self::LoadRuns { .. } => StatusCode::CONFLICT,
            Self::NotWebSocket(_) => StatusCode::UPGRADE_REQUIRED,
            Self::DiskFull | Self::TooManyTopics => StatusCode::INSUFFICIENT_STORAGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::TooMuchData => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotKept | Self::NotRead => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoSuchCoding => StatusCode::NOT_IMPLEMENTED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        }
    }
}

fn list(patterns: &[Pattern]) -> String {
    let list: Vec<_> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
    if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let refusal = self.refusal();
        if refusal == Some(Refusal::Malformed) || matches!(self, Self::SlowBody) {
            // Where the next request begins is not known, or a long way off.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self.reason() {
            // RFC 6750, 3.
            Self::NoToken => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::BadToken(_) => {
                let value = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                headers.insert(WWW_AUTHENTICATE, value);
            }
            // RFC 9110, 15.5.22; RFC 6455, 4.4.
            Self::NotWebSocket(_) => {
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::TooManyPublishes(wait) => {
                headers.insert(RETRY_AFTER, (wait.as_secs() + 1).into());
            }
            _ => {}
        }
        if let Some(refusal) = refusal {
            response.extensions_mut().insert(refusal);
        }
        response
    }
}
