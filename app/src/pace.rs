//! How many events there are a second, and how long they take to get here.

use leptos::{prelude::*, task::spawn_local};
use waterclock::offset::Offset;
use waterclock_leptos::{Arrived, Live, connection::State};

use crate::{
    browser,
    rate::{HEIGHT, Rate, SECONDS},
    reactive::{effect, text},
    settings::Settings,
};

/// For so long after the stream was opened, events may be of before, in milliseconds.
const CATCH_UP: f64 = 1000.0;
/// How often the clocks are compared, in seconds.
const COMPARE_EVERY: u64 = 60;

/// What is known of it.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    rate: StoredValue<Rate>,
    /// How long the latest event took, in milliseconds, by clocks that may not be the same.
    lag: StoredValue<Option<f64>>,
    /// When the stream was opened.
    opened: StoredValue<f64>,
    seconds: RwSignal<u64>,
    /// What is shown, made anew each second.
    shown: RwSignal<Shown>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shown {
    now: u32,
    most: u32,
    path: String,
    /// Of the latest event: so many milliseconds, by the clocks as they are.
    lag: Option<i64>,
}

impl Pace {
    pub(crate) fn new(settings: Settings) -> Self {
        let pace = Self {
            rate: StoredValue::default(),
            lag: StoredValue::default(),
            opened: StoredValue::default(),
            seconds: settings.seconds,
            shown: RwSignal::default(),
        };
        effect(move || {
            settings.seconds.track();
            pace.update();
        });
        pace
    }

    /// Something has come over the stream.
    pub(crate) fn note(self, arrived: &Arrived) {
        let now = browser::precise_time();
        match arrived {
            Arrived::Event(event) => {
                self.rate.update_value(|rate| rate.add(second(now)));
                // What was missed while there was no stream is not late for that.
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
            Arrived::Opened => self.opened.set_value(now),
            Arrived::Gap(_) | Arrived::Notice => {}
        }
    }

    fn update(self) {
        let lag = self.lag.get_value().map(whole);
        self.rate.update_value(|rate| {
            rate.pass(second(browser::precise_time()));
            let shown = Shown { now: rate.now(), most: rate.most(), path: rate.path(), lag };
            self.shown.set(shown);
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

/// A plot of the last minute, and the numbers.
#[component]
pub(crate) fn PaceView(pace: Pace, live: Live) -> impl IntoView {
    let offset = compare_clocks(pace.seconds, live);
    let shown = pace.shown;
    let label = text(move || {
        let Shown { now, most, .. } = *shown.read();
        format!("Events a second in the last minute: {now} now, {most} at most")
    });
    let numbers = text(move || {
        let Shown { now, lag, .. } = *shown.read();
        let lag = lag.zip(offset.get()).map(|(lag, offset)| {
            let (ahead, uncertainty) = (whole(offset.millis), whole(offset.uncertainty.ceil()));
            format!(" · lag {} ms ± {uncertainty} ms", lag + ahead)
        });
        format!("{now} events/s{}", lag.unwrap_or_default())
    });
    let path = text(move || shown.read().path.clone());
    let view_box = format!("0 -1 {} {}", SECONDS - 1, HEIGHT + 2);
    view! {
        <p class="pace">
            <svg viewBox=view_box preserveAspectRatio="none" role="img" aria-label=label>
                <path d=path />
            </svg>
            <span>{numbers}</span>
        </p>
    }
}

/// Asks for the server's time once the stream is live, and again each minute in which the page is seen.
fn compare_clocks(seconds: RwSignal<u64>, live: Live) -> RwSignal<Option<Offset>> {
    let offset = RwSignal::new(None);
    let asked = StoredValue::new(None);
    effect(move || {
        let second = seconds.get();
        let is_due = asked.get_value().is_none_or(|asked| second >= asked + COMPARE_EVERY);
        if is_due && browser::is_visible() && live.state() == State::Live {
            asked.set_value(Some(second));
            spawn_local(async move {
                if let Some(found) = browser::offset().await {
                    // The page may be gone meanwhile.
                    let _ = offset.try_set(Some(found));
                }
            });
        }
    });
    offset
}
