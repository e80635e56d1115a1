//! The rules for servers and their stream, as pure functions.

use std::{collections::BTreeSet, time::Duration};

use async_nats::datetime::{DateTime, parse_rfc3339};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value, json};

use crate::{error::ConnectError, settings::NatsSettings};

/// The first version of NATS that is good enough: major and minor.
const MIN_VERSION: (u32, u32) = (2, 14);
/// Minimum size of messages that servers must accept, in bytes.
pub(crate) const MIN_PAYLOAD: usize = 768 << 10;
/// Maximum difference of two clocks.
const MAX_OFFSET: Duration = Duration::from_secs(5);
/// The key of the stream's metadata that only streams of Waterclock have.
const MARK: &str = "waterclock";

/// The settings of a stream that must be absent, empty or `false`.
const ABSENT: [&str; 14] = [
    // JetStream sets others with this one.
    "sealed",
    "allow_msg_counter",
    "allow_msg_schedules",
    "allow_msg_ttl",
    "allow_rollup_hdrs",
    "deny_purge",
    "discard_new_per_subject",
    "first_seq",
    "mirror",
    "no_ack",
    "persist_mode",
    "sources",
    "subject_delete_marker_ttl",
    "subject_transform",
];

/// The settings of a stream that must be as those of a new one.
const PRESENT: [&str; 12] = [
    "subjects",
    "storage",
    "num_replicas",
    "retention",
    "discard",
    "max_age",
    "max_bytes",
    "max_msgs",
    "max_msgs_per_subject",
    "max_msg_size",
    "max_consumers",
    "deny_delete",
];

/// A server as its monitoring describes it, at `/varz`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Monitored {
    #[serde(rename = "server_id")]
    pub id: String,
    #[serde(rename = "server_name")]
    pub name: String,
    pub version: String,
    /// The time of its clock.
    #[serde(deserialize_with = "time")]
    pub now: DateTime,
    pub max_payload: usize,
    #[serde(default)]
    pub cluster: Cluster,
    #[serde(default)]
    pub jetstream: JetStream,
}

/// The cluster of a server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Cluster {
    /// Empty if the server is alone.
    pub name: String,
}

/// The section `jetstream` of a server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct JetStream {
    /// `None` if JetStream is not enabled.
    pub config: Option<JetStreamConfig>,
}

/// The configuration of JetStream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct JetStreamConfig {
    pub sync_always: bool,
}

/// A stream as its leader describes it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamInfo {
    #[serde(deserialize_with = "time")]
    pub created: DateTime,
    /// The time of the leader's clock.
    #[serde(deserialize_with = "time", rename = "ts")]
    pub time: DateTime,
    pub config: Map<String, Value>,
    pub state: StreamState,
    #[serde(default)]
    pub cluster: Holders,
}

/// The entries of a stream.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamState {
    #[serde(rename = "first_seq")]
    pub first: u64,
    #[serde(rename = "last_seq")]
    pub last: u64,
}

/// The servers that keep a stream.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Holders {
    pub leader: Option<String>,
    #[serde(default)]
    pub replicas: Vec<Holder>,
}

/// A server that keeps a stream, and does not lead it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Holder {
    pub name: String,
}

/// Reads a time in RFC 3339.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_rfc3339(&text).map_err(D::Error::custom)
}

/// Returns `true` if the name is one for a stream that is also one word of a subject.
pub(crate) fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.bytes().all(is_allowed)
}

/// Checks the version of a server and the size of its messages.
pub(crate) fn check_server(
    server: &str,
    version: &str,
    max_payload: usize,
) -> Result<(), ConnectError> {
    let server = server.to_owned();
    if parse_version(version).is_none_or(|version| version < MIN_VERSION) {
        return Err(ConnectError::OldServer { server, version: version.to_owned() });
    }
    if max_payload < MIN_PAYLOAD {
        return Err(ConnectError::SmallPayload { server, max_payload });
    }
    Ok(())
}

fn parse_version(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Checks the servers that are monitored.
pub(crate) fn check_monitored(
    servers: &[Monitored],
    replicas: usize,
    allow_unsafe_sync: bool,
) -> Result<(), ConnectError> {
    let Some(first) = servers.first() else {
        return if allow_unsafe_sync { Ok(()) } else { Err(ConnectError::NoMonitoring) };
    };
    for Monitored { name, version, max_payload, cluster, jetstream, .. } in servers {
        if cluster.name != first.cluster.name {
            return Err(ConnectError::OtherCluster {
                server: name.clone(),
                cluster: cluster.name.clone(),
                expected: first.cluster.name.clone(),
            });
        }
        check_server(name, version, *max_payload)?;
        match &jetstream.config {
            // The server passes the requests of clients on, and keeps no stream.
            None => {}
            Some(config) if config.sync_always || allow_unsafe_sync => {}
            Some(_) => return Err(ConnectError::UnsafeSync(name.clone())),
        }
    }
    let keeps = |server: &&Monitored| server.jetstream.config.is_some();
    let keepers: BTreeSet<_> = servers.iter().filter(keeps).map(|server| &server.id).collect();
    match keepers.len() {
        0 => Err(ConnectError::NoJetStream),
        servers if servers < replicas => Err(ConnectError::TooFewMonitored { servers, replicas }),
        _ => Ok(()),
    }
}

/// Checks that all servers that keep the stream are monitored, if any are. A server that is alone
/// does not say that it does, so it must be the one to which the client is `connected`.
pub(crate) fn check_holders(
    holders: &Holders,
    connected: &str,
    monitored: &[Monitored],
) -> Result<(), ConnectError> {
    let leader = holders.leader.as_deref().unwrap_or(connected);
    let others = holders.replicas.iter().map(|holder| holder.name.as_str());
    for name in others.chain([leader]) {
        let is_known = monitored.iter().any(|server| server.name == name);
        if !monitored.is_empty() && !is_known {
            return Err(ConnectError::Unmonitored(name.to_owned()));
        }
    }
    Ok(())
}

/// Checks the clock of a server, which was read between two times of this machine's clock.
pub(crate) fn check_clock(
    server: &str,
    time: DateTime,
    (before, after): (DateTime, DateTime),
) -> Result<(), ConnectError> {
    let [time, before, after] = [time, before, after].map(DateTime::unix_timestamp_nanos);
    let nanos = u64::try_from((before - time).max(time - after).max(0)).unwrap_or(u64::MAX);
    let offset = Duration::from_nanos(nanos);
    if offset > MAX_OFFSET {
        return Err(ConnectError::Clocks { server: server.to_owned(), offset });
    }
    Ok(())
}

/// Returns the configuration of the stream, in JetStream's API.
pub(crate) fn stream_config(settings: &NatsSettings) -> Map<String, Value> {
    let config = json!({
        "name": settings.stream,
        "description": "The order of events of a Waterclock cluster",
        "metadata": { MARK: "1" },
        "subjects": [settings.subject(), settings.snapshots()],
        "storage": "file",
        "num_replicas": settings.replicas,
        "retention": "limits",
        // An entry is refused rather than an older one dropped.
        "discard": "new",
        "max_age": 0,
        "max_bytes": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "max_consumers": -1,
        // Entries must come from the leader, which knows all of them.
        "allow_direct": false,
        "deny_delete": true,
        "deny_purge": false,
        // Entries have no Nats-Msg-Id: nodes recognize repeated ones themselves. In nanoseconds,
        // and the minimum.
        "duplicate_window": 100_000_000,
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}

/// Checks the configuration of a stream that exists.
pub(crate) fn check_stream(
    actual: &Map<String, Value>,
    settings: &NatsSettings,
) -> Result<(), ConnectError> {
    let stream = settings.stream.clone();
    if actual.get("metadata").and_then(|metadata| metadata.get(MARK)).is_none() {
        return Err(ConnectError::ForeignStream(stream));
    }
    let show = |value: Option<&Value>| value.map_or_else(|| "none".to_owned(), Value::to_string);
    let expected = stream_config(settings);
    if actual.get("num_replicas") != expected.get("num_replicas") {
        let actual = show(actual.get("num_replicas"));
        return Err(ConnectError::Replicas { stream, replicas: settings.replicas, actual });
    }
    let absent = ABSENT.iter().map(|setting| (*setting, None));
    let present = PRESENT.iter().map(|setting| (*setting, expected.get(*setting)));
    for (setting, expected) in absent.chain(present) {
        let actual = actual.get(setting).filter(|value| !is_empty(value));
        if actual != expected.filter(|value| !is_empty(value)) {
            let (actual, expected) = (show(actual), show(expected));
            return Err(ConnectError::Stream { stream, setting, actual, expected });
        }
    }
    Ok(())
}

/// Returns `true` for a value that JetStream also expresses by leaving it out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty() || text == "default",
        Value::Array(values) => values.is_empty(),
        Value::Object(_) | Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: u32) -> Monitored {
        serde_json::from_value(json!({
            "server_id": format!("N{number}"),
            "server_name": format!("n{number}"),
            "version": "2.15.2",
            "now": "2026-11-22T07:00:01.000Z",
            "max_payload": 1_048_576,
            "cluster": { "name": "c" },
            "jetstream": { "config": { "sync_always": true } },
        }))
        .unwrap()
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, is_new) in [
            ("2.14.0", true),
            ("v2.15.2", true),
            ("2.100.0-RC.1", true),
            ("3.0.0", true),
            ("2.9.30", false),
            ("1.99.0", false),
            ("2", false),
            ("", false),
        ] {
            let checked = check_server("n1", version, MIN_PAYLOAD);
            assert_eq!(checked.is_ok(), is_new, "{version}");
        }
        check_server("n1", "2.15.2", MIN_PAYLOAD - 1).unwrap_err();
    }

    #[test]
    fn servers_must_write_at_once_and_be_enough() {
        let three = || [1, 2, 3].map(server);
        let check = |servers: &[Monitored], is_unsafe| {
            check_monitored(servers, 3, is_unsafe).map_err(|error| error.to_string())
        };
        check(&three(), false).unwrap();
        assert!(check(&[], false).unwrap_err().contains("--cluster-monitoring"));
        check(&[], true).unwrap();

        let mut servers = three();
        servers[2].jetstream.config = Some(JetStreamConfig { sync_always: false });
        let error = check(&servers, false).unwrap_err();
        assert!(error.starts_with("the server n3 acknowledges entries before"), "{error}");
        check(&servers, true).unwrap();

        // One server by two URLs is one server.
        let error = check(&[1, 2, 2].map(server), true).unwrap_err();
        assert!(error.starts_with("the monitoring URLs are of 2 server(s), but 3 must"), "{error}");

        // A server without JetStream may only pass requests on.
        let mut servers = [1, 2, 3, 4].map(server);
        servers[0].jetstream.config = None;
        check(&servers, false).unwrap();
        let error = check(&servers[..3], false).unwrap_err();
        assert!(error.starts_with("the monitoring URLs are of 2 server(s), but 3 must"), "{error}");
        let error = check(&servers[..1], false).unwrap_err();
        assert!(error.starts_with("JetStream is not enabled"), "{error}");

        let mut servers = three();
        servers[1].cluster.name = "d".to_owned();
        let error = check(&servers, false).unwrap_err();
        assert!(error.starts_with("the server n2 is in the cluster \"d\""), "{error}");
    }

    #[test]
    fn servers_that_keep_the_stream_must_be_monitored() {
        let holders: Holders = serde_json::from_value(json!({
            "name": "c", "leader": "n1", "replicas": [{ "name": "n2", "current": true }],
        }))
        .unwrap();
        check_holders(&holders, "n3", &[1, 2].map(server)).unwrap();
        check_holders(&holders, "n3", &[]).unwrap();
        let error = check_holders(&holders, "n3", &[1, 3].map(server)).unwrap_err().to_string();
        assert!(error.starts_with("the server n2 keeps the stream"), "{error}");

        let alone = Holders::default();
        check_holders(&alone, "n1", &[1].map(server)).unwrap();
        let error = check_holders(&alone, "n1", &[2].map(server)).unwrap_err().to_string();
        assert!(error.starts_with("the server n1 keeps the stream"), "{error}");
    }

    #[test]
    fn clocks_may_differ_by_five_seconds_beyond_the_time_of_the_request() {
        let at = |seconds: i128| async_nats::datetime::from_nanos(seconds * 1_000_000_000).unwrap();
        for (time, is_right) in [(94, false), (95, true), (105, true), (116, true), (117, false)] {
            let checked = check_clock("n1", at(time), (at(100), at(111)));
            assert_eq!(checked.is_ok(), is_right, "{time}");
        }
    }

    #[test]
    fn the_stream_must_be_as_it_was_made() {
        let settings = NatsSettings::default();
        let made = stream_config(&settings);
        check_stream(&made, &settings).unwrap();
        for (setting, value) in [
            ("subjects", json!(["waterclock.entries", "other"])),
            ("storage", json!("memory")),
            ("retention", json!("workqueue")),
            ("discard", json!("old")),
            ("max_age", json!(3_600_000_000_000_u64)),
            ("max_bytes", json!(1 << 30)),
            ("max_msgs", json!(1000)),
            ("max_msgs_per_subject", json!(1000)),
            ("max_msg_size", json!(1000)),
            ("sealed", json!(true)),
            ("mirror", json!({ "name": "other" })),
            ("sources", json!([{ "name": "other" }])),
            ("deny_delete", json!(false)),
            ("deny_purge", json!(true)),
            ("persist_mode", json!("async")),
            ("no_ack", json!(true)),
        ] {
            let mut changed = made.clone();
            changed.insert(setting.to_owned(), value);
            let error = check_stream(&changed, &settings).unwrap_err().to_string();
            assert!(error.starts_with("the stream \"waterclock\" has "), "{error}");
            assert!(error.contains(setting), "{error}");
        }
        let mut changed = made.clone();
        changed.insert("num_replicas".to_owned(), json!(1));
        let error = check_stream(&changed, &settings).unwrap_err().to_string();
        assert!(error.contains("has 1 replica(s) instead of 3"), "{error}");

        let mut changed = made;
        changed.insert("metadata".to_owned(), json!({ "other": "1" }));
        let error = check_stream(&changed, &settings).unwrap_err().to_string();
        assert!(error.contains("was not made by Waterclock"), "{error}");
    }

    #[test]
    fn names_are_one_word_of_a_subject() {
        for (name, is_good) in
            [("waterclock", true), ("a-b_1", true), ("", false), ("a.b", false), ("a b", false)]
        {
            assert_eq!(is_name(name), is_good, "{name}");
        }
    }
}
