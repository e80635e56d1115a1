//! Several nodes of a cluster, on real servers of NATS, which `NATS_SERVER` or `PATH` must have.
//! Without them, the tests are skipped, unless `NATS_REQUIRED` is set.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails a test")]

#[path = "../binary/mod.rs"]
mod binary;
mod clients;
mod cursors;
mod faults;
mod histories;
mod import;
mod joining;
mod links;
mod losses;
mod nodes;
mod outage;
mod readers;
mod reload;
#[path = "../../../crates/nats/tests/servers/server.rs"]
#[expect(dead_code, reason = "the tests of the crate use all of it")]
mod server;
mod stale;
mod versions;
