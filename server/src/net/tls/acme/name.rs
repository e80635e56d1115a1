//! Names of hosts that an authority can validate by TLS-ALPN-01.

use std::{fmt, str::FromStr};

use thiserror::Error;
use tokio_rustls::rustls::pki_types::ServerName;

/// A name of a host in a certificate, in lower case, without a final dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AcmeName(String);

/// An error of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidAcmeName {
    /// A pattern such as `*.example.org`.
    #[error("wildcards need a change of DNS, which this server cannot make: name each host")]
    Wildcard,
    /// An IP address.
    #[error("expected the name of a host, such as live.example.org, and not an address")]
    Address,
    /// Letters beyond ASCII.
    #[error("write the name as DNS has it, with xn--")]
    NotAscii,
    /// Anything else, such as a URL.
    #[error("expected the name of a host, such as live.example.org")]
    Malformed,
}

impl FromStr for AcmeName {
    type Err = InvalidAcmeName;

    fn from_str(text: &str) -> Result<Self, InvalidAcmeName> {
        if !text.is_ascii() {
            return Err(InvalidAcmeName::NotAscii);
        }
        if text.contains('*') {
            return Err(InvalidAcmeName::Wildcard);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        match ServerName::try_from(name.as_str()) {
            // An authority refuses an underscore.
            Ok(ServerName::DnsName(_)) if !name.contains('_') => Ok(Self(name)),
            Ok(ServerName::IpAddress(_)) => Err(InvalidAcmeName::Address),
            _ => Err(InvalidAcmeName::Malformed),
        }
    }
}

impl fmt::Display for AcmeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized_and_others_are_refused_with_a_reason() {
        for (text, name) in [
            ("Live.Example.ORG.", "live.example.org"),
            ("localhost", "localhost"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(text.parse::<AcmeName>().unwrap().to_string(), name);
        }
        for (text, error) in [
            ("*.example.org", InvalidAcmeName::Wildcard),
            ("192.0.2.1", InvalidAcmeName::Address),
            ("2001:db8::1", InvalidAcmeName::Address),
            ("bücher.example", InvalidAcmeName::NotAscii),
            ("", InvalidAcmeName::Malformed),
            (".", InvalidAcmeName::Malformed),
            ("a..b", InvalidAcmeName::Malformed),
            ("https://example.org", InvalidAcmeName::Malformed),
            ("example.org:443", InvalidAcmeName::Malformed),
            ("a_b.example.org", InvalidAcmeName::Malformed),
        ] {
            assert_eq!(text.parse::<AcmeName>(), Err(error), "{text}");
        }
    }
}
