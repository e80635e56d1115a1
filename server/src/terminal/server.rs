//! The HTTP client of the commands.

use std::{net::IpAddr, time::Duration};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{error::TerminalError, visible::visible};
use crate::client::{
    ServerArgs,
    urls::{display_url, with_other_scheme, with_path},
};

/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum number of bytes read of an answer.
const MAX_ANSWER: usize = 8 << 20;
/// Maximum length of a server's words in a message, in bytes.
const MAX_DETAIL: usize = 2000;

/// A server, as the commands call it.
pub(super) struct ServerClient {
    client: Client,
    url: Url,
    args: ServerArgs,
}

/// A complete answer with a status of success.
pub(super) struct Answer {
    pub(super) body: Vec<u8>,
}

/// The answer to a refused request (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl ServerClient {
    pub(super) fn new(args: &ServerArgs) -> Result<Self, TerminalError> {
        Self::at(&args.url, args, false)
    }

    /// Creates a client of the server at a URL, which need not be that of the options. It accepts
    /// any certificate if `is_insecure` is set.
    pub(super) fn at(
        url: &Url,
        args: &ServerArgs,
        is_insecure: bool,
    ) -> Result<Self, TerminalError> {
        let client = args.credentials.client(|| {
            let client = Client::builder()
                .user_agent(concat!("waterclock/", env!("CARGO_PKG_VERSION")))
                // A redirect would lose the body of a publish, or take the token elsewhere.
                .redirect(Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .tls_danger_accept_invalid_certs(is_insecure);
            if is_loopback(url) { client.no_proxy() } else { client }
        })?;
        Ok(Self { client, url: url.clone(), args: args.clone() })
    }

    /// Builds a request for a path of the server.
    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<RequestBuilder, TerminalError> {
        let mut url = with_path(&self.url, path);
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let authorization = self.args.authorization(&url)?;
        let request = self.client.request(method, url);
        Ok(match authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization),
            None => request,
        })
    }

    /// Sends a request, and returns the head of an answer with a status of success.
    pub(super) async fn open(
        &self,
        request: RequestBuilder,
        after: Duration,
    ) -> Result<Response, TerminalError> {
        let url = display_url(&self.url);
        let Ok(sent) = timeout(after, request.send()).await else {
            return Err(TerminalError::TimedOut { url, after });
        };
        let response = sent.map_err(|error| TerminalError::of(&error, &url))?;
        if response.status().is_success() {
            return Ok(response);
        }
        // A body that does not end says nothing.
        let refusal = timeout(CONNECT_TIMEOUT, self.refusal(response)).await;
        Err(refusal.unwrap_or(TerminalError::TimedOut { url, after: CONNECT_TIMEOUT }))
    }

    /// Sends a request, and returns the whole answer.
    pub(super) async fn call(
        &self,
        request: RequestBuilder,
        after: Duration,
    ) -> Result<Answer, TerminalError> {
        let call = async {
            let response = self.open(request, after).await?;
            Ok(Answer { body: self.body(response).await? })
        };
        let timed_out = || TerminalError::TimedOut { url: display_url(&self.url), after };
        timeout(after, call).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, TerminalError> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= MAX_ANSWER => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Err(self.not_waterclock(200, "its answer has no end")),
                Ok(None) => return Ok(body),
                Err(error) => return Err(TerminalError::of(&error, &display_url(&self.url))),
            }
        }
    }

    /// Explains an answer that is no success.
    async fn refusal(&self, response: Response) -> TerminalError {
        let status = response.status();
        let header = |name| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        if let (true, Some(to)) = (status.is_redirection(), header(LOCATION)) {
            let to = response.url().join(&to).map_or_else(|_| visible(&to), |to| display_url(&to));
            return TerminalError::Redirected { url: display_url(&self.url), to };
        }
        let media_type = header(CONTENT_TYPE).unwrap_or_default();
        let seconds = header(RETRY_AFTER).and_then(|after| after.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        if media_type.starts_with("application/problem+json")
            && let Ok(body) = self.body(response).await
            && let Ok(Problem { detail }) = serde_json::from_slice(&body)
        {
            return refused(status, &detail, retry_after);
        }
        if status == StatusCode::BAD_REQUEST && self.url.scheme() == "http" {
            let other = with_other_scheme(&display_url(&self.url));
            let found = format!("it responds with {status}. If the port uses TLS, try {other}");
            return self.not_waterclock(400, &found);
        }
        let kind = if media_type.is_empty() { String::new() } else { format!(" ({media_type})") };
        self.not_waterclock(status.as_u16(), &format!("it responds with {status}{kind}"))
    }

    /// Returns the error for an answer that no Waterclock server would give.
    pub(super) fn not_waterclock(&self, status: u16, found: &str) -> TerminalError {
        let found = visible(found);
        TerminalError::NotWaterclock { url: display_url(&self.url), found, status }
    }

    /// Parses an answer, which must be JSON.
    pub(super) fn json<T: for<'a> Deserialize<'a>>(
        &self,
        answer: &Answer,
    ) -> Result<T, TerminalError> {
        serde_json::from_slice(&answer.body)
            .map_err(|_| self.not_waterclock(200, "its answer is not the JSON of one"))
    }
}

/// Returns the error for a problem.
pub(super) fn refused(
    status: StatusCode,
    detail: &str,
    retry_after: Option<Duration>,
) -> TerminalError {
    let hint = match status.as_u16() {
        401 => " Give a token with --token-file or WATERCLOCK_TOKEN.",
        _ => "",
    };
    let mut detail = visible(detail);
    detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
    TerminalError::Refused { status: status.as_u16(), detail, hint, retry_after }
}

/// Returns `true` if the URL is of this machine, to which no proxy has to lead.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
