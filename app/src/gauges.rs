//! Two gauges: events per second, and the lag, which is the time from the server's acceptance of an
//! event to its arrival here.

use leptos::{prelude::*, task::spawn_local};
use waterclock::offset::Offset;
use waterclock_leptos::{ConnectionState, Live, StreamUpdate};

use crate::{
    browser,
    rate::{HEIGHT, Rate, SECONDS},
    reactive::{effect, text},
    settings::Settings,
};

/// Time after the stream has opened in which events may be replayed and have no meaningful lag, in
/// milliseconds.
const CATCH_UP: f64 = 1000.0;
/// Interval between two measurements of the clock offset, in seconds.
const OFFSET_EVERY: u64 = 60;

/// The measurements behind the gauges.
#[derive(Clone, Copy)]
pub(crate) struct Gauges {
    rate: StoredValue<Rate>,
    /// Lag of the latest event, in milliseconds, not corrected by the clock offset.
    lag: StoredValue<Option<f64>>,
    /// Time at which the stream has opened, in milliseconds since 1970.
    opened: StoredValue<f64>,
    seconds: RwSignal<u64>,
    /// The values shown, updated once a second.
    values: RwSignal<GaugeValues>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct GaugeValues {
    rate: u32,
    max_rate: u32,
    path: String,
    /// Lag in whole milliseconds, not corrected by the clock offset.
    lag: Option<i64>,
}

impl Gauges {
    pub(crate) fn new(settings: Settings) -> Self {
        let gauges = Self {
            rate: StoredValue::default(),
            lag: StoredValue::default(),
            opened: StoredValue::default(),
            seconds: settings.seconds,
            values: RwSignal::default(),
        };
        effect(move || {
            settings.seconds.track();
            gauges.refresh();
        });
        gauges
    }

    /// Records an update of the stream.
    pub(crate) fn record(self, update: &StreamUpdate) {
        let now = browser::unix_millis();
        match update {
            StreamUpdate::Event(event) => {
                self.rate.update_value(|rate| rate.add(second(now)));
                if now > self.opened.get_value() + CATCH_UP {
                    // The server rounds down to whole milliseconds.
                    #[expect(
                        clippy::cast_precision_loss,
                        reason = "exact for the next 285,000 years"
                    )]
                    let sent = event.time.as_millis() as f64 + 0.5;
                    self.lag.set_value(Some(now - sent));
                }
            }
            StreamUpdate::Opened => self.opened.set_value(now),
            StreamUpdate::Gap(_) | StreamUpdate::End(_) | StreamUpdate::Notice => {}
        }
    }

    fn refresh(self) {
        let lag = self.lag.get_value().map(whole);
        self.rate.update_value(|rate| {
            rate.advance(second(browser::unix_millis()));
            let (max_rate, path) = (rate.maximum(), rate.path());
            self.values.set(GaugeValues { rate: rate.current(), max_rate, path, lag });
        });
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn second(millis: f64) -> u64 {
    (millis / 1000.0) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "it saturates")]
fn whole(millis: f64) -> i64 {
    millis.round() as i64
}

/// A plot of the last minute, and the current values.
#[component]
pub(crate) fn GaugesView(gauges: Gauges, live: Live) -> impl IntoView {
    let offset = clock_offset(gauges.seconds, live);
    let values = gauges.values;
    let label = text(move || {
        let GaugeValues { rate, max_rate, .. } = *values.read();
        let now = match live.state() {
            ConnectionState::Live => format!("{rate} now, "),
            _ => String::new(),
        };
        format!("Events per second in the last minute: {now}{max_rate} at most")
    });
    let numbers = text(move || {
        // Without a stream there is no rate, and the last lag says nothing of now.
        if live.state() != ConnectionState::Live {
            return String::new();
        }
        let GaugeValues { rate, lag, .. } = *values.read();
        let lag = lag.zip(offset.get()).map(|(lag, offset)| {
            let (ahead, uncertainty) = (whole(offset.millis), whole(offset.uncertainty.ceil()));
            format!(" · lag {} ms ± {uncertainty} ms", lag + ahead)
        });
        let unit = if rate == 1 { "event/s" } else { "events/s" };
        format!("{rate} {unit}{}", lag.unwrap_or_default())
    });
    let path = text(move || values.read().path.clone());
    let view_box = format!("0 0 {SECONDS} {HEIGHT}");
    view! {
        <p class="gauges">
            <svg viewBox=view_box preserveAspectRatio="none" role="img" aria-label=label>
                <path d=path />
            </svg>
            <span prop:textContent=numbers></span>
        </p>
    }
}

/// Measures the clock offset once the stream is live, and again each minute while the page is
/// visible.
fn clock_offset(seconds: RwSignal<u64>, live: Live) -> RwSignal<Option<Offset>> {
    let offset = RwSignal::new(None);
    let measured = StoredValue::new(None);
    effect(move || {
        let second = seconds.get();
        let is_due = measured.get_value().is_none_or(|measured| second >= measured + OFFSET_EVERY);
        if is_due && browser::is_visible() && live.state() == ConnectionState::Live {
            measured.set_value(Some(second));
            spawn_local(async move {
                if let Some(found) = browser::measure_offset().await {
                    // The page may be gone meanwhile.
                    let _ = offset.try_set(Some(found));
                }
            });
        }
    });
    offset
}
