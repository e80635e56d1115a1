//! The order of a Waterclock cluster, on one stream of NATS JetStream.
//!
//! [`NatsSequencer`] proposes the entries of its node to a stream. The stream gives the entries of
//! all nodes one order, keeps them on the disks of several servers, and sends them to each node.
//! Only the servers of NATS vote and lead; the nodes of Waterclock do not.
//!
//! ```no_run
//! use std::{path::Path, time::Duration};
//!
//! use waterclock::{
//!     Hub, Retention, SqliteLog, Timestamp,
//!     cluster::{ClusterLog, NodeSettings},
//! };
//! use waterclock_nats::{NatsSequencer, NatsSettings};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let server = |name: &str, port: u16| format!("http://{name}:{port}");
//! let sequencer = NatsSequencer::connect(NatsSettings {
//!     servers: vec!["nats://n1:4222".into(), "nats://n2:4222".into(), "nats://n3:4222".into()],
//!     monitoring: vec![server("n1", 8222), server("n2", 8222), server("n3", 8222)],
//!     ..NatsSettings::default()
//! })
//! .await?;
//! // The servers need some seconds to elect a new leader.
//! let timeout = Duration::from_secs(15);
//! let (name, retention) = ("a".into(), Retention::default());
//! let node = NodeSettings { name, retention, timeout, may_begin: true };
//! let log = ClusterLog::join(SqliteLog::open_mirror(Path::new("data"))?, sequencer, node).await?;
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
//! | `checks` | the checks while a node runs that has begun without them |
//! | `sequencer` | the sequencer |
//! | `entries` | the consumer that reads entries in order |
//! | `messenger` | the messages of nodes to each other |

mod api;
mod checks;
mod connect;
mod entries;
mod error;
mod messenger;
mod monitoring;
mod sequencer;
mod settings;
mod setup;

pub use error::ConnectError;
pub use sequencer::NatsSequencer;
pub use settings::NatsSettings;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
