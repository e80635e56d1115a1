//! The options of a node of a cluster.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use waterclock::{cluster::NodeSettings, event_log::Retention};
use waterclock_nats::NatsSettings;

use super::duration;

/// The options of a node of a cluster.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Several nodes")]
pub struct ClusterOptions {
    /// Servers of NATS JetStream, such as `nats://a,nats://b,nats://c`. All nodes with the same
    /// servers and stream have one order of events
    #[arg(
        id = "cluster",
        long,
        env = "WATERCLOCK_CLUSTER",
        value_name = "URL",
        value_delimiter = ','
    )]
    servers: Vec<String>,

    /// Name of this node [default: its first address]
    #[arg(long, env = "WATERCLOCK_NODE", value_name = "NAME", requires = "cluster")]
    node: Option<String>,

    /// Name of the stream. Each cluster needs one of its own
    #[arg(
        long,
        env = "WATERCLOCK_CLUSTER_STREAM",
        value_name = "NAME",
        default_value = "waterclock"
    )]
    cluster_stream: String,

    /// Number of NATS servers that keep each event: 1, 3 or 5
    #[arg(long, env = "WATERCLOCK_CLUSTER_REPLICAS", value_name = "COUNT", default_value_t = 3)]
    cluster_replicas: usize,

    /// Monitoring of the NATS servers, such as `http://a:8222`, to check that they write to the
    /// disk before they acknowledge. May be repeated
    #[arg(long, env = "WATERCLOCK_CLUSTER_MONITORING", value_name = "URL", value_delimiter = ',')]
    cluster_monitoring: Vec<String>,

    /// Accept NATS servers that acknowledge events before these are on their disks. A power failure
    /// may then lose events that publishers believe to be stored
    #[arg(long, env = "WATERCLOCK_CLUSTER_UNSAFE_SYNC")]
    cluster_unsafe_sync: bool,

    /// File with the credentials for NATS (.creds)
    #[arg(long, env = "WATERCLOCK_CLUSTER_CREDENTIALS", value_name = "FILE")]
    cluster_credentials: Option<PathBuf>,

    /// File with the certificates to trust for tls:// URLs, in PEM
    /// [default: those that the system trusts]
    #[arg(long, env = "WATERCLOCK_CLUSTER_CA", value_name = "FILE")]
    cluster_ca: Option<PathBuf>,

    /// Time for which a publish waits for the cluster. Then it is answered with 503. NATS may need
    /// some seconds for a new leader
    #[arg(
        long,
        env = "WATERCLOCK_CLUSTER_TIMEOUT",
        value_name = "TIME",
        default_value = "15s",
        value_parser = duration
    )]
    cluster_timeout: Duration,

    /// Make the log of a single process in the data folder the beginning of a new cluster, with the
    /// same ids. Does nothing later
    #[arg(long, env = "WATERCLOCK_CLUSTER_IMPORT", requires = "cluster")]
    cluster_import: bool,
}

impl ClusterOptions {
    /// The settings of the connection to NATS; `None` for a single process.
    pub fn nats(&self) -> Option<NatsSettings> {
        let servers: Vec<_> = self.servers.iter().map(|url| with_scheme(url)).collect();
        (!servers.is_empty()).then(|| NatsSettings {
            servers,
            stream: self.cluster_stream.clone(),
            replicas: self.cluster_replicas,
            credentials: self.cluster_credentials.clone(),
            ca: self.cluster_ca.clone(),
            monitoring: self.cluster_monitoring.clone(),
            allow_unsafe_sync: self.cluster_unsafe_sync,
            timeout: self.cluster_timeout,
        })
    }

    /// The settings of this node, whose first address is `address`.
    pub fn node(&self, retention: Retention, address: SocketAddr) -> NodeSettings {
        let name = self.node.clone().unwrap_or_else(|| address.to_string());
        // With the wrong folder, a node must not begin the cluster with nothing.
        let may_begin = !self.cluster_import;
        NodeSettings { name, retention, timeout: self.cluster_timeout, may_begin }
    }

    /// The files that the options name, with the names of the options.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let credentials = self.cluster_credentials.as_deref();
        let files =
            [("cluster-credentials", credentials), ("cluster-ca", self.cluster_ca.as_deref())];
        files.into_iter().filter_map(|(name, file)| Some((name, file?)))
    }

    /// Returns `true` if the log of a single process becomes the beginning of the cluster.
    pub fn imports(&self) -> bool {
        self.cluster_import
    }
}

/// Returns a URL with the scheme of NATS, which lists often leave out.
fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("nats://{url}") }
}
