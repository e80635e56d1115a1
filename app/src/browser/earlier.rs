//! Events from before those in the list (`GET /poll?before=…`).

use std::sync::Arc;

use waterclock::{event::Event, id::EventId, notice::Gap};
use waterclock_leptos::browser::internal::{FromJson as _, get_json};

use crate::ring::RowContent;

/// Requests earlier events. Returns their rows, oldest first, and the place in the log before which
/// there may be more. Returns `None` without a valid response.
pub(crate) async fn earlier_events(url: String) -> Option<(Vec<RowContent>, Option<EventId>)> {
    let json = get_json(url).await.ok()?;
    let mut rows = Vec::new();
    for event in json.list::<Event>("events") {
        rows.push(RowContent::Event(Arc::new(event)));
    }
    // Events are missing between these and the others.
    if let Some(gap) = json.get("gap").and_then(|gap| Gap::from_json(&gap)) {
        rows.push(RowContent::Gap(gap));
    }
    Some((rows, json.parse("before")))
}
