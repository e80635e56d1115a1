//! Everything that uses the browser's own objects, for these pages. [`waterclock_leptos::browser`]
//! has the part that any page with a stream needs.
//!
//! Nothing here runs while the server renders: effects and event handlers call it, and they run in
//! a browser only.

mod address;
mod clipboard;
mod dialog;
mod earlier;
mod json;
mod keys;
mod meter;
mod offset;
mod page;
mod probe;
mod publish;
mod scroll;
mod storage;
mod timing;
mod transport_client;

pub(crate) use address::{
    address_with_fragment, clear_fragment, encode_component, fragment, from_base64url, on_fragment,
    query, set_query, to_base64url,
};
pub(crate) use clipboard::{copy, download};
pub(crate) use dialog::{close_pane, open_dialog};
pub(crate) use earlier::earlier_events;
pub(crate) use json::pretty_json;
pub(crate) use keys::{has_modifier, move_focus, on_key};
pub(crate) use meter::{
    MeterCounts, MeterReading, cut, end_load, load, newest_position, read_meter,
};
pub(crate) use offset::{measure_offset, now as unix_millis};
pub(crate) use page::{
    clicked_item, focus, on_resize, on_visibility, origin, random_name, set_title, text_of, time,
    utc_offset,
};
pub(crate) use probe::{PROBE, clear_resource_timings, fetch_probe, resume_probe, service_worker};
pub(crate) use publish::publish;
pub(crate) use scroll::{Layout, ScrollPosition, is_pointed_at, lay_out, measure, scroll_by};
pub(crate) use storage::{set_setting, setting};
pub(crate) use timing::{protocol, reset_transferred, transferred};
pub(crate) use transport_client::{ClientEvent, ClientOptions, TransportClient};
pub(crate) use waterclock_leptos::browser::internal::{
    Held, Lifecycle, every_second, get_json, is_visible, now, on_lifecycle, poll,
};
