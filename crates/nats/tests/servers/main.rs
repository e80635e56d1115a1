//! The sequencer with real servers of NATS, which `NATS_SERVER` or `PATH` must have.

mod cluster;
mod nodes;
mod order;
mod setup;
mod support;
