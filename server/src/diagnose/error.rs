//! The errors of `waterclock diagnose`, each in one line with advice.

use std::{error::Error as _, iter};

use reqwest::Url;
use waterclock_diagnose::RESPONSE_TIMEOUT;

use super::http::RequestError;
use crate::client::{
    CredentialsError,
    urls::{display_url, with_other_scheme},
};

/// The reason why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiagnoseError {
    #[error(transparent)]
    SetUp(#[from] CredentialsError),
    #[error("{url} cannot be reached: {reason}. {hint}")]
    Unreachable { url: String, reason: String, hint: String },
    #[error(
        "{0} did not respond within {seconds} s. Is it a server of Server-Sent Events?",
        seconds = RESPONSE_TIMEOUT.as_secs()
    )]
    TimedOut(String),
    #[error(
        "{0} accepts no more streams at the moment ({1}). Try again later, or raise its \
         --max-streams and --max-streams-per-address"
    )]
    Refused(String, &'static str),
    // A port with TLS responds to plain HTTP with this status.
    #[error("{url} responds with 400 Bad Request. If the port uses TLS, try {other}")]
    BadRequest { url: String, other: String },
    #[error(
        "{0} redirects to {1}, and your headers and token are not sent to another origin. Give the \
         URL that it redirects to"
    )]
    OtherOrigin(String, String),
}

impl DiagnoseError {
    /// Explains why a request got no response.
    pub(super) fn of(error: RequestError, url: &Url) -> Self {
        let url = display_url(url);
        match error {
            RequestError::TimedOut => Self::TimedOut(url),
            RequestError::OtherOrigin(origin) => Self::OtherOrigin(url, origin),
            RequestError::Refused(objection) => {
                let (reason, hint) = (objection.reason, "Is the URL right?".to_owned());
                Self::Unreachable { url, reason, hint }
            }
            RequestError::Broken(error, _) => {
                // The causes, because the message of the error itself repeats the URL.
                let causes: Vec<_> = iter::successors(error.source(), |&cause| cause.source())
                    .map(ToString::to_string)
                    .collect();
                let reason = causes.last().cloned().unwrap_or_else(|| error.to_string());
                let hint = hint(&error, &causes, &url);
                Self::Unreachable { url, reason, hint }
            }
        }
    }
}

/// Returns advice on an error, given the messages of its causes, the deepest last. The error itself
/// has no codes for them.
fn hint(error: &reqwest::Error, causes: &[String], url: &str) -> String {
    let has = |text: &str| causes.iter().any(|cause| cause.contains(text));
    let (is_tls, other) = (url.starts_with("https:"), with_other_scheme(url));
    // Messages of HTTP/2 only: for HTTP/1 the last one is "Connection reset by peer".
    let is_http2 = ["http2 error", "channel closed", "canceled", "connection reset"];
    let is_http2 = is_http2.into_iter().any(has);
    let was_connected = error.is_request() && !error.is_connect();
    if has("certificate") {
        "To trust its certificate, use --ca-file; to accept any, --insecure".to_owned()
    } else if has("NoApplicationProtocol") {
        "The server does not support that version of HTTP: leave out --http1 or --http2".to_owned()
    } else if was_connected && is_tls && is_http2 {
        "If the server does not support HTTP/2, leave out --http2".to_owned()
    } else if is_tls && has("corrupt message") {
        format!("The server does not use TLS: try {other}")
    } else if is_tls && (has("handshake eof") || has("Connection reset")) {
        format!("If the server does not use TLS, try {other}")
    } else if was_connected && !is_tls {
        let http2 = if is_http2 {
            "; if the server does not support HTTP/2, leave out --http2"
        } else {
            ""
        };
        format!("If the server uses TLS, try {other}{http2}")
    } else {
        "Is the URL right, and is the server running?".to_owned()
    }
}
