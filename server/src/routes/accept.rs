//! The choice between a page and other representations by `Accept` (RFC 9110, 12.5.1).

use axum::http::{HeaderMap, header::ACCEPT};

/// Returns `true` if the client prefers a page to JSON and to a stream. Of two with the same
/// quality it prefers the one that it names. A client without a preference gets no page.
pub(super) fn prefers_page(headers: &HeaderMap) -> bool {
    let page = quality(headers, "text/html");
    page.0 > 0.0
        && page > quality(headers, "application/json")
        && page > quality(headers, "text/event-stream")
}

/// Returns the quality of a media type for the client, from 0 to 1, and the precedence of its
/// range: the most specific range that has it.
fn quality(headers: &HeaderMap, media_type: &str) -> (f32, u8) {
    let any_subtype = media_type.split_once('/').map(|(kind, _)| format!("{kind}/*"));
    let (mut precedence, mut quality) = (0, 0.0);
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let found = if name.eq_ignore_ascii_case(media_type) {
            3
        } else if any_subtype.as_ref().is_some_and(|any| any.eq_ignore_ascii_case(name)) {
            2
        } else {
            u8::from(name == "*/*")
        };
        if found > precedence {
            precedence = found;
            quality = parts.find_map(weight).unwrap_or(1.0);
        }
    }
    (quality, precedence)
}

/// Reads the parameter `q`. Returns `None` for any other parameter and for an invalid value.
fn weight(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    let value = value.trim().parse().ok().filter(|value| (0.0..=1.0).contains(value));
    value.filter(|_| name.trim().eq_ignore_ascii_case("q"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_for_clients_that_prefer_it() {
        for (accept, expected) in [
            ("", false),
            ("*/*", false),
            ("text/html", true),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("Text/HTML;charset=utf-8 , */* ; q=0.1", true),
            ("text/*;q=0.9, application/json;q=0.8", false),
            ("text/html, application/json", false),
            ("application/json;q=0.9, text/html", true),
            ("application/json, text/html;q=0.9", false),
            ("text/html;q=0, */*", false),
            ("text/html;q=0", false),
            ("text/html, application/xhtml+xml, image/jxr, */*", true),
            ("text/html, */*", true),
            ("text/html, application/*", true),
            ("text/html;q=0.9, */*", false),
            ("text/*, */*", false),
            ("text/html;q=0.5, text/event-stream;q=0.4", true),
            ("text/html;q=0.5, text/event-stream", false),
            ("text/html;q=2, application/json;q=0.9", true),
            ("text/html;q=nan", true),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(prefers_page(&headers), expected, "{accept}");
        }
        assert!(!prefers_page(&HeaderMap::new()));
    }
}
