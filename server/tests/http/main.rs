//! The server over real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails a test")]

mod access;
mod bad_days;
mod events;
mod health;
mod openapi;
mod pages;
mod poll;
mod publish;
mod support;
mod tokens;
