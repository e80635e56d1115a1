//! The configuration of the policy.

use std::sync::Arc;

use waterclock::pattern::Pattern;
use waterclock_axum::PublishRate;

use super::{
    client_address::TrustedProxy,
    origin::{AllowedHost, CorsOrigin},
    rule::TopicRule,
    verifier::TokenVerifier,
};

/// The rules, as the options set them.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Patterns of the topics that anyone may read.
    pub public_topics: Arc<[Pattern]>,
    /// Rules for the topics of patterns, in order.
    pub rules: Arc<[TopicRule]>,
    /// Host names that count as loopback names.
    pub allowed_hosts: Arc<[AllowedHost]>,
    /// Origins whose pages may read like the server's own.
    pub cors_origins: Arc<[CorsOrigin]>,
    /// Verifier of tokens; `None` if no tokens are used.
    pub tokens: Option<Arc<TokenVerifier>>,
    /// `true` if local requests need a token, too.
    pub is_token_required: bool,
    /// Rate limit of each client's publishes; `None` for that of the event routes.
    pub publish_rate: Option<Arc<PublishRate>>,
    /// Number of the rules, which each [replacement](super::SharedAccess::replace) counts on.
    pub revision: u64,
    /// Proxies whose word on a client's address is trusted.
    pub trusted_proxies: Arc<[TrustedProxy]>,
}
