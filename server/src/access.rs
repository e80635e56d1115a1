//! Who may read and publish.
//!
//! Everything is open to this machine, and only to it: a request that came in on a loopback address,
//! calls us by a loopback name, does not say that a proxy has passed it on, and does not come from a page
//! elsewhere. So neither a page that rebinds its name to 127.0.0.1 nor everybody behind a proxy (one that
//! says so) can read what a developer's server says. Others may read the topics that are public, and
//! what their token says.

use std::{convert::Infallible, fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{
        HeaderName, HeaderValue, Method, Uri, Version,
        header::{AUTHORIZATION, COOKIE, HOST, ORIGIN},
        request::Parts,
        uri::Authority,
    },
};
use tower_http::cors::{AllowOrigin, CorsLayer};
use waterclock::{
    event::Topic,
    pattern::{Pattern, Patterns},
    timestamp::Timestamp,
};

use crate::{
    problem::Problem,
    router::AppState,
    serve::Peer,
    token::{BadToken, Token, Tokens},
};

/// The cookie that a token may be in, where no header can be set, as by `EventSource`.
pub const COOKIE_NAME: &str = "waterclock_token";

/// How long a browser need not ask again whether another origin's page may read.
const ASK_AGAIN: Duration = Duration::from_hours(1);

/// Who may, as the options say.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// What anyone may read.
    pub public_topics: Arc<[Pattern]>,
    /// Names that count as loopback names.
    pub allowed_hosts: Arc<[AllowedHost]>,
    /// Whose pages may read as ours may.
    pub cors_origins: Arc<[CorsOrigin]>,
    /// By what a token is checked; none if there are no tokens.
    pub tokens: Option<Arc<Tokens>>,
    /// Whether this machine needs one, too.
    pub is_token_required: bool,
}

/// A host without a port: `clock.test`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost(String);

/// An origin (RFC 6454), such as `https://example.org`, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigin {
    /// `*`
    Any,
    /// As browsers write it.
    Only(HeaderValue),
}

impl FromStr for AllowedHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<Authority>() {
            Ok(authority) if authority.as_str() == authority.host() => {
                Ok(Self(text.trim_end_matches('.').to_ascii_lowercase()))
            }
            _ => Err("a host name without a port is needed, such as clock.test"),
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
        // As browsers write it: in lower case, and without the port that its scheme has anyway.
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
        value.map(Self::Only).ok_or(
            "an origin is needed, such as https://example.org or http://localhost:5173, or *",
        )
    }
}

/// Who makes a request.
#[derive(Debug)]
pub struct Caller {
    /// Whether it comes from this machine, and if not, by what that was seen.
    machine: Result<Page, Foreign>,
    /// The same, if this machine needs no token.
    trusted: Result<Page, Foreign>,
    token: Result<Option<Token>, BadToken>,
}

/// Until when something is allowed; none for as long as it is asked for.
pub type Until = Option<Timestamp>;

/// Who may publish.
#[derive(Debug)]
pub struct Publisher {
    /// By what one is told from others.
    pub name: String,
    /// For how long.
    pub until: Until,
}

/// By what permission something may be read.
#[derive(Debug, Hash)]
pub enum Reader<'a> {
    /// Without a token.
    Anyone,
    /// By a token: whose, and for what.
    Token(&'a str, &'a [Pattern]),
}

/// What a request of this machine comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// A page of ours, or no page.
    Ours,
    /// A page of an origin that may read.
    MayRead,
}

/// By what a request is seen to come from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The address that it reached.
    Address,
    /// What it calls us.
    Host,
    /// A proxy passed it on.
    Forwarded,
    /// The page that makes it.
    Origin,
    /// It does not matter where from: tokens are required.
    NoToken,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "it did not come in on a loopback address",
            Self::Host => {
                "its `Host` is not a loopback name (the option --allowed-host adds others)"
            }
            Self::Forwarded => "a proxy has passed it on",
            Self::Origin => {
                "it comes from a page of another origin (the option --cors-origin lets some read)"
            }
            Self::NoToken => "everybody needs a token",
        })
    }
}

impl Caller {
    /// Whether those topics may be read, and until when.
    ///
    /// # Errors
    ///
    /// If the request is not from this machine, not all of them are public, and its token does not list
    /// them.
    pub fn may_read(&self, topics: &Patterns, access: &Access) -> Result<Until, Problem> {
        let covers = |allowed: &[Pattern], pattern| allowed.iter().any(|one| one.covers(pattern));
        if self.trusted.is_ok() || topics.iter().all(|topic| covers(&access.public_topics, topic)) {
            return Ok(None);
        }
        let token = self.token(access, Problem::NotPublic)?;
        let is_allowed =
            |pattern| covers(&token.subscribe, pattern) || covers(&access.public_topics, pattern);
        match topics.iter().find(|pattern| !is_allowed(pattern)) {
            None => Ok(Some(token.expires)),
            Some(pattern) => Err(Problem::NotInToken {
                claim: "subscribe",
                pattern: pattern.to_string(),
                listed: token.subscribe.clone(),
            }),
        }
    }

    /// By what permission those topics may be read: requests with the same may be given the same events.
    ///
    /// # Errors
    ///
    /// As [`may_read`](Self::may_read).
    pub fn reads_as(&self, topics: &Patterns, access: &Access) -> Result<Reader<'_>, Problem> {
        Ok(match (self.may_read(topics, access)?, &self.token) {
            (Some(_), Ok(Some(token))) => Reader::Token(&token.publisher, &token.subscribe),
            _ => Reader::Anyone,
        })
    }

    /// Whether events may be published to that topic, and until when.
    ///
    /// # Errors
    ///
    /// If the request is not from this machine, or from a page elsewhere, even if that may read, and has
    /// no token that lists the topic.
    pub fn may_publish(&self, topic: &Topic, access: &Access) -> Result<Publisher, Problem> {
        let why = match self.trusted {
            Ok(Page::Ours) => return Ok(Publisher { name: "local".to_owned(), until: None }),
            Ok(Page::MayRead) => Foreign::Origin,
            Err(why) => why,
        };
        let token = self.token(access, |_| Problem::MayNotPublish(why))?;
        if token.publish.iter().any(|pattern| pattern.matches(topic)) {
            return Ok(Publisher { name: token.publisher.clone(), until: Some(token.expires) });
        }
        Err(Problem::NotInToken {
            claim: "publish",
            pattern: topic.to_string(),
            listed: token.publish.clone(),
        })
    }

    /// Whether some topic may be published to.
    pub fn may_publish_any(&self) -> bool {
        let token = self.token.as_ref().ok().and_then(Option::as_ref);
        self.trusted == Ok(Page::Ours) || token.is_some_and(|token| !token.publish.is_empty())
    }

    /// For what only this machine may read.
    ///
    /// # Errors
    ///
    /// [`Problem::NotLocal`], if the request is from elsewhere.
    pub fn is_local(&self) -> Result<(), Problem> {
        self.machine.map(drop).map_err(Problem::NotLocal)
    }

    /// For what only pages of ours and programs on this machine may do, and need no token for.
    ///
    /// # Errors
    ///
    /// [`Problem::NotLocal`], if the request is something else's.
    pub fn is_ours(&self) -> Result<(), Problem> {
        match self.trusted {
            Ok(Page::Ours) => Ok(()),
            Ok(Page::MayRead) => Err(Problem::NotLocal(Foreign::Origin)),
            Err(why) => Err(Problem::NotLocal(why)),
        }
    }

    /// Whether it comes from no page, from ours, or from one of an origin that may read. Browsers let any
    /// page open a WebSocket anywhere (RFC 6455, 10.2), so the server has to look.
    ///
    /// # Errors
    ///
    /// [`Problem::ForeignOrigin`], if it is from another one.
    pub fn may_open_socket(parts: &Parts, access: &Access) -> Result<(), Problem> {
        let host = host(parts).ok().flatten();
        let mut origins = parts.headers.get_all(ORIGIN).into_iter();
        let foreign = origins
            .find(|origin| !is_origin_of(origin, host.as_ref()) && !access.may_origin_read(origin));
        foreign.map_or(Ok(()), |origin| {
            Err(Problem::ForeignOrigin(String::from_utf8_lossy(origin.as_bytes()).into_owned()))
        })
    }

    /// The token, which is needed now; if there can be none, the problem is another.
    fn token(
        &self,
        access: &Access,
        without: impl FnOnce(Foreign) -> Problem,
    ) -> Result<&Token, Problem> {
        match &self.token {
            Ok(Some(token)) => Ok(token),
            Err(bad) => Err(Problem::BadToken(bad.clone())),
            Ok(None) if access.tokens.is_some() => Err(Problem::NoToken),
            Ok(None) => Err(without(self.trusted.err().unwrap_or(Foreign::Origin))),
        }
    }

    /// What a request's head says.
    pub fn of(parts: &Parts, access: &Access, now: Timestamp) -> Self {
        let machine = access.check(parts);
        let trusted = if access.is_token_required { Err(Foreign::NoToken) } else { machine };
        Self { machine, trusted, token: access.token(parts, now) }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        Ok(Self::of(parts, &state.access, state.hub.now()))
    }
}

impl Access {
    /// What answers browsers that ask for another origin's page (Fetch, "CORS protocol"); none if no
    /// other origin may.
    pub fn cors(&self) -> Option<CorsLayer> {
        let origins: Option<Vec<_>> = self
            .cors_origins
            .iter()
            .map(|origin| match origin {
                CorsOrigin::Any => None,
                CorsOrigin::Only(origin) => Some(origin.clone()),
            })
            .collect();
        // With a cookie only who is named: any page could read what its visitor may otherwise.
        let with_cookie = origins.is_some();
        let origins = origins.map_or(AllowOrigin::any(), AllowOrigin::list);
        let headers = ["last-event-id", "idempotency-key", "content-type"];
        let headers = headers.map(HeaderName::from_static).into_iter().chain([AUTHORIZATION]);
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_credentials(with_cookie)
            .allow_methods([Method::GET, Method::POST, Method::PUT])
            .allow_headers(headers.collect::<Vec<_>>())
            .max_age(ASK_AGAIN);
        (!self.cors_origins.is_empty()).then_some(layer)
    }

    /// The token that comes with a request. One in a cookie counts only if no page elsewhere has made
    /// the browser send it.
    fn token(&self, parts: &Parts, now: Timestamp) -> Result<Option<Token>, BadToken> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        let headers = &parts.headers;
        if let Some(header) = headers.get(AUTHORIZATION) {
            // RFC 6750, 2.1; the scheme's name in any case (RFC 9110, 11.1).
            let text = header.to_str().unwrap_or_default();
            let (scheme, token) = text.split_once(' ').unwrap_or_default();
            return if scheme.eq_ignore_ascii_case("bearer") {
                tokens.check(token.trim(), now).map(Some)
            } else {
                Err(BadToken::NotBearer)
            };
        }
        let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        let cookies = cookies.flat_map(|value| value.split(';'));
        let mut cookies = cookies.filter_map(|cookie| cookie.trim().split_once('='));
        let Some((_, token)) = cookies.find(|(name, _)| *name == COOKIE_NAME) else {
            return Ok(None);
        };
        let host = host(parts).ok().flatten();
        let is_foreign = |origin| !is_origin_of(origin, host.as_ref());
        let reads = [Method::GET, Method::HEAD].contains(&parts.method);
        let is_allowed = |origin| reads && self.is_named(origin);
        let mut foreign =
            headers.get_all(ORIGIN).iter().filter(|origin| is_foreign(origin)).peekable();
        let is_foreign = foreign.peek().is_some();
        if !foreign.all(is_allowed) {
            return Ok(None);
        }
        let mut token = tokens.check(token.trim(), now)?;
        if is_foreign {
            // Such a page reads. A WebSocket, which is asked for by GET, publishes, too.
            token.publish.clear();
        }
        Ok(Some(token))
    }

    fn is_named(&self, origin: &HeaderValue) -> bool {
        self.cors_origins
            .iter()
            .any(|allowed| matches!(allowed, CorsOrigin::Only(allowed) if allowed == origin))
    }

    fn check(&self, parts: &Parts) -> Result<Page, Foreign> {
        let headers = &parts.headers;
        if !parts.extensions.get::<Peer>().is_some_and(|peer| peer.is_local) {
            return Err(Foreign::Address);
        }
        let is_of_proxy = |name: &str| {
            OF_PROXIES.contains(&name)
                || OF_PROXIES_BEGIN.iter().any(|start| name.starts_with(start))
        };
        if headers.keys().any(|name| is_of_proxy(name.as_str())) {
            return Err(Foreign::Forwarded);
        }
        // Without a `Host` it is no browser, so nobody's page.
        let host = host(parts).map_err(|NotAHost| Foreign::Host)?;
        if let Some(host) = &host {
            if !self.is_our_name(host.host()) {
                return Err(Foreign::Host);
            }
        } else if parts.version > Version::HTTP_10 {
            return Err(Foreign::Host);
        }
        let mut page = Page::Ours;
        for origin in headers.get_all(ORIGIN) {
            if is_origin_of(origin, host.as_ref()) {
                continue;
            }
            if !self.may_origin_read(origin) {
                return Err(Foreign::Origin);
            }
            page = Page::MayRead;
        }
        // What a page elsewhere loads as an image or a script has no `Origin` (Fetch Metadata); `same-site` is
        // another port of this machine, too. Going to our page from there is no such thing.
        let says = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
        let is_elsewhere =
            says("sec-fetch-site", "cross-site") || says("sec-fetch-site", "same-site");
        let goes_there = says("sec-fetch-mode", "navigate") && parts.method.is_safe();
        if page == Page::Ours && is_elsewhere && !goes_there {
            return Err(Foreign::Origin);
        }
        Ok(page)
    }

    fn is_our_name(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let address = match in_brackets {
            Some(address) => address.parse().map(IpAddr::V6),
            None => host.parse().map(IpAddr::V4),
        };
        // RFC 6761, 6.3: names under localhost are this machine too.
        host == "localhost"
            || host.ends_with(".localhost")
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
            || self.allowed_hosts.iter().any(|allowed| allowed.0 == host)
    }

    fn may_origin_read(&self, origin: &HeaderValue) -> bool {
        self.cors_origins.iter().any(|allowed| match allowed {
            CorsOrigin::Any => true,
            CorsOrigin::Only(allowed) => allowed == origin,
        })
    }
}

/// Whether a page is of the host that it asks.
fn is_origin_of(origin: &HeaderValue, host: Option<&Authority>) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let both = authority.zip(host);
    both.is_some_and(|((_, authority), host)| host.as_str().eq_ignore_ascii_case(authority))
}

/// What proxies add to a request, most of them.
const OF_PROXIES: [&str; 6] =
    ["cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-forwarded", "x-real-ip"];
const OF_PROXIES_BEGIN: [&str; 2] = ["x-forwarded-", "x-original-"];

/// What stands where a host should.
struct NotAHost;

/// What a request calls us (RFC 9110, 7.2). An absolute request target wins over `Host` (RFC 9112, 3.2.2);
/// but in HTTP/2 the two may not differ (RFC 9113, 8.3.1): a proxy may have looked at the other.
fn host(parts: &Parts) -> Result<Option<Authority>, NotAHost> {
    let target = parts.uri.authority();
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(NotAHost),
        (Some(host), None) => Some(host.as_bytes().try_into().map_err(|_| NotAHost)?),
        (None, None) => None,
    };
    let differ = target.zip(host.as_ref()).is_some_and(|(target, host)| target != host);
    let host = target.cloned().or(host);
    let has_user = host.as_ref().is_some_and(|host| host.as_str().contains('@'));
    if has_user || differ && parts.version == Version::HTTP_2 {
        return Err(NotAHost);
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn check(access: &Access, is_local: bool, headers: &[(&str, &str)]) -> Result<Page, Foreign> {
        let mut request = Request::get("/events");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let address = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        let request = request.extension(Peer { address, is_local }).body(()).unwrap();
        access.check(&request.into_parts().0)
    }

    #[test]
    fn what_is_this_machine() {
        let access =
            Access { allowed_hosts: ["clock.test".parse().unwrap()].into(), ..Access::default() };
        for (host, expected) in [
            ("localhost", Ok(Page::Ours)),
            ("LOCALHOST.:3000", Ok(Page::Ours)),
            ("a.localhost:3000", Ok(Page::Ours)),
            ("127.0.0.1:3000", Ok(Page::Ours)),
            ("127.9.9.9", Ok(Page::Ours)),
            ("[::1]:3000", Ok(Page::Ours)),
            ("[::ffff:127.0.0.1]", Ok(Page::Ours)),
            ("Clock.test:3000", Ok(Page::Ours)),
            ("notlocalhost", Err(Foreign::Host)),
            ("localhost.example", Err(Foreign::Host)),
            ("127.0.0.1.example", Err(Foreign::Host)),
            ("192.0.2.1", Err(Foreign::Host)),
            ("[2001:db8::1]", Err(Foreign::Host)),
            ("a b", Err(Foreign::Host)),
            ("evil.example@localhost", Err(Foreign::Host)),
            ("", Err(Foreign::Host)),
        ] {
            assert_eq!(check(&access, true, &[("host", host)]), expected, "{host}");
            assert_eq!(check(&access, false, &[("host", host)]), Err(Foreign::Address), "{host}");
        }
    }

    #[test]
    fn what_a_proxy_adds_is_seen() {
        for name in ["Forwarded", "X-Forwarded-For", "x-forwarded-host", "X-Real-IP", "Via"] {
            let headers = [("host", "localhost"), (name, "")];
            assert_eq!(
                check(&Access::default(), true, &headers),
                Err(Foreign::Forwarded),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_our_origin() {
        let access = Access {
            cors_origins: ["https://example.org".parse().unwrap()].into(),
            ..Access::default()
        };
        for (origin, expected) in [
            ("http://localhost:3000", Ok(Page::Ours)),
            ("https://localhost:3000", Ok(Page::Ours)),
            ("https://example.org", Ok(Page::MayRead)),
            ("http://localhost:3001", Err(Foreign::Origin)),
            ("http://127.0.0.1:3000", Err(Foreign::Origin)),
            ("http://localhost", Err(Foreign::Origin)),
            ("http://example.org", Err(Foreign::Origin)),
            ("https://example.org.evil.example", Err(Foreign::Origin)),
            ("null", Err(Foreign::Origin)),
            ("", Err(Foreign::Origin)),
        ] {
            let headers = [("host", "localhost:3000"), ("origin", origin)];
            assert_eq!(check(&access, true, &headers), expected, "{origin}");
        }
    }

    #[test]
    fn what_a_page_elsewhere_loads_without_saying_its_origin() {
        for (site, mode, expected) in [
            ("cross-site", "no-cors", Err(Foreign::Origin)),
            ("same-site", "no-cors", Err(Foreign::Origin)),
            ("cross-site", "cors", Err(Foreign::Origin)),
            ("cross-site", "navigate", Ok(Page::Ours)),
            ("same-origin", "no-cors", Ok(Page::Ours)),
            ("none", "navigate", Ok(Page::Ours)),
        ] {
            let headers =
                [("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            assert_eq!(check(&Access::default(), true, &headers), expected, "{site} {mode}");
        }
    }
}
