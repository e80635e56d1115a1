//! The policy: who may read and publish what. It knows requests, and no responses.
//!
//! Everything is open to this machine, and only to it. A request counts as local if it arrived on a
//! loopback address, calls the server by a loopback name, has no header of a proxy, and does not
//! come from a page of another origin. So neither a page that rebinds its name to 127.0.0.1 nor the
//! clients of a proxy can read a developer's server. Everyone else may read public topics, and what
//! a token permits.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `access` | the rules, as the options set them |
//! | `rule` | rules for the topics of patterns |
//! | `shared` | the rules that apply now, which a reload replaces |
//! | `policy` | their application to requests |
//! | `caller` | the caller of a request: local or not, and its token |
//! | `origin` | hosts and origins, and what counts as local |
//! | `verifier` | all issuers of tokens, and the choice among them |
//! | `issuer` | an issuer: its keys, and the bounds of its tokens |
//! | `refresh` | the task that keeps a key set fresh |
//! | `key_set` | an issuer's key set at a URL, and the copy of it |
//! | `jwks` | the request for a key set |
//! | `key` | the keys in files and key sets |
//! | `token` | JSON Web Tokens, their claims and errors |
//! | `error` | denied permissions |
//! | `client_address` | the address of a client behind trusted proxies |

mod access;
mod caller;
mod client_address;
mod error;
mod issuer;
mod jwks;
mod key;
mod key_set;
mod origin;
mod policy;
mod refresh;
mod rule;
mod shared;
mod token;
mod verifier;

pub use access::Access;
pub use caller::{Caller, ReadPermission};
pub use client_address::TrustedProxy;
pub(crate) use client_address::client_address;
pub use error::AuthError;
pub use issuer::{IssuerError, IssuerSettings, MAX_BOUNDS};
pub use jwks::JwksPlace;
pub use key::InvalidKey;
pub(crate) use key::secret_of;
pub use origin::{AllowedHost, CorsOrigin, NotLocal};
pub use rule::{Audience, TopicRule};
pub use shared::SharedAccess;
pub use token::{InvalidToken, Token, UnknownKey, claimed_permissions};
pub use verifier::{NewerKeys, TokenVerifier};
