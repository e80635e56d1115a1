//! The stream itself: what an event is, how it is written on the wire, where it is kept, and
//! how it reaches its subscribers. It knows no HTTP and no DOM, so the server and the page share it.
//!
//! # Layout
//!
//! | module | what is there | needs |
//! |---|---|---|
//! | [`event`] | an [`Event`](event::Event), its topic and its name | |
//! | [`id`] | the [`EventId`](id::EventId), and the [`Cursor`](id::Cursor) that a reader asks for | |
//! | [`pattern`] | which topics are meant | |
//! | [`timestamp`] | points in time, as events carry them | |
//! | [`sse`] | the wire format: an encoder and a parser of `text/event-stream` | |
//! | [`notice`] | what a stream says besides events: `hello`, `gap`, `heartbeat`, `end`, `goodbye` | |
//! | [`transport`] | the four ways to read the log | |
//! | [`offset`] | how far the clocks of a client and the server are apart | |
//! | `event_log` | the stores of accepted events | feature `hub`; `SqliteLog`: feature `sqlite` |
//! | `hub` | takes publishes, appends them to the log, wakes the subscribers | feature `hub` |
//! | `clock` | the publisher of the built-in topic `clock` | feature `hub` |
//! | `properties` | what is true of any bytes, for tests and fuzzing | feature `properties` |
//!
//! Without features the crate builds for wasm32; `hub` brings tokio.

pub mod event;
pub mod id;
pub mod notice;
pub mod offset;
pub mod pattern;
pub mod sse;
pub mod timestamp;
pub mod transport;

/// The example in the documentation compiles.
#[cfg(doctest)]
#[doc = include_str!("../docs/clients.md")]
struct Clients;

#[cfg(feature = "hub")]
pub mod clock;
#[cfg(feature = "hub")]
pub mod event_log;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(any(test, feature = "properties"))]
pub mod properties;

pub use event::{Draft, Event, IdempotencyKey, Name, Topic};
#[cfg(feature = "sqlite")]
pub use event_log::SqliteLog;
#[cfg(feature = "hub")]
pub use event_log::{EventLog, EventLogError, MemoryLog, Retention};
#[cfg(feature = "hub")]
pub use hub::{Batch, Delivery, Format, Frame, Hub, PublishError, Publishing, Subscriber};
pub use id::{Cursor, Epoch, EventId};
pub use pattern::{Pattern, Patterns};
pub use timestamp::Timestamp;
