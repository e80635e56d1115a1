//! The transports: four ways to read the same log.

use serde::{Deserialize, Serialize};

/// A way to read the log.
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
    /// All that there are.
    pub const ALL: [Self; 4] = [Self::Sse, Self::WebSocket, Self::LongPoll, Self::Poll];

    /// As it is written on the wire and in addresses.
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
    fn transports_are_called_as_they_are_written() {
        for transport in Transport::ALL {
            assert_eq!(serde_json::to_value(transport).unwrap(), transport.as_str());
        }
    }
}
