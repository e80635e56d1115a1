//! The built-in load: events on the topic `waterclock.load`, at a chosen rate and size, for a while. It is for
//! comparing the transports, and for this machine only.
//!
//! The events come at random moments, independent of each other (a Poisson process), as those of many
//! people do: so none of them is in step with a client that polls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, Uri},
};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use waterclock::{
    event::{Draft, Topic},
    hub::Hub,
};

use crate::{access::Caller, problem::Problem, publish::MAX_DATA, router::AppState, stop::Stop};

/// How many events a second it may be, on average.
pub const MAX_RATE: u32 = 1000;
/// How many seconds it may last.
pub const MAX_SECONDS: u64 = 600;

/// The load that runs, if one does. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<Mutex<Option<Running>>>);

#[derive(Debug)]
struct Running {
    plan: Plan,
    asked: Asked,
    task: AbortOnDropHandle<()>,
}

/// Until when each who has asked wants it, by the name that they gave.
type Asked = Arc<Mutex<HashMap<String, Instant>>>;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Plan {
    /// Events a second, on average.
    rate: u32,
    /// Bytes of data in each.
    size: usize,
    /// How long it lasts.
    seconds: u64,
}

impl Load {
    /// Begins it, or goes on with one that is the same; whether it has begun now.
    fn start(&self, hub: Arc<Hub>, stop: Stop, plan: Plan, name: String) -> Result<bool, Problem> {
        let mut load = lock(&self.0);
        let end = Instant::now() + Duration::from_secs(plan.seconds);
        if let Some(running) = load.as_ref().filter(|running| !running.task.is_finished()) {
            let Plan { rate, size, .. } = running.plan;
            if (rate, size) != (plan.rate, plan.size) {
                return Err(Problem::LoadRuns { rate, size });
            }
            let mut asked = lock(&running.asked);
            asked.retain(|_, until| *until > Instant::now());
            let until = asked.entry(name).or_insert(end);
            *until = end.max(*until);
            return Ok(false);
        }
        let asked = Asked::new(Mutex::new(HashMap::from([(name, end)])));
        let run = {
            let asked = Arc::clone(&asked);
            async move {
                tokio::select! {
                    () = run(&hub, plan, &asked) => {}
                    _ = stop.begun() => {}
                }
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run));
        *load = Some(Running { plan, asked, task });
        Ok(true)
    }

    /// That one needs it no longer, or, without a name, nobody.
    fn end(&self, name: &str) {
        let mut load = lock(&self.0);
        let is_wanted = load.as_ref().is_some_and(|running| {
            let mut asked = lock(&running.asked);
            asked.remove(name);
            asked.values().any(|until| *until > Instant::now())
        });
        if name.is_empty() || !is_wanted {
            *load = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics half-way through a change of what these locks hold.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Publishes until nobody wants it any more.
async fn run(hub: &Hub, plan: Plan, asked: &Mutex<HashMap<String, Instant>>) {
    let mut at = Instant::now();
    for number in 1_u64.. {
        // The time to the next of many independent events is distributed exponentially.
        at += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / f64::from(plan.rate));
        tokio::time::sleep_until(at).await;
        if lock(asked).values().all(|until| at > *until) {
            return;
        }
        // Nobody waits for it to be kept: the next one is not to be late for that.
        let data = data(number, plan.size);
        if let Err(error) = hub.enqueue(Draft::new(Topic::load(), data)).await {
            return tracing::error!(%error, "the load has ended");
        }
    }
}

/// So many bytes that begin with a number.
fn data(number: u64, size: usize) -> String {
    let mut data = format!("{number} ");
    data.extend(('a'..='z').cycle().take(size.saturating_sub(data.len())));
    data.truncate(size);
    data
}

/// `POST /load?rate=…&size=…&seconds=…`: begins it (201), or has it go on for so many seconds from now if
/// it runs at that rate and size (200). With `name=…`, one is told from others who want it, too.
pub(crate) async fn start(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
) -> Result<(StatusCode, Json<Plan>), Problem> {
    caller.is_ours()?;
    let plan = Plan::of(&uri)?;
    let has_begun = state.load.start(state.hub, state.stop, plan, name(&uri))?;
    Ok((if has_begun { StatusCode::CREATED } else { StatusCode::OK }, Json(plan)))
}

/// `DELETE /load`: ends it, if it runs; with `name=…`, once nobody else wants it.
pub(crate) async fn end(
    State(state): State<AppState>,
    caller: Caller,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    caller.is_ours()?;
    state.load.end(&name(&uri));
    Ok(StatusCode::NO_CONTENT)
}

fn name(uri: &Uri) -> String {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    query.find(|(name, _)| name == "name").map(|(_, value)| value.into_owned()).unwrap_or_default()
}

impl Plan {
    fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut plan = Self { rate: 10, size: 100, seconds: 60 };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let is_known = match &*name {
                "rate" => value.parse().map(|rate| plan.rate = rate).is_ok(),
                "size" => value.parse().map(|size| plan.size = size).is_ok(),
                "seconds" => value.parse().map(|seconds| plan.seconds = seconds).is_ok(),
                _ => true, // Unknown ones are ignored.
            };
            if !is_known {
                return Err(Problem::BadLoad);
            }
        }
        let is_within = (1..=MAX_RATE).contains(&plan.rate)
            && plan.size <= MAX_DATA
            && (1..=MAX_SECONDS).contains(&plan.seconds);
        is_within.then_some(plan).ok_or(Problem::BadLoad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_as_long_as_asked_for() {
        assert_eq!(data(12, 8), "12 abcde");
        assert_eq!(data(12, 1), "1");
        assert_eq!(data(12, 0), "");
        assert_eq!(data(u64::MAX, MAX_DATA).len(), MAX_DATA);
    }
}
