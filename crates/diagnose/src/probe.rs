//! The probe's events on the wire, as `/diagnose/stream` sends them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The request headers that reveal the path of a request. None of them is a secret.
pub const PATH_HEADERS: [&str; 40] = [
    "host",
    "connection",
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-server",
    "x-real-ip",
    "x-request-id",
    "x-unique-id",
    "x-varnish",
    "accept-encoding",
    "cache-control",
    "te",
    "upgrade",
    "cdn-loop",
    "cf-ray",
    "x-amz-cf-id",
    "x-amzn-trace-id",
    "x-amzn-apigateway-api-id",
    "x-cloud-trace-context",
    "x-azure-ref",
    "x-azure-fdid",
    "x-appgw-trace-id",
    "x-original-host",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-internal",
    "fastly-ff",
    "fastly-client-ip",
    "x-request-start",
    "connect-time",
    "x-vercel-id",
    "x-nf-request-id",
    "fly-request-id",
    "fly-forwarded-port",
    "fly-region",
    "front-end-https",
];

/// The data of an event of the probe, as JSON on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeEvent {
    /// Number of the event, from 1.
    pub number: u32,
    /// Time at which the event was written, by the server's clock, in milliseconds since 1970.
    pub time: f64,
    /// Random letters of the length that was requested.
    pub padding: String,
    /// The request as the server received it; only in the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestEcho>,
}

impl ProbeEvent {
    /// The `event` field of the probe's events.
    pub const NAME: &str = "probe";
    /// The comment at the beginning of the probe's stream.
    pub const COMMENT: &str = "waterclock probe";

    /// Returns the `id` field of the event with a number.
    pub fn id(number: u32) -> String {
        format!("probe-{number}")
    }
}

/// A request as the server received it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestEcho {
    /// The version of HTTP, such as `HTTP/1.1`.
    pub version: String,
    /// The method, such as `GET`.
    pub method: String,
    /// The header `Last-Event-ID`.
    pub last_event_id: Option<String>,
    /// The interval after which the server sends a heartbeat on an idle stream, in milliseconds.
    pub heartbeat_ms: u64,
    /// Uptime of the server, in milliseconds. Older servers do not send it.
    #[serde(default)]
    pub uptime_ms: Option<u64>,
    /// The headers listed in [`PATH_HEADERS`]. Several values of one name are joined with commas.
    pub headers: BTreeMap<String, String>,
}

impl RequestEcho {
    /// Returns the headers as [`detect_intermediaries`](crate::detect_intermediaries) takes them.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().map(|(name, value)| (&**name, &**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_header_is_a_secret() {
        for name in PATH_HEADERS {
            assert!(!["cookie", "authorization", "proxy-authorization"].contains(&name));
            assert_eq!(name, name.to_lowercase());
        }
    }
}
