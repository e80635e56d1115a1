//! The configuration of the policy.

use std::sync::Arc;

use waterclock::pattern::Pattern;

use super::{
    client_address::TrustedProxy,
    origin::{AllowedHost, CorsOrigin},
    verifier::TokenVerifier,
};

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
    /// `true` if local requests need a token, too.
    pub is_token_required: bool,
    /// Proxies whose word on a client's address is trusted.
    pub trusted_proxies: Arc<[TrustedProxy]>,
}
