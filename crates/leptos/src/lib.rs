//! An event stream in Leptos signals.

pub mod browser;
pub mod connection;
pub mod live;
mod message;
pub mod stopwatch;
pub mod tab;
mod tabs;

pub use live::{Live, Stream};
pub use message::Arrived;
