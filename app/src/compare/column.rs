//! A column of the table of results.

use leptos::prelude::*;
use waterclock::transport::Transport;

use super::results::{Results, TransportResult};
use crate::reactive::text;

/// A transport's column.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) results: RwSignal<Option<Results>>,
    pub(crate) transport: Transport,
}

impl Column {
    /// Returns a text of the column that changes with the results.
    pub(crate) fn text(self, write: fn(&Results, &TransportResult) -> String) -> Signal<String> {
        text(move || {
            self.results
                .with(|results| {
                    let results = results.as_ref()?;
                    let is_own = |result: &&TransportResult| result.transport == self.transport;
                    Some(write(results, results.transports.iter().find(is_own)?))
                })
                .unwrap_or_default()
        })
    }
}
