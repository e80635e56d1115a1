//! Tests of what the operator gets: the figures of the event log, and the metrics, reasons and
//! alerts that the dashboard, the alert rules and their documentation name.

use std::collections::BTreeSet;

use crate::support::Server;

const DASHBOARD: &str = include_str!("../../../docs/grafana.json");
const ALERTS: &str = include_str!("../../../packaging/prometheus/alerts.yml");
const CASES: &str = include_str!("../../../packaging/prometheus/alerts.test.yml");
const DOCUMENTATION: &str = include_str!("../../../docs/monitoring.md");

/// Returns the names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let name = |(at, _)| {
        let name = text[at..].split(|c: char| !c.is_ascii_lowercase() && c != '_').next();
        name.unwrap_or_default()
    };
    text.match_indices("waterclock_").map(name).collect()
}

/// Returns the names of the series that are served, without labels.
fn series(metrics: &str) -> BTreeSet<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split(['{', ' ']).next()).collect()
}

#[tokio::test]
async fn the_dashboard_and_the_alerts_name_existing_metrics_and_reasons() {
    let server = Server::start().await;
    let metrics = server.get("/metrics").await.rest().await;
    let mut series = series(&metrics);
    // Only with TLS; `acme.rs` looks at it.
    series.insert("waterclock_certificate_expires_timestamp_seconds");
    for text in [DASHBOARD, ALERTS, CASES] {
        let names = names(text);
        assert!(names.len() > 15);
        for name in names {
            assert!(series.contains(name), "{name}: {metrics}");
        }
        // A label in quotes, which JSON escapes.
        for part in text.split("reason=").skip(1) {
            let part = part.trim_start_matches(['\\', '"']);
            let reason = part.split(['\\', '"']).next().unwrap();
            assert!(metrics.contains(&format!("reason=\"{reason}\"")), "{reason}: {metrics}");
        }
    }
}

#[tokio::test]
async fn the_documentation_has_exactly_the_metrics() {
    let server = Server::start().await;
    let metrics = server.get("/metrics").await.rest().await;
    let (_, table) = DOCUMENTATION.split_once("| metric ").unwrap();
    // The first column, in backticks.
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let mut documented: BTreeSet<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(|name| format!("waterclock_{}", name.split('{').next().unwrap_or_default()))
        .collect();
    // Without TLS, there is no certificate.
    assert!(documented.remove("waterclock_certificate_expires_timestamp_seconds"));
    let types = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.map(|(name, kind)| match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    });
    assert_eq!(documented, names.collect());
}

#[test]
fn each_alert_has_a_case_and_a_row_in_the_documentation() {
    let alerts: Vec<_> =
        ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 20);
    for alert in &alerts {
        assert!(CASES.contains(&format!("- name: {alert}\n")), "{alert}");
        assert!(DOCUMENTATION.contains(&format!("\n| `{alert}` | ")), "{alert}");
    }
    assert_eq!(DOCUMENTATION.matches("\n| `Waterclock").count(), alerts.len());
    assert_eq!(ALERTS.matches(" runbook: docs/monitoring.md#alerts\n").count(), alerts.len());
}

#[tokio::test]
async fn the_figures_of_the_event_log_are_served() {
    let server = Server::start().await;
    for (topic, data) in [("a", "12345"), ("a", "6"), ("b", "78")] {
        server.publish_to(topic, data).await;
    }
    let metrics = server.get("/metrics").await.rest().await;
    for line in [
        "waterclock_log_readable 1",
        "waterclock_log_writable 1",
        "waterclock_cluster_connected 1",
        "waterclock_publish_queue 0",
        "waterclock_publish_queue_max 1024",
        "waterclock_streams_slow 0",
        "waterclock_lag_seconds 0.0",
        concat!("waterclock_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(metrics.lines().any(|served| served == line), "{line}: {metrics}");
    }
    // The clock has some events, too.
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}: {metrics}")).parse::<f64>().unwrap()
    };
    assert!(value("waterclock_log_topics") >= 2.0);
    assert!(value("waterclock_log_events") >= 3.0);
    assert!(value("waterclock_log_data_bytes") >= 8.0);
    assert!(value("waterclock_start_time_seconds") > 1.7e9);
}
