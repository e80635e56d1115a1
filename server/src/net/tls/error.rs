//! Errors of the set-up of TLS.

use std::path::PathBuf;

use thiserror::Error;
use tokio_rustls::rustls::{self, pki_types::pem};

/// A failure to set up TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read or written, or lacks a certificate or key.
    #[error("{} cannot be used: {why}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The cause.
        why: pem::Error,
    },
    /// The certificate and the key do not match.
    #[error("{} and {} cannot be used together: {why}", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        why: rustls::Error,
    },
    /// The self-signed certificate could not be created.
    #[error("the self-signed certificate could not be created: {0}")]
    SelfSigned(#[from] rcgen::Error),
    /// The client of an authority could not be created.
    #[error("the authority of --acme-domain cannot be asked: {0}")]
    Client(String),
    /// No version of TLS is available.
    #[error("TLS is not available: {0}")]
    Config(#[from] rustls::Error),
}
