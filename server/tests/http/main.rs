//! The server over real sockets.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "what fails here fails a test")]

mod events;
mod pages;
mod support;
