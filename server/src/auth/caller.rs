//! The caller of a request: local or not, and its token.

use axum::http::{
    HeaderMap, Method,
    header::{AUTHORIZATION, COOKIE, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
    request::Parts,
};
use waterclock::{
    event::Topic,
    hub::TopicSet,
    pattern::{Pattern, Patterns},
    timestamp::Timestamp,
};
use waterclock_axum::{Expiry, Publisher};

use super::{
    access::Access,
    error::{AuthError, COOKIE_NAME},
    origin::{
        NotLocal, RequestOrigin, foreign_origin, is_named_origin, is_origin_of, locality,
        requested_host,
    },
    rule::{Audience, TopicRule, publishers_to, readers_of},
    token::{InvalidToken, Token, UnknownKey},
};

/// The caller of a request.
#[derive(Debug)]
pub struct Caller {
    /// Origin of a local request, or the sign by which it is not local.
    locality: Result<RequestOrigin, NotLocal>,
    /// The same, or [`NotLocal::TokenRequired`] if local requests need a token, too.
    trust: Result<RequestOrigin, NotLocal>,
    token: Result<Option<Token>, InvalidToken>,
    /// `true` if a page makes the request that is neither the server's own nor permitted to read.
    is_foreign_page: bool,
    /// Number of the rules by which the caller was identified.
    revision: u64,
}

/// The permission by which a caller reads. Callers with the same permission may share what they
/// read.
#[derive(Debug, Hash)]
pub enum ReadPermission<'a> {
    /// No token was needed.
    Open,
    /// A token: its subject, and the patterns it lists.
    Token(&'a str, &'a [Pattern]),
}

impl Caller {
    /// Identifies the caller of a request at the given time.
    pub fn identify(request: &Parts, access: &Access, now: Timestamp) -> Self {
        let locality = locality(request, &access.allowed_hosts, &access.cors_origins);
        let trust = if access.is_token_required { Err(NotLocal::TokenRequired) } else { locality };
        Self {
            locality,
            trust,
            token: verify_token(request, access, now),
            is_foreign_page: foreign_origin(request, &access.cors_origins).is_some(),
            revision: access.revision,
        }
    }

    /// Returns `true` if the rules have been replaced since the caller was identified.
    pub(super) fn is_outdated(&self, access: &Access) -> bool {
        self.revision != access.revision
    }

    /// The key that the caller's token names, if it is not known and the caller may need a token:
    /// one that is not local, or has a page of another origin, or any if a rule is for tokens only.
    /// The newer keys of its issuer may have it.
    pub fn unknown_key(&self, access: &Access) -> Option<&UnknownKey> {
        let needs_token = || {
            let is_for_tokens =
                |rule: &TopicRule| [rule.read, rule.publish].contains(&Some(Audience::Token));
            self.trust != Ok(RequestOrigin::Own) || access.rules.iter().any(is_for_tokens)
        };
        match &self.token {
            Err(InvalidToken::UnknownKey(unknown)) if needs_token() => Some(unknown),
            _ => None,
        }
    }

    /// Notes that the issuer of the caller's token could not be asked for its key, so that a
    /// refusal is not final.
    pub fn miss_answer_of_issuer(&mut self) {
        if let Err(InvalidToken::UnknownKey(unknown)) = &mut self.token {
            unknown.is_away = true;
        }
    }

    /// Decides whether the caller may read all the given topics, and until when.
    ///
    /// # Errors
    ///
    /// If the request is not local, a topic is not public, and no valid token lists it.
    pub fn may_read(&self, topics: &Patterns, access: &Access) -> Result<Expiry, AuthError> {
        let mut expires = None;
        for pattern in topics.iter() {
            for audience in readers_of(&access.rules, pattern) {
                expires = self.may_read_as(audience, pattern, access)?.or(expires);
            }
        }
        Ok(expires)
    }

    /// Decides about one pattern, whose topics have this audience.
    fn may_read_as(
        &self,
        audience: Option<Audience>,
        pattern: &Pattern,
        access: &Access,
    ) -> Result<Expiry, AuthError> {
        let covers = |allowed: &[Pattern]| allowed.iter().any(|one| one.covers(pattern));
        let by_rule = |why| AuthError::ByRule { verb: "read", topics: pattern.to_string(), why };
        match (audience, self.trust) {
            (Some(Audience::Anyone), _) | (Some(Audience::Local) | None, Ok(_)) => return Ok(None),
            (None, Err(_)) if covers(&access.public_topics) => return Ok(None),
            (Some(Audience::Local), Err(why)) => return Err(by_rule(Some(why))),
            (Some(Audience::Nobody), _) => return Err(by_rule(None)),
            (Some(Audience::Token), _) | (None, Err(_)) => {}
        }
        let token = self.token(access, AuthError::ReadNotLocal)?;
        if covers(&token.subscribe) {
            return Ok(Some(token.expires));
        }
        Err(AuthError::NotListed {
            claim: "subscribe",
            pattern: pattern.to_string(),
            listed: token.subscribe.clone(),
            is_bounded: token.is_bounded,
        })
    }

    /// Decides which of the given topics the caller may list, and until when: those that it may
    /// read.
    ///
    /// # Errors
    ///
    /// If there can be none.
    pub fn may_list(
        &self,
        topics: &Patterns,
        access: &Access,
    ) -> Result<(TopicSet, Expiry), AuthError> {
        let why = match self.may_read(topics, access) {
            Ok(expires) => return Ok((topics.clone().into(), expires)),
            Err(why @ AuthError::InvalidToken(_)) => return Err(why),
            Err(why) => why,
        };
        let token = self.token.as_ref().ok().and_then(Option::as_ref);
        let listed = token.map_or(&[][..], |token| &token.subscribe);
        let mut decisions = Vec::new();
        for rule in access.rules.iter() {
            let Some(audience) = rule.read else { continue };
            let is_open = match audience {
                Audience::Anyone => true,
                Audience::Local => self.trust.is_ok(),
                Audience::Token | Audience::Nobody => false,
            };
            for pattern in &rule.topics {
                if audience == Audience::Token {
                    let of_token = listed.iter().filter_map(|one| one.intersection(pattern));
                    decisions.extend(of_token.map(|pattern| (pattern, true)));
                }
                decisions.push((pattern.clone(), is_open));
            }
        }
        // About the others no rule says.
        if self.trust.is_ok() {
            decisions.push((Pattern::all(), true));
        }
        let others = access.public_topics.iter().chain(listed);
        decisions.extend(others.map(|pattern| (pattern.clone(), true)));
        let readable = TopicSet::new(decisions);
        if readable.is_empty() {
            return Err(why);
        }
        Ok((readable, token.map(|token| token.expires)))
    }

    /// The permission by which the caller may read all the given topics.
    ///
    /// # Errors
    ///
    /// As [`may_read`](Self::may_read).
    pub fn read_permission(
        &self,
        topics: &Patterns,
        access: &Access,
    ) -> Result<ReadPermission<'_>, AuthError> {
        Ok(match (self.may_read(topics, access)?, &self.token) {
            (Some(_), Ok(Some(token))) => ReadPermission::Token(&token.publisher, &token.subscribe),
            _ => ReadPermission::Open,
        })
    }

    /// Decides whether the caller may publish to a topic.
    ///
    /// # Errors
    ///
    /// If the request is not local, or comes from a page of another origin, and no valid token
    /// lists the topic. Nobody may publish to the topic of the clock.
    pub fn may_publish(&self, topic: &Topic, access: &Access) -> Result<Publisher, AuthError> {
        if *topic == Topic::clock() {
            return Err(AuthError::ReservedTopic);
        }
        let audience = publishers_to(&access.rules, topic);
        let by_rule =
            |why| AuthError::ByRule { verb: "publish to", topics: topic.to_string(), why };
        if audience == Some(Audience::Nobody) {
            return Err(by_rule(None));
        }
        let why = match self.trust {
            Ok(RequestOrigin::Own) if audience == Some(Audience::Token) => NotLocal::TokenRequired,
            Ok(RequestOrigin::Own) => {
                // Local publishes have no rate limit: nobody else suffers from them.
                let name = "local".to_owned();
                return Ok(Publisher { name, expires: None, is_rate_limited: false });
            }
            Ok(RequestOrigin::MayRead) => NotLocal::Origin,
            Err(why) => why,
        };
        if audience == Some(Audience::Local) {
            return Err(by_rule(Some(why)));
        }
        let lists = |token: &Token| token.publish.iter().any(|pattern| pattern.matches(topic));
        let has_permit = self.token.as_ref().is_ok_and(|token| token.as_ref().is_some_and(lists));
        if audience == Some(Audience::Anyone) && !has_permit && !self.is_foreign_page {
            let name = "anyone".to_owned();
            return Ok(Publisher { name, expires: None, is_rate_limited: true });
        }
        let token = self.token(access, |_| AuthError::PublishNotLocal(why))?;
        if token.publish.iter().any(|pattern| pattern.matches(topic)) {
            let (name, expires) = (token.publisher.clone(), Some(token.expires));
            return Ok(Publisher { name, expires, is_rate_limited: true });
        }
        Err(AuthError::NotListed {
            claim: "publish",
            pattern: topic.to_string(),
            listed: token.publish.clone(),
            is_bounded: token.is_bounded,
        })
    }

    /// Returns `true` if there are topics to which the caller may publish.
    pub fn may_publish_some(&self, access: &Access) -> bool {
        let is_open = access.rules.iter().any(|rule| rule.publish == Some(Audience::Anyone));
        if is_open && !self.is_foreign_page {
            return true;
        }
        let token = self.token.as_ref().ok().and_then(Option::as_ref);
        self.trust == Ok(RequestOrigin::Own) || token.is_some_and(|token| !token.publish.is_empty())
    }

    /// Requires a local request of the server's own pages, or of a program.
    ///
    /// # Errors
    ///
    /// [`AuthError::NotLocal`] for any other request.
    pub fn require_local(&self) -> Result<(), AuthError> {
        require_own(self.locality)
    }

    /// Requires the same, and that local requests need no token.
    ///
    /// # Errors
    ///
    /// [`AuthError::NotLocal`] for any other request.
    pub fn require_own(&self) -> Result<(), AuthError> {
        require_own(self.trust)
    }

    /// Returns the token of a request that needs one. `without_tokens` makes the error if the
    /// server uses no tokens.
    fn token(
        &self,
        access: &Access,
        without_tokens: impl FnOnce(NotLocal) -> AuthError,
    ) -> Result<&Token, AuthError> {
        match &self.token {
            Ok(Some(token)) => Ok(token),
            Err(invalid) => Err(AuthError::InvalidToken(invalid.clone())),
            Ok(None) if access.tokens.is_some() => Err(AuthError::MissingToken),
            Ok(None) => Err(without_tokens(self.trust.err().unwrap_or(NotLocal::Origin))),
        }
    }
}

/// Maximum number of cookies with a token that are tried. A verification takes time.
const MAX_COOKIES: usize = 8;

/// Returns the tokens in cookies, in the order in which the client sent them: browsers begin with
/// the longest path (RFC 6265, 5.4). A value may be quoted (RFC 6265, 4.1.1).
fn token_cookies(headers: &HeaderMap) -> Vec<&str> {
    let cookies = headers.get_all(COOKIE).into_iter();
    // Other cookies may have any bytes.
    let cookies = cookies.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
    let cookies = cookies.filter_map(|cookie| str::from_utf8(cookie).ok()?.trim().split_once('='));
    let values = cookies.filter(|(name, _)| *name == COOKIE_NAME).map(|(_, value)| {
        let value = value.trim();
        value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
    });
    values.filter(|value| !value.is_empty()).take(MAX_COOKIES).collect()
}

/// Returns the token in the subprotocols of a WebSocket, the only header of its handshake that a
/// page can set: `waterclock, bearer.TOKEN`.
fn subprotocol_token(headers: &HeaderMap) -> Option<&str> {
    let lists = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    let mut protocols =
        lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
    protocols.find_map(|protocol| protocol.trim().strip_prefix("bearer."))
}

/// A page of another origin may at most read events, even if it may read them all.
fn require_own(locality: Result<RequestOrigin, NotLocal>) -> Result<(), AuthError> {
    match locality {
        Ok(RequestOrigin::Own) => Ok(()),
        Ok(RequestOrigin::MayRead) => Err(AuthError::NotLocal(NotLocal::Origin)),
        Err(why) => Err(AuthError::NotLocal(why)),
    }
}

/// Verifies the token of a request. A token in a cookie counts only if no page of another origin
/// made the browser send it.
fn verify_token(
    request: &Parts,
    access: &Access,
    now: Timestamp,
) -> Result<Option<Token>, InvalidToken> {
    let Some(tokens) = &access.tokens else { return Ok(None) };
    let headers = &request.headers;
    let cookies = token_cookies(headers);
    let mut authorizations = headers.get_all(AUTHORIZATION).into_iter();
    match (authorizations.next(), authorizations.next()) {
        (None, _) => {
            if let Some(token) = subprotocol_token(headers) {
                return tokens.verify(token, now).map(Some);
            }
        }
        (Some(header), None) => {
            // RFC 6750, 2.1. The scheme is case-insensitive (RFC 9110, 11.1).
            let text = header.to_str().unwrap_or_default();
            let (scheme, token) = text.split_once(' ').unwrap_or_default();
            if scheme.eq_ignore_ascii_case("bearer") {
                return tokens.verify(token.trim(), now).map(Some);
            }
            // Another scheme may be for a proxy, which passes on what it has checked.
            if cookies.is_empty() {
                return Err(InvalidToken::NotBearer);
            }
        }
        (Some(_), Some(_)) => return Err(InvalidToken::NotBearer),
    }
    let host = requested_host(request).ok().flatten();
    let is_foreign = |origin| !is_origin_of(origin, host.as_ref());
    let reads = [Method::GET, Method::HEAD].contains(&request.method);
    let is_allowed = |origin| reads && is_named_origin(origin, &access.cors_origins);
    let mut foreign = headers.get_all(ORIGIN).iter().filter(|origin| is_foreign(origin)).peekable();
    let is_foreign = foreign.peek().is_some();
    if !foreign.all(is_allowed) {
        return Ok(None);
    }
    // Cookies of one name may have different paths and domains. One that has expired must not hide
    // a valid one. Among valid ones the first counts, whatever the others permit.
    let mut verified = cookies.into_iter().map(|token| tokens.verify(token, now));
    let Some(first) = verified.next() else { return Ok(None) };
    let mut token = first.or_else(|why| verified.find_map(Result::ok).ok_or(why))?;
    if is_foreign {
        // Such a page may only read. A WebSocket is requested by GET, and could publish.
        token.publish.clear();
    }
    Ok(Some(token))
}
