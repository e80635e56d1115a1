//! What the commands that call a server have in common: credentials and URLs.
//!
//! | module | content |
//! |---|---|
//! | `credentials` | the server, the token, and the certificates to trust |
//! | `urls` | the URLs of a server, and the form of them that is shown |

mod credentials;
pub(crate) mod urls;

pub(crate) use credentials::server_url;
pub use credentials::{CredentialsError, ServerArgs};
