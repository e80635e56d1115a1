//! The server over real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failure here fails a test")]

mod access;
mod acme;
mod attacks;
mod attacks_on_http2;
mod bad_days;
mod client;
mod direct;
mod ends;
mod events;
mod frames;
mod gathering;
mod health;
mod http2;
mod keys;
#[cfg(feature = "compare")]
mod load;
#[cfg(feature = "compare")]
mod meters;
mod monitoring;
mod ndjson;
mod openapi;
mod pages;
mod pebble;
mod poll;
mod probe;
mod publish;
mod readers;
mod refusals;
mod reload;
mod resting;
mod routes;
mod stopping;
mod support;
mod tls;
mod tokens;
mod topics;
mod transports;
mod unreadable;
mod ws;
