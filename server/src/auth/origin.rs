//! Hosts and origins, and what counts as a local request.

use std::{fmt, net::IpAddr, str::FromStr};

use axum::http::{
    HeaderValue, Uri, Version,
    header::{HOST, ORIGIN},
    request::Parts,
    uri::Authority,
};

use crate::net::Peer;

/// A host name without a port: `clock.test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost(String);

/// An origin (RFC 6454), such as `https://example.org`, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// Any origin, written `*`.
    Any,
    /// One origin, spelled as browsers do.
    Only(HeaderValue),
}

impl FromStr for AllowedHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<Authority>() {
            Ok(authority) if authority.as_str() == authority.host() => {
                Ok(Self(text.trim_end_matches('.').to_ascii_lowercase()))
            }
            _ => Err("expected a host name without a port, such as clock.test"),
        }
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CorsOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Any);
        }
        // Browsers write origins in lower case, and leave out the default port of the scheme.
        let origin = text.to_ascii_lowercase();
        let origin = match origin.split_once("://") {
            Some(("http", _)) => origin.trim_end_matches(":80"),
            _ => origin.trim_end_matches(":443"),
        };
        let is_origin = |uri: &Uri| {
            let (scheme, authority) = (uri.scheme_str(), uri.authority());
            let parts = scheme.zip(authority).filter(|(_, a)| !a.as_str().contains('@'));
            parts.is_some_and(|(scheme, authority)| format!("{scheme}://{authority}") == origin)
        };
        let value = HeaderValue::from_str(origin).ok();
        let value = value.filter(|_| origin.parse().is_ok_and(|uri| is_origin(&uri)));
        value
            .map(Self::Only)
            .ok_or("expected an origin, such as https://example.org or http://localhost:5173, or *")
    }
}

/// The origin of a local request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOrigin {
    /// One of the server's own pages, or a program that is no browser.
    Own,
    /// A page of another origin that may read.
    MayRead,
}

/// The sign by which a request is recognized as not local.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotLocal {
    /// The address on which it arrived.
    Address,
    /// The name by which it calls the server.
    Host,
    /// A header of a proxy.
    Forwarded,
    /// The origin of the page that makes it.
    Origin,
    /// None: local requests need a token, too.
    TokenRequired,
}

impl fmt::Display for NotLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "it did not arrive on a loopback address, such as 127.0.0.1",
            Self::Host => {
                "its `Host` is not a loopback name (the option --allowed-host adds names)"
            }
            Self::Forwarded => {
                "it came through a proxy, by a header such as `Via` or `X-Forwarded-For`"
            }
            Self::Origin => {
                "it comes from a page of another origin (the option --cors-origin permits reading)"
            }
            Self::TokenRequired => "every request needs a token (the option --require-token)",
        })
    }
}

/// Headers that most proxies add to a request.
const PROXY_HEADERS: [&str; 6] =
    ["cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-forwarded", "x-real-ip"];
/// Prefixes of further headers of proxies.
const PROXY_HEADER_PREFIXES: [&str; 2] = ["x-forwarded-", "x-original-"];

/// Decides whether a request is local, and where it comes from.
pub(super) fn locality(
    request: &Parts,
    allowed_hosts: &[AllowedHost],
    cors_origins: &[CorsOrigin],
) -> Result<RequestOrigin, NotLocal> {
    let headers = &request.headers;
    if !request.extensions.get::<Peer>().is_some_and(|peer| peer.is_local) {
        return Err(NotLocal::Address);
    }
    let is_of_proxy = |name: &str| {
        PROXY_HEADERS.contains(&name)
            || PROXY_HEADER_PREFIXES.iter().any(|start| name.starts_with(start))
    };
    if headers.keys().any(|name| is_of_proxy(name.as_str())) {
        return Err(NotLocal::Forwarded);
    }
    // Without a `Host` it is not a browser, and so not a page's request.
    let host = requested_host(request).map_err(|InvalidHost| NotLocal::Host)?;
    if let Some(host) = &host {
        if !is_own_name(host.host(), allowed_hosts) {
            return Err(NotLocal::Host);
        }
    } else if request.version > Version::HTTP_10 {
        return Err(NotLocal::Host);
    }
    let mut request_origin = RequestOrigin::Own;
    for origin in headers.get_all(ORIGIN) {
        if is_origin_of(origin, host.as_ref()) {
            continue;
        }
        if !may_origin_read(origin, cors_origins) {
            return Err(NotLocal::Origin);
        }
        request_origin = RequestOrigin::MayRead;
    }
    // An image or a script that another page loads has no `Origin` (Fetch Metadata). `same-site`
    // includes other ports of this machine. Following a link to one of our pages is allowed.
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let is_elsewhere = says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site");
    let is_link = says("sec-fetch-mode", "navigate") && request.method.is_safe();
    if request_origin == RequestOrigin::Own && is_elsewhere && !is_link {
        return Err(NotLocal::Origin);
    }
    Ok(request_origin)
}

/// The first `Origin` of a request that is neither the server's own nor permitted to read.
pub(super) fn foreign_origin<'a>(
    request: &'a Parts,
    cors_origins: &[CorsOrigin],
) -> Option<&'a HeaderValue> {
    let host = requested_host(request).ok().flatten();
    let mut origins = request.headers.get_all(ORIGIN).into_iter();
    origins.find(|origin| {
        !is_origin_of(origin, host.as_ref()) && !may_origin_read(origin, cors_origins)
    })
}

/// Returns `true` if `origin` is permitted by name, not by `*`.
pub(super) fn is_named_origin(origin: &HeaderValue, cors_origins: &[CorsOrigin]) -> bool {
    cors_origins
        .iter()
        .any(|allowed| matches!(allowed, CorsOrigin::Only(allowed) if allowed == origin))
}

fn may_origin_read(origin: &HeaderValue, cors_origins: &[CorsOrigin]) -> bool {
    cors_origins.contains(&CorsOrigin::Any) || is_named_origin(origin, cors_origins)
}

fn is_own_name(host: &str, allowed_hosts: &[AllowedHost]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = match in_brackets {
        Some(address) => address.parse().map(IpAddr::V6),
        None => host.parse().map(IpAddr::V4),
    };
    // Names below localhost are loopback names, too (RFC 6761, 6.3).
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
        || allowed_hosts.iter().any(|allowed| allowed.0 == host)
}

/// Returns `true` if a page of `origin` belongs to `host`.
pub(super) fn is_origin_of(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let both = authority.zip(host);
    both.is_some_and(|((_, authority), host)| host.as_str().eq_ignore_ascii_case(authority))
}

/// A `Host` that is not a valid host, or not the only one.
pub(super) struct InvalidHost;

/// The host that a request asks for (RFC 9110, 7.2). An absolute request target overrides `Host`
/// (RFC 9112, 3.2.2). In HTTP/2 the two must not differ (RFC 9113, 8.3.1), since a proxy may have
/// checked the other one.
pub(super) fn requested_host(request: &Parts) -> Result<Option<Authority>, InvalidHost> {
    let target = request.uri.authority();
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(InvalidHost),
        (Some(host), None) => Some(host.as_bytes().try_into().map_err(|_| InvalidHost)?),
        (None, None) => None,
    };
    let differ = target.zip(host.as_ref()).is_some_and(|(target, host)| target != host);
    let host = target.cloned().or(host);
    let has_user = host.as_ref().is_some_and(|host| host.as_str().contains('@'));
    if has_user || differ && request.version == Version::HTTP_2 {
        return Err(InvalidHost);
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;
    use crate::auth::Access;

    fn check(
        access: &Access,
        is_local: bool,
        headers: &[(&str, &str)],
    ) -> Result<RequestOrigin, NotLocal> {
        let mut request = Request::get("/events");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let request = request.extension(Peer { address, is_local }).body(()).unwrap();
        let (request, ()) = request.into_parts();
        locality(&request, &access.allowed_hosts, &access.cors_origins)
    }

    #[test]
    fn loopback_names_are_local() {
        let access =
            Access { allowed_hosts: ["clock.test".parse().unwrap()].into(), ..Access::default() };
        for (host, expected) in [
            ("localhost", Ok(RequestOrigin::Own)),
            ("LOCALHOST.:3000", Ok(RequestOrigin::Own)),
            ("a.localhost:3000", Ok(RequestOrigin::Own)),
            ("127.0.0.1:3000", Ok(RequestOrigin::Own)),
            ("127.9.9.9", Ok(RequestOrigin::Own)),
            ("[::1]:3000", Ok(RequestOrigin::Own)),
            ("[::ffff:127.0.0.1]", Ok(RequestOrigin::Own)),
            ("Clock.test:3000", Ok(RequestOrigin::Own)),
            ("notlocalhost", Err(NotLocal::Host)),
            ("localhost.example", Err(NotLocal::Host)),
            ("127.0.0.1.example", Err(NotLocal::Host)),
            ("192.0.2.1", Err(NotLocal::Host)),
            ("[2001:db8::1]", Err(NotLocal::Host)),
            ("a b", Err(NotLocal::Host)),
            ("evil.example@localhost", Err(NotLocal::Host)),
            ("", Err(NotLocal::Host)),
        ] {
            assert_eq!(check(&access, true, &[("host", host)]), expected, "{host}");
            assert_eq!(check(&access, false, &[("host", host)]), Err(NotLocal::Address), "{host}");
        }
    }

    #[test]
    fn headers_of_proxies_are_not_local() {
        for name in ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-Real-IP", "Via"] {
            let headers = [("host", "localhost"), (name, "")];
            assert_eq!(
                check(&Access::default(), true, &headers),
                Err(NotLocal::Forwarded),
                "{name}"
            );
        }
    }

    #[test]
    fn only_own_and_allowed_origins_are_local() {
        let access = Access {
            cors_origins: ["https://example.org".parse().unwrap()].into(),
            ..Access::default()
        };
        for (origin, expected) in [
            ("http://localhost:3000", Ok(RequestOrigin::Own)),
            ("https://localhost:3000", Ok(RequestOrigin::Own)),
            ("https://example.org", Ok(RequestOrigin::MayRead)),
            ("http://localhost:3001", Err(NotLocal::Origin)),
            ("http://127.0.0.1:3000", Err(NotLocal::Origin)),
            ("http://localhost", Err(NotLocal::Origin)),
            ("http://example.org", Err(NotLocal::Origin)),
            ("https://example.org.evil.example", Err(NotLocal::Origin)),
            ("null", Err(NotLocal::Origin)),
            ("", Err(NotLocal::Origin)),
        ] {
            let headers = [("host", "localhost:3000"), ("origin", origin)];
            assert_eq!(check(&access, true, &headers), expected, "{origin}");
        }
    }

    #[test]
    fn fetch_metadata_reveals_pages_of_other_origins() {
        for (site, mode, expected) in [
            ("cross-site", "no-cors", Err(NotLocal::Origin)),
            ("same-site", "no-cors", Err(NotLocal::Origin)),
            ("cross-site", "cors", Err(NotLocal::Origin)),
            ("cross-site", "navigate", Ok(RequestOrigin::Own)),
            ("same-origin", "no-cors", Ok(RequestOrigin::Own)),
            ("none", "navigate", Ok(RequestOrigin::Own)),
        ] {
            let headers =
                [("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            assert_eq!(check(&Access::default(), true, &headers), expected, "{site} {mode}");
        }
    }
}
