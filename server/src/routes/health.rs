//! `GET /health/live` and `GET /health/ready`, for programs that start, stop and balance servers,
//! and `GET /health/state`, for those that show the state of one.

use std::{error::Error, iter, sync::Arc};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderName, StatusCode, header::CACHE_CONTROL},
};
use serde::Serialize;
use waterclock::{
    event_log::{Condition, EventLogError},
    hub::Hub,
};
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

/// The state of the server. A part that has no meaning for the log of one process, or that does not
/// fail, is left out.
#[derive(Serialize)]
pub(super) struct ServerHealth {
    /// `true` if `/health/ready` answers 200.
    ready: bool,
    /// `true` if `/health/ready?publish` answers 200.
    publish: bool,
    /// The name of the node, as `hello` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// Number of changes in the cluster that the node does not have yet, as far as it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u64>,
    /// `true` if the node receives nothing from its cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    away: Option<bool>,
    /// The reason for which events cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    read_error: Option<String>,
    /// The reason for which events cannot be published.
    #[serde(skip_serializing_if = "Option::is_none")]
    publish_error: Option<String>,
}

/// Answers with the state, always with 200: a browser would report any other status as an error of
/// the page.
pub(super) async fn state(
    State(stop): State<Stop>,
    State(hub): State<Arc<Hub>>,
) -> ([(HeaderName, &'static str); 1], Json<ServerHealth>) {
    let health = health(stop.has_begun(), &hub.condition(), hub.node());
    ([(CACHE_CONTROL, "no-store")], Json(health))
}

fn health(is_stopping: bool, condition: &Condition, node: Option<&str>) -> ServerHealth {
    let Condition { append_error, read_error, lag, is_away, .. } = condition;
    let text = |error: &Option<EventLogError>| error.as_ref().map(|error| with_sources(error));
    ServerHealth {
        ready: readiness(is_stopping, condition, false).is_ok(),
        publish: readiness(is_stopping, condition, true).is_ok(),
        node: node.map(str::to_owned),
        lag: *lag,
        away: node.map(|_| *is_away),
        read_error: text(read_error),
        publish_error: text(append_error),
    }
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
    use serde_json::json;

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
    fn the_state_has_the_parts_that_fail() {
        let state = |is_stopping, condition, node| {
            serde_json::to_value(health(is_stopping, &condition, node)).unwrap()
        };
        let works = Condition::default;
        assert_eq!(state(false, works(), None), json!({ "ready": true, "publish": true }));
        assert_eq!(state(true, works(), None), json!({ "ready": false, "publish": false }));
        let full = Condition { append_error: Some(EventLogError::DiskFull), ..works() };
        assert_eq!(
            state(false, full, None),
            json!({ "ready": true, "publish": false, "publish_error": "the disk is full" }),
        );
        let failed = Condition { read_error: Some(EventLogError::new("broken")), ..works() };
        assert_eq!(
            state(false, failed, None),
            json!({
                "ready": false,
                "publish": false,
                "read_error": "the event log failed: broken",
            }),
        );
        let behind = Condition { lag: Some(MAX_LAG + 1), ..works() };
        assert_eq!(
            state(false, behind, Some("node-1")),
            json!({
                "ready": false,
                "publish": false,
                "node": "node-1",
                "lag": 1001,
                "away": false,
            }),
        );
        for is_away in [false, true] {
            let error = EventLogError::unavailable("cut");
            let publish_error = with_sources(&error);
            let cut = Condition { append_error: Some(error), lag: Some(0), is_away, ..works() };
            assert_eq!(
                state(false, cut, Some("node-1")),
                json!({
                    "ready": true,
                    "publish": false,
                    "node": "node-1",
                    "lag": 0,
                    "away": is_away,
                    "publish_error": publish_error,
                }),
            );
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
