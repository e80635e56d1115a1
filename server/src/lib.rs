//! The Waterclock server: the routes of [`waterclock_axum`], the pages of [`app`], and the sockets
//! below them.
//!
//! # Layout
//!
//! From the top down; no module uses one above it.
//!
//! | module | content |
//! |---|---|
//! | [`options`] | the program's options |
//! | [`reload`] | the reload of the configuration at SIGHUP |
//! | [`config`] | the configuration file |
//! | [`routes`] | the table of routes, and a file per route |
//! | [`state`] | the state that the routes share |
//! | [`compare`] | meters and load, for `/compare` (feature `compare`) |
//! | [`auth`] | the policy: who may read and publish what |
//! | [`net`] | sockets: accept loop, HTTP/1.1, HTTP/2, TLS |
//! | [`ops`] | counters, the program's own output, and the signals that stop it |
//! | [`limits`] | limits and timeouts |
//!
//! Beside them, [`diagnose`] is the command `waterclock diagnose`, and [`terminal`] has those that
//! read, publish, and keep backups. [`client`] is what all that call a server have in common.
//! [`token`] is the command `waterclock token`, which makes keys and tokens.
//!
//! The program's `main` only wires these.

pub mod auth;
pub mod client;
#[cfg(feature = "compare")]
pub mod compare;
pub mod config;
pub mod diagnose;
pub mod limits;
pub mod net;
pub mod ops;
pub mod options;
pub mod reload;
pub mod routes;
pub mod state;
pub mod terminal;
pub mod token;
