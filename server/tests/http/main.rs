//! The server over real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails a test")]

mod access;
mod attacks;
mod bad_days;
mod events;
mod health;
mod load;
mod meters;
mod openapi;
mod pages;
mod poll;
mod publish;
mod readers;
mod support;
mod tokens;
mod transports;
mod ws;
