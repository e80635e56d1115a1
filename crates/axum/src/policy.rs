//! The hook that decides who may read and publish what.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::ConnectInfo,
    http::{
        HeaderValue, StatusCode,
        header::{HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE},
        request::Parts,
    },
};
use waterclock::{event::Topic, hub::TopicSet, pattern::Patterns, timestamp::Timestamp};

use crate::{
    limits::MAX_DATA,
    problem::{AttackSign, Problem},
    publish_rate::PublishRate,
    standing::{Asked, StandingPermission},
};

/// The time at which a permission ends; `None` for a permission that does not expire. A stream says
/// goodbye at that time.
pub type Expiry = Option<Timestamp>;

/// Decides who may read and publish what.
///
/// The request's head is all that a policy gets. A layer in front of the routes can identify the
/// caller once, and leave the result in the request's extensions.
///
/// A policy that lets a cookie permit publishing must check `Origin`, since browsers send cookies
/// with the requests of any page, and publishing needs no preflight request.
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
///         let header = request.headers.get("authorization").and_then(|value| value.to_str().ok());
///         match header.and_then(|value| value.strip_prefix("Bearer ")) {
///             Some(secret) if secret == self.0 => Ok(Publisher::new("backend")),
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

    /// Decides which of the topics that match `topics` a request may list with their figures, and
    /// until when: those of the returned set. The default is all of them, if the request may read
    /// all.
    ///
    /// # Errors
    ///
    /// If it may list none.
    fn may_list(&self, request: &Parts, topics: &Patterns) -> Result<(TopicSet, Expiry), Denied> {
        Ok((topics.clone().into(), self.may_read(request, topics)?))
    }

    /// Decides whether a request may publish to a topic. The default denies it: a server can always
    /// publish by calling its hub. Over a WebSocket this is asked for each publish, with the head
    /// of the request that opened it.
    ///
    /// # Errors
    ///
    /// If it may not.
    fn may_publish(&self, request: &Parts, topic: &Topic) -> Result<Publisher, Denied> {
        let (_, _) = (request, topic);
        Err(Denied::Forbidden(
            "Nobody may publish here over HTTP, unless the app's `Policy` permits it.".to_owned(),
        ))
    }

    /// Returns `false` if the request may publish to no topic at all. Its WebSocket then accepts
    /// short messages only, which saves memory.
    fn may_publish_some(&self, request: &Parts) -> bool {
        let _ = request;
        true
    }

    /// Returns what decides again about a permission that was just given, once the policy has
    /// changed ([`PolicyChanges`](crate::PolicyChanges)). Open streams and uploads end if it is
    /// taken away. The default is for policies that do not change.
    fn standing(&self, request: &Parts, asked: Asked<'_>) -> Option<StandingPermission> {
        let (_, _) = (request, asked);
        None
    }

    /// Returns the limits on publishes to a topic. The default are those of all topics.
    fn topic_limits(&self, topic: &Topic) -> TopicLimits {
        let _ = topic;
        TopicLimits::default()
    }

    /// Decides whether a request may open a WebSocket. Browsers let any page open one anywhere (RFC
    /// 6455, 10.2), so the server must check `Origin`. The default allows requests without one, and
    /// those whose `Origin` matches `Host`.
    ///
    /// # Errors
    ///
    /// If it may not.
    fn may_open_websocket(&self, request: &Parts) -> Result<(), Denied> {
        let host = request.headers.get(HOST);
        match request.headers.get(ORIGIN) {
            Some(origin) if !is_same_host(origin, host) => Err(Denied::Untrusted(format!(
                "A page of the origin {origin:?} may not open a WebSocket here: its `Host` differs."
            ))),
            _ => Ok(()),
        }
    }

    /// The address by which a client is counted towards the limits per address, or `None` if it is
    /// unknown and only the total limits apply. The default is that of the connection, as
    /// `into_make_service_with_connect_info::<SocketAddr>` provides it. For IPv6, all addresses of
    /// a /64 count as one client.
    fn client_address(&self, request: &Parts) -> Option<IpAddr> {
        let info = request.extensions.get::<ConnectInfo<SocketAddr>>();
        info.map(|ConnectInfo(address)| address.ip())
    }
}

/// The default policy: anyone may read everything, and nobody may publish over HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOnly;

impl Policy for ReadOnly {
    fn may_read(&self, _: &Parts, _: &Patterns) -> Result<Expiry, Denied> {
        Ok(None)
    }

    fn may_publish_some(&self, _: &Parts) -> bool {
        false
    }
}

impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn may_read(&self, request: &Parts, topics: &Patterns) -> Result<Expiry, Denied> {
        (**self).may_read(request, topics)
    }

    fn may_list(&self, request: &Parts, topics: &Patterns) -> Result<(TopicSet, Expiry), Denied> {
        (**self).may_list(request, topics)
    }

    fn may_publish(&self, request: &Parts, topic: &Topic) -> Result<Publisher, Denied> {
        (**self).may_publish(request, topic)
    }

    fn may_publish_some(&self, request: &Parts) -> bool {
        (**self).may_publish_some(request)
    }

    fn standing(&self, request: &Parts, asked: Asked<'_>) -> Option<StandingPermission> {
        (**self).standing(request, asked)
    }

    fn topic_limits(&self, topic: &Topic) -> TopicLimits {
        (**self).topic_limits(topic)
    }

    fn may_open_websocket(&self, request: &Parts) -> Result<(), Denied> {
        (**self).may_open_websocket(request)
    }

    fn client_address(&self, request: &Parts) -> Option<IpAddr> {
        (**self).client_address(request)
    }
}

/// Maps all addresses that one client usually has to one: for IPv6, those of a /64.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        v4 @ IpAddr::V4(_) => v4,
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

/// Limits on publishes to one topic.
#[derive(Clone, Debug)]
pub struct TopicLimits {
    /// Maximum length of an event's data, in bytes: at most [`MAX_DATA`].
    pub max_data: usize,
    /// The rate limit in place of [`Settings::publish_rate`](crate::Settings), shared by the topics
    /// that have it.
    pub publish_rate: Option<Arc<PublishRate>>,
}

impl Default for TopicLimits {
    fn default() -> Self {
        Self { max_data: MAX_DATA, publish_rate: None }
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
    /// The caller's credentials cannot be checked at present (503). The client may retry.
    #[error("{0}")]
    Unavailable(String),
}

/// Seconds after which a client may retry whose credentials could not be checked.
const CHECK_RETRY: u64 = 5;

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
                Self::new(StatusCode::FORBIDDEN, detail).with_attack_sign(AttackSign::Untrusted)
            }
            Denied::Unavailable(detail) => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
                .with_header(RETRY_AFTER, HeaderValue::from(CHECK_RETRY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn one_client_has_a_whole_64() {
        let of = |text: &str| client_of(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
    }

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
