//! The pages of Waterclock and their components. The server renders a page into the document. In
//! the browser, the same page replaces it.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `shell` | the document around a page |
//! | [`home`] | the page `/`: the state of the connection, the button, and all the parts below |
//! | `feed`, `ring`, `filter` | the events received, and those that the list shows |
//! | `list` | the list |
//! | `gauges`, `rate` | events per second, and their latency |
//! | `toolbar`, `settings`, `time` | the tools above the list, the reader's choices, time formats |
//! | `details`, `publish`, `help` | dialogs |
//! | `node_health` | the node of a cluster that serves the stream, and its problems |
//! | `labels` | texts for states, reasons and gaps |
//! | `visible` | data and names with visible control characters |
//! | `event_json` | events in JSON, for the clipboard and for export |
//! | [`compare`] | the page `/compare`: the four transports side by side |
//! | `diagnose` | the page `/diagnose`: the path between the browser and the server |
//! | [`topics`] | the page `/topics`: the topics that exist |
//! | `code` | texts with parts in backticks |
//! | `page_data` | the data of a page, on its way from the server to the browser |
//! | `reactive` | effects and derived texts |
//! | `browser` | everything that uses the browser's own objects; no other module may |
//!
//! The core is one line of thought: [`waterclock_leptos`] wraps an `EventSource` in a signal, keeps
//! it open and shares it; `feed` adds each event to a reactive list; `list` shows it.

mod browser;
mod code;
pub mod compare;
mod details;
mod diagnose;
mod event_json;
mod feed;
mod filter;
mod gauges;
mod help;
pub mod home;
mod labels;
mod list;
mod node_health;
mod page_data;
mod publish;
mod rate;
mod reactive;
mod ring;
mod settings;
mod shell;
mod time;
mod toolbar;
pub mod topics;
mod visible;

pub use shell::{
    Assets, Page, mounted_compare, mounted_diagnose, mounted_home, mounted_topics, shell,
};
pub use waterclock_leptos::browser::internal::give_up_all;
