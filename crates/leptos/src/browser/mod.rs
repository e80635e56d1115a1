//! Everything that uses the browser's own objects. Nothing here runs while the server renders:
//! effects and event handlers call it, and they run in a browser only.

mod event_source;
mod explain;
mod held;
mod json;
mod page;
mod poll;
mod tab_group;

pub use event_source::{
    EventSourceHandle, EventSourceSignal, RawMessage, SourceEvent, event_source,
};
pub(crate) use explain::explain;
pub(crate) use held::{Held, is_over};
pub(crate) use json::{FromJson, Json, from_json, json_member};
pub(crate) use page::{
    Lifecycle, every_second, is_visible, now, on_lifecycle, random, socket_origin,
};
pub(crate) use poll::{PlacedEnd, PollResponse, poll};
pub(crate) use tab_group::{GroupEvent, TabGroup, count_tabs};

/// Helpers that the pages of Waterclock also need. They are not part of this crate's interface, and
/// may change in any version.
#[doc(hidden)]
pub mod internal {
    pub use super::{
        explain::{explain, problem_detail},
        held::{Held, give_up_all},
        json::{FromJson, Json, from_json, json_member},
        page::{Lifecycle, every_second, is_visible, now, on_lifecycle, random},
        poll::{AbortOnDrop, PollResponse, get_json, poll},
    };
}
