//! Event streams for Leptos: an `EventSource` in a signal, which resumes after the last event,
//! reconnects with backoff, and is shared by all tabs of a browser.
//!
//! [`Live`] needs `/events`, `/poll` and `/ws` at the same origin, from a Waterclock server or from
//! `waterclock-axum`. Depend on this crate with the feature `hydrate` (or `csr`) in the browser,
//! and `ssr` on the server.
//!
//! ```
//! use leptos::prelude::*;
//! use waterclock_leptos::{Live, LiveOptions, StreamUpdate};
//!
//! #[component]
//! fn Orders() -> impl IntoView {
//!     let orders = RwSignal::new(Vec::new());
//!     let options = LiveOptions { query: "topic=orders.*".to_owned(), ..LiveOptions::default() };
//!     let live = Live::new(options, move |update| {
//!         if let StreamUpdate::Event(event) = update {
//!             orders.update(|orders| orders.push(event));
//!         }
//!     });
//!     view! {
//!         <button on:click=move |_| live.toggle()>
//!             {move || if live.is_wanted() { "Stop" } else { "Connect" }}
//!         </button>
//!         <ul>
//!             <For each=move || orders.get() key=|order| order.id.to_string() let:order>
//!                 <li>{order.data.clone()}</li>
//!             </For>
//!         </ul>
//!     }
//! }
//! ```
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | [`live`] | [`Live`]: the stream and its state in signals |
//! | `message` | [`StreamUpdate`], and the parser of the stream's messages |
//! | [`connection`] | the connection rules: reconnect, back off, resume |
//! | [`tab`] | the rules by which tabs share one connection |
//! | `channel` | the messages between tabs, as lists of strings |
//! | [`stopwatch`] | a monotonic clock that includes sleep |
//! | [`browser`] | everything that uses the browser's own objects |
//!
//! The rules are pure functions from a state and an input to a state and effects. [`live`] connects
//! them to the browser. Start reading at [`browser::event_source`], which works by itself, with any
//! server.

pub mod browser;
mod channel;
pub mod connection;
pub mod live;
mod message;
pub mod stopwatch;
pub mod tab;
#[cfg(test)]
mod traces;

pub use connection::{ConnectionState, DisconnectReason, PageTime};
pub use live::{Live, LiveOptions};
pub use message::StreamUpdate;
pub use tab::Role;
pub use waterclock::{
    event::Event,
    id::EventId,
    notice::{Gap, GapReason, GoodbyeReason},
};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
