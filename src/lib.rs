//! The core of a live-event server: events in one durable order, delivered to any number of
//! readers, each of which can resume after any event.
//!
//! A `Hub` accepts published events, appends them to an event log, and delivers them to
//! subscribers. Replay and live events come by the same loop, so a reader that reconnects with its
//! last id neither loses nor repeats an event. If the log no longer has all events after that id,
//! the reader receives a [`Gap`](notice::Gap) instead of a silent loss.
//!
//! The crate knows no HTTP and no DOM. `waterclock-axum` serves a hub over Server-Sent Events,
//! WebSocket and polling.
//!
#![cfg_attr(feature = "hub", doc = "```")]
#![cfg_attr(not(feature = "hub"), doc = "```ignore")]
//! use waterclock::{Cursor, Delivery, Draft, Hub, Pattern};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let hub = Hub::in_memory();
//! let first = hub.publish(Draft::new("orders.eu".parse()?, "order 7")).await?;
//! hub.publish(Draft::new("orders.us".parse()?, "order 8")).await?;
//!
//! let orders = "orders.>".parse::<Pattern>()?;
//! let mut subscriber = hub.subscribe(orders.into(), Cursor::After(first.event().id));
//! match subscriber.next().await? {
//!     Delivery::Events(batch) => assert_eq!(batch[0].event().data, "order 8"),
//!     other => panic!("no event: {other:?}"),
//! }
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! # Layout
//!
//! | module | contents | feature |
//! |---|---|---|
//! | [`event`] | drafts and events, their topics and names | |
//! | [`id`] | event ids, and the cursors from which readers continue | |
//! | [`pattern`] | patterns, by which readers select topics | |
//! | [`timestamp`] | the time of events | |
//! | [`sse`] | encoder and parser of `text/event-stream` | |
//! | [`notice`] | the messages of a stream that are not events: `hello`, `gap`, `heartbeat`, … | |
//! | [`transport`] | the four protocols for reading events | |
//! | [`offset`] | the offset between a client's clock and the server's | |
//! | `hub` | publishing and subscribing | `hub` |
//! | `event_log` | the stores of accepted events: in memory, or in SQLite | `hub`, `sqlite` |
//! | `cluster` | the event log of one of several nodes | `sqlite` |
//! | `clock` | the publisher of the built-in topic `clock` | `hub` |
//! | `properties` | the properties that proptest and the fuzz targets check | `properties` |
//!
//! The main types are re-exported at the root.
//!
//! # Features
//!
//! None is enabled by default. Without features the crate builds for wasm32.
//!
//! - `hub`: the hub, the clock and the event log in memory, on tokio.
//! - `sqlite`: the durable event log. It implies `hub`, and compiles SQLite, in C.
//! - `properties`: checks for fuzzing, of no use to other programs.

pub mod event;
pub mod id;
pub mod notice;
pub mod offset;
pub mod pattern;
pub mod sse;
pub mod timestamp;
pub mod trace;
pub mod transport;

#[cfg(feature = "hub")]
pub mod clock;
#[cfg(feature = "sqlite")]
pub mod cluster;
#[cfg(feature = "hub")]
pub mod event_log;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "hub")]
mod matcher;
#[cfg(any(test, feature = "properties"))]
pub mod properties;

pub use event::{Draft, Event, IdempotencyKey, Name, Topic};
#[cfg(feature = "sqlite")]
pub use event_log::SqliteLog;
#[cfg(feature = "hub")]
pub use event_log::{EventLog, EventLogError, MemoryLog, Retention, RetentionRule};
#[cfg(feature = "hub")]
pub use hub::{
    Batch, Delivery, DraftChain, Format, Frame, Hub, PublishError, Publishing, Subscriber,
};
pub use id::{Cursor, Epoch, EventId};
pub use pattern::{Pattern, Patterns};
pub use timestamp::Timestamp;

/// Compiles the example of the guide to clients.
#[cfg(doctest)]
#[doc = include_str!("../docs/clients.md")]
struct Clients;

/// Runs the example of the README.
#[cfg(all(doctest, feature = "hub"))]
#[doc = include_str!("README.md")]
struct Readme;
