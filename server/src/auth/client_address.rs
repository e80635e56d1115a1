//! The address of a client: that of the connection, or the one that a trusted proxy reports.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use axum::http::{HeaderMap, header::FORWARDED, request::Parts};
use ipnet::IpNet;

use crate::net::Peer;

/// A proxy, or a network of proxies, whose word on a client's address is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy(IpNet);

impl FromStr for TrustedProxy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| text.parse()).map(Self);
        network.map_err(|_| "expected an address or a network, such as 127.0.0.1 or 10.0.0.0/8")
    }
}

/// Returns the address of a request's client, or `None` for a request that no socket has received.
pub(crate) fn client_address(request: &Parts, trusted: &[TrustedProxy]) -> Option<IpAddr> {
    let peer = request.extensions.get::<Peer>()?;
    Some(forwarded_address(peer.address, &request.headers, trusted))
}

/// The last address on a request's path that is not a trusted proxy's. Earlier ones may be made up.
fn forwarded_address(peer: IpAddr, headers: &HeaderMap, trusted: &[TrustedProxy]) -> IpAddr {
    let is_trusted = |address: IpAddr| {
        trusted.iter().any(|TrustedProxy(network)| network.contains(&address.to_canonical()))
    };
    let mut client = peer;
    let mut way = forwarded_way(headers);
    while is_trusted(client)
        && let Some(before) = way.pop().flatten()
    {
        client = before;
    }
    client.to_canonical()
}

/// The addresses on a request's path, in order, as proxies report them. A hidden address is `None`.
fn forwarded_way(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let list = |name| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(','))
    };
    // Most proxies write this header, and pass the other on as the client sent it.
    if headers.contains_key("x-forwarded-for") {
        list("x-forwarded-for").map(node_address).collect()
    } else {
        // RFC 7239, 4.
        let of = |element: &str| {
            let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs
                .find(|(name, _)| name.eq_ignore_ascii_case("for"))
                .and_then(|(_, node)| node_address(node))
        };
        list(FORWARDED.as_str()).map(of).collect()
    }
}

/// Parses an address, with or without quotes, brackets and a port.
fn node_address(node: &str) -> Option<IpAddr> {
    let node = node.trim().trim_matches('"');
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    node.parse().ok().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn client(peer: &str, headers: &[(&str, &str)]) -> String {
        let trusted = ["127.0.0.1", "10.0.0.0/8"].map(|text| text.parse().unwrap());
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::try_from(*name).unwrap(), value.parse().unwrap()));
        forwarded_address(peer.parse().unwrap(), &headers.collect(), &trusted).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_says_who_the_client_is() {
        let says = [("x-forwarded-for", "192.0.2.1, 198.51.100.7, 10.1.2.3")];
        for (peer, expected) in [
            ("203.0.113.9", "203.0.113.9"),
            ("127.0.0.1", "198.51.100.7"),
            ("::ffff:127.0.0.1", "198.51.100.7"),
            ("10.9.9.9", "198.51.100.7"),
        ] {
            assert_eq!(client(peer, &says), expected, "{peer}");
        }
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
        assert_eq!(client("127.0.0.1", &[("x-forwarded-for", "10.0.0.1, 10.0.0.2")]), "10.0.0.1");
    }

    #[test]
    fn both_headers_are_read_in_all_spellings() {
        for (header, value, expected) in [
            ("x-forwarded-for", "192.0.2.1:4711", "192.0.2.1"),
            ("x-forwarded-for", "[2001:db8::1]:4711", "2001:db8::1"),
            ("x-forwarded-for", "2001:db8::1", "2001:db8::1"),
            ("forwarded", "for=192.0.2.1;proto=https", "192.0.2.1"),
            ("forwarded", "For=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("forwarded", "for=192.0.2.9, by=x;for=192.0.2.1", "192.0.2.1"),
            // For hidden or invalid addresses, the proxy stands for its clients.
            ("forwarded", "for=unknown", "127.0.0.1"),
            ("forwarded", "for=_hidden", "127.0.0.1"),
            ("forwarded", "proto=https", "127.0.0.1"),
            ("x-forwarded-for", "", "127.0.0.1"),
            ("x-forwarded-for", "example.org", "127.0.0.1"),
        ] {
            assert_eq!(client("127.0.0.1", &[(header, value)]), expected, "{header}: {value}");
        }
        let both = [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-for", "192.0.2.2")];
        assert_eq!(client("127.0.0.1", &both), "192.0.2.2", "the last value counts");
        let both = [("forwarded", "for=192.0.2.1"), ("x-forwarded-for", "192.0.2.2")];
        assert_eq!(client("127.0.0.1", &both), "192.0.2.2");
    }

    #[test]
    fn invalid_proxies_are_refused() {
        for text in ["", "proxy", "10.0.0.0/33", "10.0.0.1:80"] {
            assert!(text.parse::<TrustedProxy>().is_err(), "{text}");
        }
    }
}
