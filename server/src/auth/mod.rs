//! The policy: who may read and publish what. It knows requests, and no responses.
//!
//! Everything is open to this machine, and only to it. A request counts as local if it arrived on a
//! loopback address, calls the server by a loopback name, has no header of a proxy, and does not come
//! from a page of another origin. So neither a page that rebinds its name to 127.0.0.1 nor the clients
//! of a proxy can read a developer's server. Everyone else may read public topics, and what a token
//! permits.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `caller` | the caller of a request: local or not, and its token |
//! | `origin` | hosts and origins, and what counts as local |
//! | `token` | JSON Web Tokens |
//! | `client_address` | the address of a client behind trusted proxies |

mod caller;
mod client_address;
mod origin;
mod token;

use std::{net::IpAddr, sync::Arc};

use axum::http::request::Parts;
use waterclock::{
    event::Topic,
    pattern::{Pattern, Patterns},
};
use waterclock_axum::{Denied, Expiry, Policy, Publisher};

pub use caller::{Caller, ReadPermission};
pub use client_address::TrustedProxy;
pub use origin::{AllowedHost, CorsOrigin, NotLocal};
pub use token::{InvalidKey, InvalidToken, Token, TokenVerifier};

/// The cookie that may carry a token where no header can be set, as with `EventSource`.
pub const COOKIE_NAME: &str = "waterclock_token";

/// The rules, as the options set them.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Patterns of the topics that anyone may read.
    pub public_topics: Arc<[Pattern]>,
    /// Host names that count as loopback names.
    pub allowed_hosts: Arc<[AllowedHost]>,
    /// Origins whose pages may read like the server's own.
    pub cors_origins: Arc<[CorsOrigin]>,
    /// Verifier of tokens; `None` if no tokens are used.
    pub tokens: Option<Arc<TokenVerifier>>,
    /// Whether local requests need a token, too.
    pub is_token_required: bool,
    /// Proxies whose word on a client's address is trusted.
    pub trusted_proxies: Arc<[TrustedProxy]>,
}

/// A denied permission, with the reason.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {
    /// The token is not valid.
    #[error("The token is refused: {0}.")]
    InvalidToken(InvalidToken),
    /// The request has no token, and needs one.
    #[error(
        "A token is required: `Authorization: Bearer` with a JSON Web Token, or the cookie \
         `{COOKIE_NAME}`."
    )]
    MissingToken,
    /// The token does not list the topic.
    #[error("The token's `{claim}` does not list `{pattern}`. It lists {}.", list(listed))]
    NotListed {
        /// The claim that lists patterns.
        claim: &'static str,
        /// The topic or pattern that was asked for.
        pattern: String,
        /// The patterns that the claim lists.
        listed: Vec<Pattern>,
    },
    /// The topic is reserved for the server.
    #[error("Only the server itself publishes to `{}`. Use another topic.", Topic::CLOCK)]
    ReservedTopic,
    /// Only local requests may publish without a token.
    #[error("Only the server's own machine may publish, and the request is not local: {0}.")]
    PublishNotLocal(NotLocal),
    /// Only local requests may read the topic without a token.
    #[error("This topic is not public, and the request is not local: {0}.")]
    ReadNotLocal(NotLocal),
    /// The resource is for local requests only.
    #[error("This is for the server's own machine only, and the request is not local: {0}.")]
    NotLocal(NotLocal),
    /// A page of another origin asks for a WebSocket.
    #[error(
        "A page of the origin {0:?} may not open a WebSocket here, since it is not the server's own \
         (`Host` differs). The option --cors-origin permits other origins."
    )]
    ForeignOrigin(String),
}

impl From<AuthError> for Denied {
    fn from(error: AuthError) -> Self {
        let detail = error.to_string();
        match error {
            AuthError::InvalidToken(_) => Self::InvalidToken(detail),
            AuthError::MissingToken => Self::Unauthenticated(detail),
            AuthError::NotListed { .. } | AuthError::ReservedTopic => Self::Forbidden(detail),
            AuthError::PublishNotLocal(_)
            | AuthError::ReadNotLocal(_)
            | AuthError::NotLocal(_)
            | AuthError::ForeignOrigin(_) => Self::Untrusted(detail),
        }
    }
}

fn list(patterns: &[Pattern]) -> String {
    let list: Vec<_> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
    if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
}

/// The caller that the layer in front of the routes has identified.
fn caller(request: &Parts) -> Result<&Caller, Denied> {
    let caller = request.extensions.get::<Arc<Caller>>().map(AsRef::as_ref);
    caller.ok_or_else(|| Denied::Forbidden("The caller was not identified.".to_owned()))
}

impl Policy for Access {
    fn may_read(&self, request: &Parts, topics: &Patterns) -> Result<Expiry, Denied> {
        Ok(caller(request)?.may_read(topics, self)?)
    }

    fn may_publish(&self, request: &Parts, topic: &Topic) -> Result<Publisher, Denied> {
        Ok(caller(request)?.may_publish(topic, self)?)
    }

    fn may_publish_some(&self, request: &Parts) -> bool {
        caller(request).is_ok_and(Caller::may_publish_some)
    }

    fn may_open_websocket(&self, request: &Parts) -> Result<(), Denied> {
        match self.foreign_origin(request) {
            None => Ok(()),
            Some(origin) => {
                let origin = String::from_utf8_lossy(origin.as_bytes()).into_owned();
                Err(AuthError::ForeignOrigin(origin).into())
            }
        }
    }

    fn client_address(&self, request: &Parts) -> IpAddr {
        client_address::client_address(request, &self.trusted_proxies)
    }
}
