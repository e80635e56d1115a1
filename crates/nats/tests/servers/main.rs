//! The sequencer with real servers of NATS, which `NATS_SERVER` or `PATH` must have.
//! Without them, the tests are skipped, unless `NATS_REQUIRED` is set.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails a test")]

mod cluster;
mod nodes;
mod order;
mod server;
mod setup;
mod support;
