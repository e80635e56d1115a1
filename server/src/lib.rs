//! The Waterclock server: HTTP over the hub of [`waterclock`], and the pages of [`app`].
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | [`options`] | the program's options |
//! | [`router`] | the table of routes, and the state that they share |
//! | [`events`] | `GET /events`: what was asked for, and the answer's head |
//! | `stream` | the answer's body: the bytes of one event stream |
//! | `pages` | the pages, rendered with the latest events |
//! | `site` | the files that they need, from disk or from inside the program |
//! | `headers` | the headers that every answer has, and what a page may load |
//! | [`problem`] | the one error type of the HTTP edge (RFC 9457) |
//! | [`serve`](mod@serve) | serves a router from a listener until it is told to stop |
//!
//! The program's `main` only wires these.

pub mod events;
mod headers;
pub mod options;
mod pages;
pub mod problem;
pub mod router;
pub mod serve;
mod site;
mod stream;
