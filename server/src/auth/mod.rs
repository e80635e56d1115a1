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
//! | `token` | JSON Web Tokens |
//! | `error` | denied permissions |
//! | `client_address` | the address of a client behind trusted proxies |

mod access;
mod caller;
mod client_address;
mod error;
mod origin;
mod policy;
mod rule;
mod shared;
mod token;

pub use access::Access;
pub use caller::{Caller, ReadPermission};
pub use client_address::TrustedProxy;
pub(crate) use client_address::client_address;
pub use error::AuthError;
pub use origin::{AllowedHost, CorsOrigin, NotLocal};
pub use rule::{Audience, TopicRule};
pub use shared::SharedAccess;
pub use token::{InvalidKey, InvalidToken, Token, TokenVerifier};
