//! The hook that decides who may read and publish what.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{
        HeaderValue, StatusCode,
        header::{HOST, ORIGIN, WWW_AUTHENTICATE},
        request::Parts,
    },
};
use waterclock::{event::Topic, pattern::Patterns, timestamp::Timestamp};

use crate::problem::{Problem, Refusal};

/// The time at which a permission ends; `None` for a permission that does not expire. A stream says
/// goodbye at that time.
pub type Expiry = Option<Timestamp>;

/// Decides who may read and publish what.
///
/// The request's head is all that a policy gets. A layer in front of the routes can identify the
/// caller once, and leave the result in the request's extensions.
///
/// ```
/// use axum::http::request::Parts;
/// use waterclock::{event::Topic, pattern::Patterns};
/// use waterclock_axum::{Denied, Expiry, Policy, Publisher};
///
/// /// Lets anyone read, and the bearer of one secret publish.
/// struct OneSecret(&'static str);
///
/// impl Policy for OneSecret {
///     fn may_read(&self, _: &Parts, _: &Patterns) -> Result<Expiry, Denied> {
///         Ok(None)
///     }
///
///     fn may_publish(&self, request: &Parts, _: &Topic) -> Result<Publisher, Denied> {
///         match request.headers.get("authorization") {
///             Some(token) if token.as_bytes() == self.0.as_bytes() => {
///                 Ok(Publisher::new("backend"))
///             }
///             _ => Err(Denied::Unauthenticated("Publishing needs the secret.".to_owned())),
///         }
///     }
/// }
/// ```
pub trait Policy: Send + Sync + 'static {
    /// Decides whether a request may read the events of all the given topics, and until when.
    ///
    /// # Errors
    ///
    /// If it may not.
    fn may_read(&self, request: &Parts, topics: &Patterns) -> Result<Expiry, Denied>;

    /// Decides whether a request may publish to a topic. The default denies it: a server can always
    /// publish by calling its hub. Over a WebSocket this is asked for each publish, with the head
    /// of the request that opened it.
    ///
    /// # Errors
    ///
    /// If it may not.
    fn may_publish(&self, request: &Parts, topic: &Topic) -> Result<Publisher, Denied> {
        let (_, _) = (request, topic);
        Err(Denied::Forbidden("Nobody may publish here over HTTP.".to_owned()))
    }

    /// Returns `false` if the request may publish to no topic at all. Its WebSocket then accepts
    /// short messages only, which saves memory.
    fn may_publish_some(&self, request: &Parts) -> bool {
        let _ = request;
        true
    }

    /// Decides whether a request may open a WebSocket. Browsers let any page open one anywhere (RFC
    /// 6455, 10.2), so the server must check `Origin`. The default allows requests without one, and
    /// those whose origin is the host that they ask.
    ///
    /// # Errors
    ///
    /// If it may not.
    fn may_open_websocket(&self, request: &Parts) -> Result<(), Denied> {
        let host = request.headers.get(HOST);
        match request.headers.get(ORIGIN) {
            Some(origin) if !is_same_host(origin, host) => Err(Denied::Untrusted(format!(
                "A page of the origin {origin:?} may not open a WebSocket here."
            ))),
            _ => Ok(()),
        }
    }

    /// The address by which a client is counted towards the limits. The default is that of the
    /// connection, as `into_make_service_with_connect_info` provides it; without it, all clients
    /// count as one.
    fn client_address(&self, request: &Parts) -> IpAddr {
        let info = request.extensions.get::<ConnectInfo<SocketAddr>>();
        info.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip())
    }
}

/// The default policy: anyone may read everything, and nobody may publish over HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnly;

impl Policy for ReadOnly {
    fn may_read(&self, _: &Parts, _: &Patterns) -> Result<Expiry, Denied> {
        Ok(None)
    }
}

fn is_same_host(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let host = host.and_then(|host| host.to_str().ok());
    origin.zip(host).is_some_and(|((_, origin), host)| origin.eq_ignore_ascii_case(host))
}

/// A caller that may publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// Identity of the publisher. Idempotency keys of different publishers are independent.
    pub name: String,
    /// End of the permission.
    pub expires: Expiry,
    /// `true` if its publishes count towards [`Settings::publish_rate`](crate::Settings).
    pub is_rate_limited: bool,
}

impl Publisher {
    /// Creates a publisher whose permission does not expire, and whose rate is limited.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), expires: None, is_rate_limited: true }
    }
}

/// A denied permission. The text is a sentence for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The request has no credentials (401).
    #[error("{0}")]
    Unauthenticated(String),
    /// The request's token is not valid (401).
    #[error("{0}")]
    InvalidToken(String),
    /// The caller is known, and not allowed (403).
    #[error("{0}")]
    Forbidden(String),
    /// The request comes from an untrusted origin or address (403). It may be part of an attack.
    #[error("{0}")]
    Untrusted(String),
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let unauthorized = |detail, challenge| {
            // RFC 6750, 3.
            let challenge = HeaderValue::from_static(challenge);
            Self::new(StatusCode::UNAUTHORIZED, detail).with_header(WWW_AUTHENTICATE, challenge)
        };
        match denied {
            Denied::Unauthenticated(detail) => unauthorized(detail, "Bearer"),
            Denied::InvalidToken(detail) => unauthorized(detail, "Bearer error=\"invalid_token\""),
            Denied::Forbidden(detail) => Self::new(StatusCode::FORBIDDEN, detail),
            Denied::Untrusted(detail) => {
                Self::new(StatusCode::FORBIDDEN, detail).refused_as(Refusal::Untrusted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn by_default_a_page_of_another_host_may_not_open_a_websocket() {
        for (origin, expected) in [
            (None, true),
            (Some("https://clock.example"), true),
            (Some("http://CLOCK.example"), true),
            (Some("https://clock.example:8443"), false),
            (Some("https://evil.example"), false),
            (Some("null"), false),
        ] {
            let mut request = Request::get("/ws").header("host", "clock.example");
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let (request, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(ReadOnly.may_open_websocket(&request).is_ok(), expected, "{origin:?}");
        }
    }
}
