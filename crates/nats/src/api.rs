//! The connection to NATS, and requests over it.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap, Request, RequestErrorKind,
    ServerError, ServerInfo,
    connection::State,
    jetstream::{self, context::ContextBuilder},
};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::timeout};

use crate::{
    error::ConnectError,
    settings::{Login, NatsSettings},
    setup::StreamInfo,
};

/// Time in which NATS must answer a request.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of the pings by which the client detects a dead connection. It gives up after two that
/// are not answered.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum pause between two attempts to reconnect.
const MAX_RECONNECT_PAUSE: Duration = Duration::from_millis(500);
/// Maximum number of messages to keep by which a server denies permissions.
const MAX_DENIALS: usize = 16;

/// A request that has failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The request was not sent.
    #[error("there is no connection to NATS")]
    Disconnected,
    /// The request was not sent.
    #[error("NATS does not accept messages of {0} bytes")]
    TooLarge(usize),
    /// The request reached no server that is responsible.
    #[error("no server of NATS is responsible now")]
    NoResponders,
    #[error("NATS does not answer")]
    Silent,
    #[error("{0}")]
    Permission(String),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the answer of NATS cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("{}", one_line(.0.as_ref()))]
    Client(async_nats::Error),
}

/// An error that JetStream answers.
#[derive(Clone, Debug, PartialEq, Deserialize, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Refusal(pub jetstream::Error);

/// The numbers of JetStream's errors, as in `server/errors.json` of nats-server.
pub(crate) mod code {
    pub const ACCOUNT_RESOURCES_EXCEEDED: u64 = 10002;
    pub const NO_PEERS: u64 = 10005;
    pub const CLUSTER_NOT_AVAILABLE: u64 = 10008;
    pub const NOT_LEADER: u64 = 10009;
    pub const INSUFFICIENT_RESOURCES: u64 = 10023;
    pub const MEMORY_RESOURCES_EXCEEDED: u64 = 10028;
    pub const NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
    pub const STORAGE_RESOURCES_EXCEEDED: u64 = 10047;
    pub const MESSAGE_TOO_LARGE: u64 = 10054;
    pub const STREAM_NAME_IN_USE: u64 = 10058;
    pub const STREAM_NOT_FOUND: u64 = 10059;
    pub const OTHER_STREAM: u64 = 10060;
    pub const WRONG_LAST_SEQUENCE: u64 = 10071;
    pub const REPLICAS_NOT_SUPPORTED: u64 = 10074;
    pub const NOT_ENABLED: u64 = 10076;
    pub const SEALED: u64 = 10109;
    pub const STREAM_OFFLINE: u64 = 10118;
    pub const TOO_MANY_REQUESTS: u64 = 10167;
}

impl Refusal {
    /// Returns the number of the error.
    pub fn code(&self) -> u64 {
        self.0.error_code().0
    }

    /// Returns `true` if JetStream is not enabled.
    pub fn is_disabled(&self) -> bool {
        matches!(self.code(), code::NOT_ENABLED_FOR_ACCOUNT | code::NOT_ENABLED)
    }

    /// Returns `true` if a later request may succeed.
    pub fn may_pass(&self) -> bool {
        matches!(
            self.code(),
            code::CLUSTER_NOT_AVAILABLE
                | code::NOT_LEADER
                // Another node has created the stream meanwhile.
                | code::STREAM_NAME_IN_USE
                | code::STREAM_NOT_FOUND
                | code::STREAM_OFFLINE
                | code::TOO_MANY_REQUESTS
        )
    }

    /// Returns `true` if JetStream answers a published message with it only before the message is
    /// handed to the servers that store it. Error 10077, "store failed", is not among them: in a
    /// cluster, the servers agree on a message first, and then one of them may fail to store it.
    pub fn is_definite(&self) -> bool {
        matches!(
            self.code(),
            code::ACCOUNT_RESOURCES_EXCEEDED
                | code::INSUFFICIENT_RESOURCES
                | code::MEMORY_RESOURCES_EXCEEDED
                | code::NOT_ENABLED_FOR_ACCOUNT
                | code::STORAGE_RESOURCES_EXCEEDED
                | code::MESSAGE_TOO_LARGE
                | code::OTHER_STREAM
                | code::WRONG_LAST_SEQUENCE
                | code::NOT_ENABLED
                | code::SEALED
                | code::TOO_MANY_REQUESTS
        )
    }
}

/// An answer of JetStream, which has the field `error` if it is one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    Refused { error: Refusal },
    Ok(T),
}

/// The acknowledgement of a published message.
#[derive(Debug, Deserialize)]
pub(crate) struct Acknowledgement {
    #[serde(rename = "seq")]
    pub sequence: u64,
}

/// A connection to NATS. It reconnects by itself, to any server of the cluster.
#[derive(Clone)]
pub(crate) struct Api {
    client: Client,
    jetstream: jetstream::Context,
    /// The messages by which the server has denied permissions since the client has connected; at
    /// most [`MAX_DENIALS`].
    denied: Arc<watch::Sender<Vec<String>>>,
}

impl Api {
    /// Connects. With `may_wait`, returns at once, and connects in the background.
    pub async fn connect(settings: &NatsSettings, may_wait: bool) -> Result<Self, ConnectError> {
        let denied = Arc::new(watch::Sender::new(Vec::new()));
        let mut options = ConnectOptions::new()
            .name("waterclock")
            .connection_timeout(settings.timeout.min(ANSWER_TIMEOUT))
            .request_timeout(Some(ANSWER_TIMEOUT))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(|attempts| {
                let pause = Duration::from_millis(50) * u32::try_from(attempts).unwrap_or(u32::MAX);
                pause.min(MAX_RECONNECT_PAUSE)
            })
            .event_callback({
                let denied = Arc::clone(&denied);
                move |event| {
                    note(&event, &denied);
                    std::future::ready(())
                }
            });
        if let Some(path) = &settings.ca {
            settings.read_ca()?;
            options = options.add_root_certificates(path.clone());
        }
        if let Some(path) = &settings.credentials {
            let refused = |reason| ConnectError::Credentials { path: path.clone(), reason };
            options = options.credentials_file(path).await.map_err(refused)?;
        }
        match settings.login() {
            Some(Login::User(user, password)) => {
                options = options.user_and_password(user, password);
            }
            Some(Login::Token(token)) => options = options.token(token),
            None => {}
        }
        if may_wait {
            options = options.retry_on_initial_connect();
        }
        let connected = Box::pin(options.connect(settings.addresses())).await;
        let client = connected.map_err(|error| unconnected(settings, &error))?;
        let jetstream = ContextBuilder::new().timeout(ANSWER_TIMEOUT).build(client.clone());
        Ok(Self { client, jetstream, denied })
    }

    /// Returns the server to which the client is connected, as it describes itself.
    pub fn server(&self) -> ServerInfo {
        self.client.server_info()
    }

    /// Returns the client's own functions for JetStream. Fails if there is no connection, since the
    /// client would keep the requests until there is one.
    pub fn jetstream(&self) -> Result<&jetstream::Context, ApiError> {
        match self.client.connection_state() {
            State::Connected => Ok(&self.jetstream),
            State::Pending | State::Disconnected => Err(ApiError::Disconnected),
        }
    }

    /// Explains that a request was not answered. Its subject contains `action`.
    pub fn silence(&self, action: &str) -> ApiError {
        let denied = self.denied.borrow();
        let text = denied.iter().find(|text| text.contains(action));
        text.map_or(ApiError::Silent, |text| ApiError::Permission(text.clone()))
    }

    /// Returns the client. Fails if there is no connection, as [`jetstream`](Self::jetstream) does.
    pub fn client(&self) -> Result<&Client, ApiError> {
        self.jetstream().map(|_| &self.client)
    }

    /// Begins to watch the messages by which the server denies permissions.
    pub fn denied(&self) -> watch::Receiver<Vec<String>> {
        self.denied.subscribe()
    }

    /// Describes a stream. The server that leads the stream answers.
    pub async fn stream_info(&self, stream: &str) -> Result<StreamInfo, ApiError> {
        self.request(&format!("STREAM.INFO.{stream}"), &serde_json::json!({})).await
    }

    /// Sends a request to JetStream's API.
    pub async fn request<T: DeserializeOwned>(
        &self,
        action: &str,
        request: &impl Serialize,
    ) -> Result<T, ApiError> {
        let payload = serde_json::to_vec(request)?;
        self.send(format!("$JS.API.{action}"), HeaderMap::new(), payload.into()).await
    }

    /// Sends a message and waits for JetStream's answer to it.
    pub async fn send<T: DeserializeOwned>(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<T, ApiError> {
        self.jetstream()?;
        let size = payload.len();
        let mut denied = self.denied.subscribe();
        let quoted = format!("{subject:?}");
        // Answers come to a subject below _INBOX, to which the client subscribes once.
        let concerns = |text: &String| text.contains(&quoted) || text.contains("\"_INBOX.");
        let denial = denied.wait_for(|texts| texts.iter().any(concerns));
        let request = Request::new().headers(headers).payload(payload);
        let answer = tokio::select! {
            answer = timeout(ANSWER_TIMEOUT, self.client.send_request(subject, request)) => answer,
            Ok(texts) = denial => {
                let text = texts.iter().find(|text| concerns(text)).cloned();
                return Err(ApiError::Permission(text.unwrap_or_default()));
            }
        };
        let message = match answer {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    RequestErrorKind::TimedOut => ApiError::Silent,
                    RequestErrorKind::NoResponders => ApiError::NoResponders,
                    RequestErrorKind::MaxPayloadExceeded => ApiError::TooLarge(size),
                    _ => ApiError::Client(error.into()),
                });
            }
            Err(_) => return Err(ApiError::Silent),
        };
        match serde_json::from_slice(&message.payload)? {
            Answer::Refused { error } => Err(ApiError::Refused(error)),
            Answer::Ok(answer) => Ok(answer),
        }
    }
}

/// Logs an event of the connection, and keeps it if it denies a permission.
fn note(event: &Event, denied: &watch::Sender<Vec<String>>) {
    match event {
        Event::Connected => denied.send_modify(Vec::clear),
        Event::ServerError(ServerError::Other(text))
            if text.to_lowercase().starts_with("permissions violation") =>
        {
            denied.send_if_modified(|texts| {
                let is_new = texts.len() < MAX_DENIALS && !texts.contains(text);
                if is_new {
                    tracing::warn!("NATS denies a permission: {text}");
                    texts.push(text.clone());
                }
                is_new
            });
        }
        _ => {}
    }
    tracing::debug!("NATS: {event}");
}

/// Explains a connection that could not be made.
fn unconnected(settings: &NatsSettings, error: &async_nats::ConnectError) -> ConnectError {
    let (reason, servers) = (one_line(error), settings.addresses().join(", "));
    match (error.kind(), &settings.ca) {
        (ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication, _) => {
            ConnectError::Refused(reason)
        }
        // The client gives no kind of its own to a certificate that cannot be verified.
        _ if reason.contains("certificate") => ConnectError::Untrusted { servers, reason },
        (ConnectErrorKind::Tls, Some(path)) => {
            ConnectError::Certificates { path: path.clone(), reason }
        }
        _ => ConnectError::Unreachable { servers, reason },
    }
}

/// Returns the text of an error and of its causes, in one line.
pub(crate) fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_denied_until_the_client_reconnects() {
        let denied = watch::Sender::new(Vec::new());
        let text = |number: usize| format!("Permissions Violation for Publish to \"{number}\"");
        for number in (0..MAX_DENIALS * 2).chain([0, 1]) {
            note(&Event::ServerError(ServerError::Other(text(number))), &denied);
        }
        assert_eq!(*denied.borrow(), (0..MAX_DENIALS).map(text).collect::<Vec<_>>());
        note(&Event::ServerError(ServerError::Other("other".to_owned())), &denied);
        assert_eq!(denied.borrow().len(), MAX_DENIALS);
        note(&Event::Connected, &denied);
        assert_eq!(*denied.borrow(), Vec::<String>::new());
    }

    #[test]
    fn only_refusals_that_come_before_the_vote_are_definite() {
        let refusal = |code: u64| -> Refusal {
            serde_json::from_value(serde_json::json!({ "code": 503, "err_code": code })).unwrap()
        };
        for code in [10023, 10047, 10054, 10071, 10109] {
            assert!(refusal(code).is_definite(), "{code}");
        }
        // The store of the leader has failed; those of the others may not have.
        assert!(!refusal(10077).is_definite());
        assert!(!refusal(0).is_definite());
    }
}
