//! The Waterclock server: HTTP over the hub of [`waterclock`], and the pages of [`app`].
//!
//! # Layout
//!
//! | module | what is there |
//! |---|---|
//! | [`options`] | the program's options |
//! | [`router`] | the table of routes, and the state that they share |
//! | [`serve`](mod@serve) | the accept loop: serves a router until it is told to stop |
//! | [`tls`] | the certificate that it is served with |
//! | [`access`] | who may read and publish |
//! | [`token`] | the tokens by which others than this machine may |
//! | [`client`] | which client a request comes from |
//! | [`events`] | `GET /events`: what was asked for, and the answer's head |
//! | `ws` | `GET /ws`: the same over a WebSocket, by which a client may publish, too |
//! | `stream` | what a client is told by either, one after the other |
//! | `poll` | `GET /poll`: the events after a cursor, as one answer |
//! | [`probe`] | `GET /diagnose/stream`: a stream made to be measured |
//! | [`diagnose`] | `waterclock diagnose`: a client that measures the path to a server |
//! | [`publish`] | `POST /events/{topic}`: publishes an event |
//! | [`load`] | the built-in load, for comparing the transports |
//! | [`meter`] | how many bytes cross the sockets, for who compares |
//! | `pages` | the pages, rendered with the latest events |
//! | `site` | the files that they need, from disk or from inside the program |
//! | `headers` | the headers that every answer has, and what a page may load |
//! | `strict` | refuses requests that may be read in more than one way |
//! | [`stop`] | that the server is stopping, and since when |
//! | [`streams`] | the streams that are open: how many there may be, and how far each is |
//! | `rarely` | a future for what seldom happens beside what often does |
//! | [`metrics`] | what is counted, for Prometheus |
//! | `health` | whether the server is there, and what time it has |
//! | [`problem`] | the one error type of the HTTP edge (RFC 9457) |
//!
//! The program's `main` only wires these.

pub mod access;
pub mod client;
pub mod diagnose;
pub mod events;
mod headers;
mod health;
pub mod load;
pub mod meter;
pub mod metrics;
pub mod options;
mod pages;
mod poll;
pub mod probe;
pub mod problem;
pub mod publish;
mod rarely;
pub mod router;
pub mod serve;
mod site;
pub mod stop;
mod stream;
pub mod streams;
mod strict;
pub mod tls;
pub mod token;
mod ws;
