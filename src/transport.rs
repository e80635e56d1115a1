//! The transports: four protocols for reading the same events.

use serde::{Deserialize, Serialize};

/// A protocol for reading events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Server-Sent Events (WHATWG HTML 9.2): `GET /events`.
    Sse,
    /// WebSocket (RFC 6455): `GET /ws`.
    #[serde(rename = "websocket")]
    WebSocket,
    /// Long polling (RFC 6202): `GET /poll` with `wait`.
    LongPoll,
    /// Polling: `GET /poll`.
    Poll,
}

impl Transport {
    /// All transports.
    pub const ALL: [Self; 4] = [Self::Sse, Self::WebSocket, Self::LongPoll, Self::Poll];

    /// Returns the name on the wire and in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::WebSocket => "websocket",
            Self::LongPoll => "long-poll",
            Self::Poll => "poll",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_serialized_by_name() {
        for transport in Transport::ALL {
            assert_eq!(serde_json::to_value(transport).unwrap(), transport.as_str());
        }
    }
}
