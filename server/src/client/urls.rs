//! The URLs of a server, and the form of them that is shown.

use reqwest::Url;

/// Returns the URL of the probe of the Waterclock server with this URL.
pub(crate) fn probe_url(url: &Url) -> Url {
    let mut probe = with_path(url, "/diagnose/stream");
    probe.set_query(None);
    probe
}

/// Returns the URL of the events of the Waterclock server with this URL. It keeps the query, which
/// may have a token.
pub(crate) fn events_url(url: &Url) -> Url {
    with_path(url, "/events")
}

/// Replaces the path with another one of the same Waterclock server, and removes the fragment.
pub(crate) fn with_path(url: &Url, end: &str) -> Url {
    let path = url.path().trim_end_matches('/');
    let base = ["/diagnose/stream", "/diagnose", "/events"]
        .into_iter()
        .find_map(|end| path.strip_suffix(end))
        .unwrap_or(path);
    let mut other = url.clone();
    other.set_path(&format!("{base}{end}"));
    other.set_fragment(None);
    other
}

/// Formats a URL for a ticket: without a password, and without the query, which may have a token.
pub(crate) fn display_url(url: &Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs without a host, which have neither.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.set_fragment(None);
    match url.query() {
        Some(_) => {
            url.set_query(None);
            format!("{url}?…")
        }
        None => url.to_string(),
    }
}

/// Replaces `https` with `http`, or the reverse.
pub(crate) fn with_other_scheme(url: &str) -> String {
    match url.strip_prefix("https:") {
        Some(rest) => format!("http:{rest}"),
        None => url.replacen("http:", "https:", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_queries_are_not_displayed() {
        for (url, expected) in [
            (
                "http://user:password@host/events?topic=a&access_token=secret#x",
                "http://host/events?…",
            ),
            ("https://host:1/a", "https://host:1/a"),
        ] {
            assert_eq!(display_url(&url.parse().unwrap()), expected);
        }
    }

    #[test]
    fn the_probe_is_next_to_the_events() {
        for (url, expected) in [
            ("http://host", "http://host/diagnose/stream"),
            ("http://host/", "http://host/diagnose/stream"),
            ("http://host:1/events", "http://host:1/diagnose/stream"),
            ("http://host/events?topic=a#x", "http://host/diagnose/stream"),
            ("http://host/a/b", "http://host/a/b/diagnose/stream"),
            ("http://host/a/b/", "http://host/a/b/diagnose/stream"),
            ("http://host/events/", "http://host/diagnose/stream"),
            ("http://host/a/events", "http://host/a/diagnose/stream"),
            ("http://host/diagnose", "http://host/diagnose/stream"),
            ("http://host/diagnose/stream", "http://host/diagnose/stream"),
        ] {
            assert_eq!(probe_url(&Url::parse(url).unwrap()).as_str(), expected, "{url}");
        }
    }

    #[test]
    fn the_events_keep_the_query() {
        for (url, expected) in [
            ("http://host", "http://host/events"),
            ("http://host/a/events?access_token=x#y", "http://host/a/events?access_token=x"),
            ("http://host/a/diagnose/stream", "http://host/a/events"),
        ] {
            assert_eq!(events_url(&Url::parse(url).unwrap()).as_str(), expected, "{url}");
        }
    }
}
