//! The settings of the connection.

use std::{path::PathBuf, time::Duration};

/// The address of the servers, and the demands on them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URLs of the servers: `nats://host:4222`, or `tls://host:4222`. A URL may contain a user and a
    /// password, or a token.
    pub servers: Vec<String>,
    /// The name of the stream. It is created if it does not exist.
    pub stream: String,
    /// The number of servers that must keep each entry; 1, 3 or 5.
    pub replicas: usize,
    /// A file of credentials (`.creds`).
    pub credentials: Option<PathBuf>,
    /// A file of certificates in PEM to trust in place of those that the system trusts.
    pub ca: Option<PathBuf>,
    /// URLs of the servers' monitoring, such as `http://host:8222`.
    pub monitoring: Vec<String>,
    /// `true` to accept servers that write entries to the disk only from time to time.
    pub allow_unsafe_sync: bool,
    /// Time in which the connection must be made and the servers checked.
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: vec!["nats://127.0.0.1:4222".to_owned()],
            stream: "waterclock".to_owned(),
            replicas: 3,
            credentials: None,
            ca: None,
            monitoring: Vec::new(),
            allow_unsafe_sync: false,
            timeout: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// Returns the subject on which entries are published.
    pub(crate) fn subject(&self) -> String {
        format!("{}.entries", self.stream)
    }
}
