//! The built-in load: events on the topic `waterclock.load`, at a chosen rate and size, for a
//! limited time. It is for comparing transports, on this machine only.
//!
//! The events form a Poisson process, like those of many independent people, so that none is in
//! step with a client that polls.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::http::{StatusCode, Uri};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use waterclock::{
    event::{Draft, Topic},
    hub::Hub,
};
use waterclock_axum::{Problem, Stop, limits::MAX_DATA};

/// Maximum rate in events per second, on average.
const MAX_RATE: u32 = 1000;
/// Maximum duration in seconds.
const MAX_SECONDS: u64 = 600;

/// A load that cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(
        "`rate` must be 1 to {MAX_RATE} events per second, `size` 0 to {MAX_DATA} bytes, `seconds` 1 \
         to {MAX_SECONDS}."
    )]
    Parameters,
    #[error(
        "A load of {rate} events per second of {size} bytes is already running, possibly for another \
         page. It ends soon after its last page is closed, or with `DELETE /load`."
    )]
    Conflict { rate: u32, size: usize },
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        let status = match error {
            LoadError::Parameters => StatusCode::BAD_REQUEST,
            LoadError::Conflict { .. } => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

/// The load, if one is running. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<Mutex<Option<LoadTask>>>);

#[derive(Debug)]
struct LoadTask {
    parameters: LoadParameters,
    users: Users,
    task: AbortOnDropHandle<()>,
}

/// The time until which each user needs the load, by the name that the user gave.
type Users = Arc<Mutex<HashMap<String, Instant>>>;

/// The parameters of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LoadParameters {
    /// Events per second, on average.
    rate: u32,
    /// Bytes of data per event.
    size: usize,
    /// Duration.
    seconds: u64,
}

impl LoadParameters {
    pub(crate) fn parse(uri: &Uri) -> Result<Self, LoadError> {
        let mut load = Self { rate: 10, size: 100, seconds: 60 };
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let is_valid = match &*name {
                "rate" => value.parse().map(|rate| load.rate = rate).is_ok(),
                "size" => value.parse().map(|size| load.size = size).is_ok(),
                "seconds" => value.parse().map(|seconds| load.seconds = seconds).is_ok(),
                _ => true, // Unknown parameters are ignored.
            };
            if !is_valid {
                return Err(LoadError::Parameters);
            }
        }
        let is_within_limits = (1..=MAX_RATE).contains(&load.rate)
            && load.size <= MAX_DATA
            && (1..=MAX_SECONDS).contains(&load.seconds);
        is_within_limits.then_some(load).ok_or(LoadError::Parameters)
    }
}

impl Load {
    /// Starts a load, or extends the running one if it has the same rate and size. Returns `true`
    /// if it was started.
    pub(crate) fn start(
        &self,
        hub: Arc<Hub>,
        stop: Stop,
        parameters: LoadParameters,
        user: String,
    ) -> Result<bool, LoadError> {
        let mut load = self.0.lock();
        let end = Instant::now() + Duration::from_secs(parameters.seconds);
        if let Some(running) = load.as_ref().filter(|running| !running.task.is_finished()) {
            let LoadParameters { rate, size, .. } = running.parameters;
            if (rate, size) != (parameters.rate, parameters.size) {
                return Err(LoadError::Conflict { rate, size });
            }
            let mut users = running.users.lock();
            users.retain(|_, until| *until > Instant::now());
            let until = users.entry(user).or_insert(end);
            *until = end.max(*until);
            return Ok(false);
        }
        let users = Users::new(Mutex::new(HashMap::from([(user, end)])));
        let run = {
            let users = Arc::clone(&users);
            async move {
                tokio::select! {
                    () = run(&hub, parameters, &users) => {}
                    _ = stop.begun() => {}
                }
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(run));
        *load = Some(LoadTask { parameters, users, task });
        Ok(true)
    }

    /// Removes a user, and ends the load if there is no other. An empty name ends it for all.
    pub(crate) fn end(&self, user: &str) {
        let mut load = self.0.lock();
        let is_needed = load.as_ref().is_some_and(|running| {
            let mut users = running.users.lock();
            users.remove(user);
            users.values().any(|until| *until > Instant::now())
        });
        if user.is_empty() || !is_needed {
            *load = None;
        }
    }
}

/// Publishes until no user needs the load any more.
async fn run(hub: &Hub, load: LoadParameters, users: &Mutex<HashMap<String, Instant>>) {
    let mut at = Instant::now();
    for number in 1_u64.. {
        // The time between independent events has an exponential distribution.
        at += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / f64::from(load.rate));
        tokio::time::sleep_until(at).await;
        if users.lock().values().all(|until| at > *until) {
            return;
        }
        // Nothing waits for the event to be stored, so that the next one is not late.
        let draft = Draft::new(Topic::load(), data(number, load.size));
        if let Err(error) = hub.enqueue(draft).await {
            return tracing::error!(%error, "the load has ended");
        }
    }
}

/// Makes `size` bytes of data that begin with a number.
fn data(number: u64, size: usize) -> String {
    let mut data = format!("{number} ");
    data.extend(('a'..='z').cycle().take(size.saturating_sub(data.len())));
    data.truncate(size);
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_the_requested_size() {
        assert_eq!(data(12, 8), "12 abcde");
        assert_eq!(data(12, 1), "1");
        assert_eq!(data(12, 0), "");
        assert_eq!(data(u64::MAX, MAX_DATA).len(), MAX_DATA);
    }
}
