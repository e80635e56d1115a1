//! What the reader has chosen: kept in the page's address, so that a link shows the same, and in the
//! browser, for the next visit.

use leptos::prelude::*;

use crate::{browser, reactive::effect, ring::DEFAULT_ROWS, time::TimeFormat};

/// How many rows the list may keep.
pub(crate) const MAX_ROWS: [usize; 3] = [1000, DEFAULT_ROWS, 100_000];

/// The settings.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// What the list is to show.
    pub(crate) filter: RwSignal<String>,
    pub(crate) time: RwSignal<TimeFormat>,
    /// How many rows the list keeps.
    pub(crate) rows: RwSignal<usize>,
    /// Whether single keys do something.
    pub(crate) has_shortcuts: RwSignal<bool>,
    /// Seconds since the page began, for what changes with time.
    pub(crate) seconds: RwSignal<u64>,
}

/// How times are written at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Times {
    pub(crate) format: TimeFormat,
    /// Which second it is, if that makes a difference.
    second: u64,
}

impl Settings {
    /// How times are written.
    pub(crate) fn times(self) -> Times {
        let format = self.time.get();
        Times { format, second: if format == TimeFormat::Ago { self.seconds.get() } else { 0 } }
    }

    /// The defaults, as the server renders; in the browser, then what the address says, or the last
    /// visit had.
    pub(crate) fn new() -> Self {
        let settings = Self {
            filter: RwSignal::default(),
            time: RwSignal::default(),
            rows: RwSignal::new(DEFAULT_ROWS),
            has_shortcuts: RwSignal::new(true),
            seconds: RwSignal::default(),
        };
        effect(move || {
            settings.filter.set(browser::query("filter").unwrap_or_default());
            let time = browser::query("time").or_else(|| browser::setting("time"));
            if let Some(time) = time.and_then(|key| TimeFormat::from_key(&key)) {
                settings.time.set(time);
            }
            let rows = browser::setting("rows").and_then(|rows| rows.parse().ok());
            if let Some(rows) = rows.filter(|rows| MAX_ROWS.contains(rows)) {
                settings.rows.set(rows);
            }
            settings.has_shortcuts.set(browser::setting("shortcuts").as_deref() != Some("off"));
            browser::every_second(move || settings.seconds.set(browser::now().as_secs()));
        });
        settings
    }

    pub(crate) fn set_filter(self, filter: String) {
        browser::set_query("filter", &filter);
        self.filter.set(filter);
    }

    pub(crate) fn set_time(self, time: TimeFormat) {
        browser::set_query("time", time.key());
        browser::set_setting("time", time.key());
        self.time.set(time);
    }

    pub(crate) fn set_rows(self, rows: usize) {
        browser::set_setting("rows", &rows.to_string());
        self.rows.set(rows);
    }

    pub(crate) fn set_shortcuts(self, has_shortcuts: bool) {
        browser::set_setting("shortcuts", if has_shortcuts { "on" } else { "off" });
        self.has_shortcuts.set(has_shortcuts);
    }
}
