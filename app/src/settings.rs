//! The reader's choices. They are kept in the page's address, so that a link shows the same, and in
//! the browser's storage, for the next visit.

use leptos::prelude::*;

use crate::{
    browser,
    reactive::effect,
    ring::{DEFAULT_ROWS, MAX_ROWS},
    time::TimeFormat,
};

/// Possible values of the maximum number of rows.
pub(crate) const ROW_LIMITS: [usize; 3] = [1000, DEFAULT_ROWS, MAX_ROWS];

/// The settings.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// Text of the filter.
    pub(crate) filter: RwSignal<String>,
    pub(crate) time: RwSignal<TimeFormat>,
    /// Maximum number of rows in the list.
    pub(crate) rows: RwSignal<usize>,
    /// `true` if keyboard shortcuts are enabled.
    pub(crate) has_shortcuts: RwSignal<bool>,
    /// Time since the first reading of [`browser::now`], in seconds.
    pub(crate) seconds: RwSignal<u64>,
}

/// The current format of times. Two equal values give equal texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TimeDisplay {
    pub(crate) format: TimeFormat,
    /// The current second, if the format depends on it.
    second: u64,
}

impl Settings {
    /// Returns the current format of times.
    pub(crate) fn times(self) -> TimeDisplay {
        let format = self.time.get();
        TimeDisplay {
            format,
            second: if format == TimeFormat::Relative { self.seconds.get() } else { 0 },
        }
    }

    /// Creates the default settings, which the server renders. In the browser they then change to
    /// those of the address, or of the last visit.
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
            if let Some(rows) = rows.filter(|rows| ROW_LIMITS.contains(rows)) {
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
