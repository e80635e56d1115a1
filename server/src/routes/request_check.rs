//! Refuses HTTP/1 requests whose head can be read in more than one way. A proxy that reads it
//! differently could be made to forward two requests as one ("request smuggling"), or to take this
//! server for another host. hyper itself refuses most of these.

use axum::http::{
    HeaderMap, StatusCode, Version,
    header::{HOST, TRANSFER_ENCODING},
    request::Parts,
    uri::Authority,
};

use waterclock_axum::{AttackSign, Problem};

/// A request that can be read in more than one way.
#[derive(Debug, thiserror::Error)]
pub(super) enum AmbiguousRequest {
    #[error("A request must have exactly one `Host`: a name or an address, with an optional port.")]
    Host,
    #[error("`Transfer-Encoding` must be `chunked`, given once, or be left out.")]
    TransferEncoding,
}

impl From<AmbiguousRequest> for Problem {
    fn from(error: AmbiguousRequest) -> Self {
        let status = match error {
            AmbiguousRequest::Host => StatusCode::BAD_REQUEST,
            AmbiguousRequest::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
        };
        Self::new(status, error.to_string()).with_attack_sign(AttackSign::Malformed).closing()
    }
}

/// Passes on an unambiguous request.
///
/// # Errors
///
/// If there is not exactly one valid `Host` (RFC 9112, 3.2; HTTP/1.0 may have none), or the
/// transfer coding is not `chunked` (RFC 9112, 6.1).
pub(super) fn check(request: &Parts) -> Result<(), AmbiguousRequest> {
    let Parts { version, uri, headers, .. } = request;
    if *version > Version::HTTP_11 {
        return Ok(());
    }
    if !uri.authority().is_none_or(is_host) || !has_one_host(headers, *version) {
        return Err(AmbiguousRequest::Host);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(AmbiguousRequest::TransferEncoding),
    }
}

fn has_one_host(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => Authority::try_from(host.as_bytes()).as_ref().is_ok_and(is_host),
        (Some(_), Some(_)) => false,
    }
}

/// Returns `true` for a name or an address with an optional port. RFC 3986 permits further
/// characters, such as `;` and `$`, which no real host has.
fn is_host(authority: &Authority) -> bool {
    let host = authority.host();
    // `parse` would accept `+80`.
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = |port: &str| is_digits(port) && (port.is_empty() || port.parse::<u16>().is_ok());
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%[:]".contains(&byte);
    let rest = authority.as_str().strip_prefix(host);
    let port = rest.and_then(|rest| rest.strip_prefix(':').or(rest.is_empty().then_some("")));
    !host.is_empty() && host.bytes().all(is_allowed) && port.is_some_and(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for (text, expected) in [
            ("localhost", true),
            ("localhost:", true),
            ("localhost.:3000", true),
            ("a-b_c.example", true),
            ("192.0.2.1:80", true),
            ("[2001:db8::1]:80", true),
            ("localhost:65536", false),
            ("localhost:+80", false),
            ("localhost:a", false),
            ("localhost:3000@evil.example", false),
            ("evil.example@localhost", false),
            ("$(reboot)", false),
            ("a;b", false),
            (":80", false),
        ] {
            let authority = Authority::try_from(text);
            assert_eq!(authority.as_ref().is_ok_and(is_host), expected, "{text}");
        }
    }
}
