//! The reasons for which a server does not answer as expected, each in one line with advice.

use std::{error::Error as _, io, iter, time::Duration};

use super::visible::visible;
use crate::client::{CredentialsError, urls::with_other_scheme};

/// A reason for which a command has failed.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// A token or a certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No connection could be opened, or it broke before the end of the answer.
    #[error("{url} cannot be reached: {reason}. {hint}")]
    Unreachable {
        /// The URL.
        url: String,
        /// The deepest cause.
        reason: String,
        /// Advice.
        hint: String,
        /// `true` if the request has not been sent.
        is_unsent: bool,
    },
    /// The answer has not come in time.
    #[error("{url} did not respond within {} s. Is it a Waterclock server?", after.as_secs())]
    TimedOut {
        /// The URL.
        url: String,
        /// The time.
        after: Duration,
    },
    /// The server has refused the request, and said why.
    #[error("{detail}{hint} (status {status})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's words.
        detail: String,
        /// Advice.
        hint: &'static str,
        /// The time after which the server wants another attempt.
        retry_after: Option<Duration>,
    },
    /// The server sends its clients elsewhere.
    #[error("{url} redirects to {to}: give the URL of the server there with --url")]
    Redirected {
        /// The URL.
        url: String,
        /// The target of the redirect.
        to: String,
    },
    /// The answer is none that a Waterclock server would give.
    #[error("{url} is no Waterclock server: {found}. Is the URL right?")]
    NotWaterclock {
        /// The URL.
        url: String,
        /// A description of the answer.
        found: String,
        /// The HTTP status.
        status: u16,
    },
    /// The input cannot be read or used.
    #[error("{0}")]
    Input(String),
    /// The answer to a publish is lost for good.
    #[error("it is unknown if {what}: {reason}. To settle it, repeat the command with --key {key}")]
    Unconfirmed {
        /// The request.
        what: String,
        /// The last reason.
        reason: String,
        /// The idempotency key.
        key: String,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl TerminalError {
    /// Explains why a request got no answer.
    pub(super) fn of(error: &reqwest::Error, url: &str) -> Self {
        // The causes, because the message of the error itself repeats the URL.
        let causes: Vec<_> = iter::successors(error.source(), |&cause| cause.source())
            .map(ToString::to_string)
            .collect();
        let reason = causes.last().cloned().unwrap_or_else(|| error.to_string());
        let is_unsent = error.is_connect() || error.is_builder();
        let hint = hint(&causes, url, is_unsent);
        Self::Unreachable { url: url.to_owned(), reason: visible(&reason), hint, is_unsent }
    }

    /// Returns `true` if another attempt may succeed, although nothing has changed here.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused { status, retry_after, .. } => match status {
                409 => retry_after.is_some(),
                status => matches!(status, 408 | 429 | 500 | 502..=504),
            },
            // A proxy whose server is away.
            Self::NotWaterclock { status, .. } => matches!(status, 502..=504),
            _ => false,
        }
    }

    /// Returns `true` if the server may have done what was asked, although no answer says so.
    pub(super) fn may_have_arrived(&self) -> bool {
        self.may_pass() && !matches!(self, Self::Unreachable { is_unsent: true, .. })
    }

    /// Returns `true` if the server has looked for an event with the same idempotency key, and
    /// found none that is the same.
    pub(super) fn is_about_the_key(&self) -> bool {
        matches!(self, Self::Refused { status: 409 | 422, .. }) && !self.may_pass()
    }

    /// Returns the time after which the server wants another attempt.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Returns advice on an error, given the messages of its causes, the deepest last.
fn hint(causes: &[String], url: &str, is_unsent: bool) -> String {
    let has = |text: &str| causes.iter().any(|cause| cause.contains(text));
    let (is_tls, other) = (url.starts_with("https:"), with_other_scheme(url));
    if has("certificate") {
        "To trust the server's certificate, give it with --ca-file".to_owned()
    } else if is_tls && has("corrupt message") {
        format!("The server does not use TLS: try {other}")
    } else if is_tls && (has("handshake eof") || has("Connection reset")) {
        format!("If the server does not use TLS, try {other}")
    } else if !is_tls && !is_unsent {
        format!("If the server uses TLS, try {other}")
    } else {
        "Is the server running, and the URL right?".to_owned()
    }
}
