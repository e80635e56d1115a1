//! The order of a Waterclock cluster, on one stream of NATS JetStream.
//!
//! [`NatsSequencer`] proposes the entries of all nodes to a stream, which gives them their order and
//! keeps them on the disks of several servers. Each node reads them back from there. NATS is the
//! only part of a cluster that decides anything: the nodes themselves neither vote nor lead.
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//!
//! use waterclock::{
//!     Hub, Retention, Timestamp,
//!     cluster::{ClusterLog, Membership},
//! };
//! use waterclock_nats::{NatsSequencer, Settings};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = |name: &str, port: u16| format!("http://{name}:{port}");
//! let sequencer = NatsSequencer::connect(Settings {
//!     servers: vec!["nats://n1:4222".into(), "nats://n2:4222".into(), "nats://n3:4222".into()],
//!     monitoring: vec![server("n1", 8222), server("n2", 8222), server("n3", 8222)],
//!     ..Settings::default()
//! })
//! .await?;
//! let membership =
//!     Membership { retention: Retention::default(), timeout: Duration::from_secs(5) };
//! let log = ClusterLog::join(Path::new("data"), sequencer, membership).await?;
//! let hub = Hub::new(log, Timestamp::now);
//! # Ok(())
//! # }
//! ```
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `settings` | the address of the servers and the demands on them |
//! | `error` | the reasons for which the cluster cannot be used |
//! | `setup` | the rules for servers and their stream, as pure functions |
//! | `monitoring` | the servers as their monitoring describes them |
//! | `api` | the connection, and requests over it |
//! | `connect` | connecting, with all checks |
//! | `sequencer` | the sequencer |
//! | `entries` | the consumer that reads entries in order |

mod api;
mod connect;
mod entries;
mod error;
mod monitoring;
mod sequencer;
mod settings;
mod setup;

pub use error::ConnectError;
pub use sequencer::NatsSequencer;
pub use settings::Settings;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
