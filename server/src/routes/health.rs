//! `GET /health/live` and `GET /health/ready`: for programs that start, stop and balance servers.

use std::{error::Error, iter, sync::Arc};

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
};
use waterclock::{event_log::Condition, hub::Hub};
use waterclock_axum::{Problem, Stop};

/// Answers while the process runs.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Number of changes by which a node of a cluster may lag and still serve readers.
const MAX_LAG: u64 = 1000;

/// Answers 200 while the server accepts new clients and can read the event log, and 503 otherwise,
/// also on a node that is far behind its cluster. With the parameter `publish`, it must be able to
/// publish, too.
pub(super) async fn ready(
    State(stop): State<Stop>,
    State(hub): State<Arc<Hub>>,
    RawQuery(query): RawQuery,
) -> Result<String, Problem> {
    let must_publish = must_publish(query.as_deref().unwrap_or_default())?;
    readiness(stop.has_begun(), &hub.condition(), must_publish)
}

fn must_publish(query: &str) -> Result<bool, Problem> {
    let mut must_publish = false;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("publish", "") => must_publish = true,
            ("publish", _) => {
                let detail = "`publish` has no value: `/health/ready?publish`.";
                return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
            }
            _ => {} // Unknown parameters are ignored.
        }
    }
    Ok(must_publish)
}

/// Returns a line that names the parts that fail.
fn readiness(
    is_stopping: bool,
    condition: &Condition,
    must_publish: bool,
) -> Result<String, Problem> {
    let unavailable = |detail: String| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    if is_stopping {
        return unavailable("The server is shutting down.".to_owned());
    }
    if let Some(error) = &condition.read_error {
        return unavailable(format!("Events cannot be read: {}.", with_sources(error)));
    }
    if let Some(lag) = condition.lag.filter(|lag| *lag > MAX_LAG) {
        return unavailable(format!("The node is {lag} changes behind its cluster."));
    }
    match condition.append_error.as_ref().map(|error| with_sources(error)) {
        Some(error) if must_publish => {
            unavailable(format!("Events can be read, but not be published: {error}."))
        }
        Some(error) => Ok(format!("ready, but events cannot be published: {error}\n")),
        None => Ok("ready\n".to_owned()),
    }
}

/// Writes an error with the errors that caused it.
fn with_sources(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use waterclock::event_log::EventLogError;

    use super::*;

    #[test]
    fn readiness_names_the_part_that_fails() {
        let full = || Some(EventLogError::DiskFull);
        let failed = || Some(EventLogError::new("broken"));
        let condition = |read_error, append_error| Condition {
            read_error,
            append_error,
            ..Condition::default()
        };
        let ok = "ready\n";
        let but = "ready, but events cannot be published: the disk is full\n";
        let not = "Events can be read, but not be published: the disk is full.";
        let unreadable = "Events cannot be read: the event log failed: broken.";
        for (condition, reading, publishing) in [
            (condition(None, None), Ok(ok), Ok(ok)),
            (condition(None, full()), Ok(but), Err(not)),
            (condition(failed(), full()), Err(unreadable), Err(unreadable)),
        ] {
            for (must_publish, expected) in [(false, reading), (true, publishing)] {
                let found = readiness(false, &condition, must_publish);
                let found = found.map_err(|problem| problem.to_string());
                assert_eq!(found.as_deref().map_err(String::as_str), expected);
                assert!(readiness(true, &condition, must_publish).is_err());
            }
        }
    }

    #[test]
    fn a_node_far_behind_its_cluster_is_not_ready() {
        for (lag, is_ready) in [(None, true), (Some(MAX_LAG), true), (Some(MAX_LAG + 1), false)] {
            let condition = Condition { lag, ..Condition::default() };
            for must_publish in [false, true] {
                assert_eq!(readiness(false, &condition, must_publish).is_ok(), is_ready, "{lag:?}");
            }
        }
    }

    #[test]
    fn the_parameter_publish_has_no_value() {
        for (query, expected) in [
            ("", Some(false)),
            ("a=b", Some(false)),
            ("publish", Some(true)),
            ("publish=", Some(true)),
        ] {
            assert_eq!(must_publish(query).ok(), expected, "{query}");
        }
        assert_eq!(must_publish("publish=false").unwrap_err().status(), 400);
    }
}
