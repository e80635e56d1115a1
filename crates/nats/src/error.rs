//! The reasons for which a cluster cannot be used.

use std::{io, path::PathBuf, time::Duration};

/// A reason for which a cluster cannot be used. Each text is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name of the stream has other characters than a name may have.
    #[error(
        "{0:?} cannot be the name of a stream: use letters, digits, hyphens and underscores only"
    )]
    Name(String),
    /// Nothing tells whether the servers write to the disk.
    #[error(
        "say where the servers' monitoring is with --cluster-monitoring http://host:8222, so that \
         their sync_interval can be checked, or accept the loss of acknowledged events in a power \
         failure with --cluster-unsafe-sync"
    )]
    NoMonitoring,
    /// A server's monitoring does not answer.
    #[error(
        "the monitoring at {url} does not answer ({reason}): set `http_port: 8222` in the \
         server's configuration, or correct the URL"
    )]
    Monitoring {
        /// The URL in the settings.
        url: String,
        /// The failure.
        reason: String,
    },
    /// Fewer servers are monitored than shall keep each entry.
    #[error(
        "the monitoring URLs are of {servers} server(s), but {replicas} must keep each entry: name the \
         monitoring of all servers of the cluster"
    )]
    TooFewMonitored {
        /// The number of different servers.
        servers: usize,
        /// The number that is needed.
        replicas: usize,
    },
    /// The monitoring is of servers that are not in the same cluster.
    #[error(
        "the server {server} is in the cluster {cluster:?}, another one in {expected:?}: name \
         servers of one cluster"
    )]
    OtherCluster {
        /// The name of a server.
        server: String,
        /// The name of its cluster.
        cluster: String,
        /// The name of the others' cluster.
        expected: String,
    },
    /// The monitoring is of other servers than those that keep the stream.
    #[error(
        "the server {0} keeps the stream, but none of the monitoring URLs is its own: add its \
         monitoring"
    )]
    Unmonitored(String),
    /// A server writes entries to the disk later than it acknowledges them.
    #[error(
        "the server {0} acknowledges entries before they are on its disk: set `sync_interval: \
         always` in the section jetstream of its configuration"
    )]
    UnsafeSync(String),
    /// A server is too old.
    #[error("the server {server} is NATS {version}: install version 2.14 or later")]
    OldServer {
        /// The name of the server.
        server: String,
        /// Its version.
        version: String,
    },
    /// A server accepts small messages only.
    #[error(
        "the server {server} accepts messages of {max_payload} bytes only: set max_payload to 1MB \
         or more"
    )]
    SmallPayload {
        /// The name of the server.
        server: String,
        /// Its limit, in bytes.
        max_payload: usize,
    },
    /// The clock of a server or of this machine is wrong.
    #[error(
        "the clock of the server {server} is {} s apart from this machine's: synchronize the \
         clocks with NTP",
        offset.as_secs()
    )]
    Clocks {
        /// The name of the server.
        server: String,
        /// The difference of the clocks.
        offset: Duration,
    },
    /// No server can be reached.
    #[error("no NATS server can be reached at {servers} ({reason}): check the URLs")]
    Unreachable {
        /// The URLs in the settings, without passwords.
        servers: String,
        /// The failure.
        reason: String,
    },
    /// The file of credentials cannot be used.
    #[error("the credentials in {} cannot be used: {reason}", path.display())]
    Credentials {
        /// The file in the settings.
        path: PathBuf,
        /// The failure.
        reason: io::Error,
    },
    /// The file of certificates cannot be used.
    #[error("the certificates in {} cannot be used: {reason}", path.display())]
    Certificates {
        /// The file in the settings.
        path: PathBuf,
        /// The failure.
        reason: String,
    },
    /// The certificate of a server cannot be verified.
    #[error(
        "the certificate of a server at {servers} cannot be verified ({reason}): name the \
         certificates to trust, and use URLs with the names that the certificate has"
    )]
    Untrusted {
        /// The URLs in the settings, without passwords.
        servers: String,
        /// The failure.
        reason: String,
    },
    /// The servers refuse the connection.
    #[error(
        "NATS refuses the connection ({0}): check the credentials, and the users in its \
         configuration"
    )]
    Refused(String),
    /// The servers do not know JetStream.
    #[error(
        "JetStream is not enabled: add `jetstream {{ sync_interval: always }}` to the \
         configuration of each server, and enable it for the account"
    )]
    NoJetStream,
    /// The user lacks a permission.
    #[error(
        "NATS denies a permission ({0}): allow the user to publish to \"$JS.API.>\" and \
         \"{1}\", and to subscribe to \"_INBOX.>\""
    )]
    Permission(String, String),
    /// The server is alone, and more than one shall keep each entry.
    #[error(
        "the server {server} is alone, but {replicas} must keep each entry: add a section cluster \
         to the configuration of each server"
    )]
    NotClustered {
        /// The name of the server.
        server: String,
        /// The number of servers that must keep each entry.
        replicas: usize,
    },
    /// The cluster has fewer servers than shall keep each entry.
    #[error(
        "the cluster has too few servers with free room to keep each entry on {replicas} of them \
         ({reason}): add servers, or use fewer replicas"
    )]
    TooFewServers {
        /// The number that is needed.
        replicas: usize,
        /// JetStream's words.
        reason: String,
    },
    /// Another program's stream has the name.
    #[error(
        "the stream {0:?} exists, and was not made by Waterclock: use another name for the \
         cluster's stream"
    )]
    ForeignStream(String),
    /// The stream is gone.
    #[error("there is no stream {0:?}: restore it, or start a node again, which makes a new one")]
    NoStream(String),
    /// The stream is kept by another number of servers.
    #[error(
        "the stream {stream:?} has {actual} replica(s) instead of {replicas}: change them with \
         `nats stream edit {stream} --replicas {replicas}`, or use the number that it has"
    )]
    Replicas {
        /// The name of the stream.
        stream: String,
        /// The number in the settings.
        replicas: usize,
        /// The number of the stream.
        actual: String,
    },
    /// The stream was changed.
    #[error(
        "the stream {stream:?} has {setting} {actual} instead of {expected}: change it back, or use \
         another name for the cluster's stream"
    )]
    Stream {
        /// The name of the stream.
        stream: String,
        /// The name of the setting in JetStream's API.
        setting: &'static str,
        /// Its value, in JSON.
        actual: String,
        /// The value that it must have, in JSON.
        expected: String,
    },
    /// JetStream refuses a request.
    #[error("JetStream refuses to {action}: {reason}")]
    JetStream {
        /// The purpose of the request.
        action: &'static str,
        /// JetStream's words.
        reason: String,
        /// `true` if JetStream may do it later.
        may_pass: bool,
    },
    /// JetStream did not answer in time.
    #[error(
        "NATS does not {0} in time: check that most of the cluster's servers are up and connected \
         to each other, and that the user may publish to \"$JS.API.>\" and subscribe to \"_INBOX.>\""
    )]
    Silent(&'static str),
}

impl ConnectError {
    /// Returns `true` if a later attempt may succeed without a change of the set-up: something was
    /// away. All other errors say what must be changed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Monitoring { .. }
            | Self::Unreachable { .. }
            | Self::TooFewServers { .. }
            | Self::Silent(_) => true,
            Self::JetStream { may_pass, .. } => *may_pass,
            _ => false,
        }
    }
}
