//! Refuses a request of HTTP/1 whose head may be read in more than one way: a proxy before us that reads it
//! in another could be made to pass on as one request what are two ("request smuggling"), or to take us for
//! another host. hyper refuses most of it by itself.

use axum::{
    extract::Request,
    http::{
        HeaderMap, Version,
        header::{HOST, TRANSFER_ENCODING},
        uri::Authority,
    },
};

use crate::problem::Problem;

/// Passes on a request that can be read in one way only.
///
/// # Errors
///
/// [`Problem::BadHost`] without exactly one `Host` that is one (RFC 9112, 3.2; HTTP/1.0 may have none), and
/// [`Problem::NoSuchCoding`] for a body in another transfer coding than `chunked` (RFC 9112, 6.1).
pub(crate) async fn check(request: Request) -> Result<Request, Problem> {
    if request.version() > Version::HTTP_11 {
        return Ok(request);
    }
    let target = request.uri().authority();
    if !target.is_none_or(is_host) || !has_one_host(request.headers(), request.version()) {
        return Err(Problem::BadHost);
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(request),
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(request),
        _ => Err(Problem::NoSuchCoding),
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

/// Whether that is a name or an address, with a port perhaps. What else RFC 3986 allows in one, such as `;`
/// and `$`, no host has.
fn is_host(authority: &Authority) -> bool {
    let host = authority.host();
    // `parse` would take `+80`.
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
    fn what_is_a_host() {
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
