//! The way of a request through its redirects, by the rules of a browser's fetch (Fetch, sections
//! 4.4 and 4.9; Mixed Content, section 4).

use reqwest::{
    Url,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, LOCATION, SET_COOKIE},
};
use waterclock_diagnose::{Fault, Objection, Redirects, Verdict};

/// Maximum number of redirects that a browser follows.
const MAX_REDIRECTS: usize = 20;

/// The relation between a page and the responses to its request ("response tainting" and
/// "redirect-taint" in Fetch).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    /// All requests went to the page's origin.
    SameOrigin,
    /// A request went to another origin, so all further responses must allow the page's.
    CrossOrigin,
    /// A redirect led from another origin to a third one, which does not learn the page's.
    Opaque,
}

/// A request of a page, and the redirects that it was sent through.
#[derive(Debug)]
pub(super) struct Hops {
    /// The URL of the current request.
    url: Url,
    /// A URL of the page's origin.
    page: Url,
    /// `true` if the user gave the page's origin. Otherwise, it is assumed to be that of the URL.
    is_page_given: bool,
    relation: Relation,
    /// `true` if a redirect set a cookie.
    sets_cookies: bool,
    redirects: Redirects,
}

impl Hops {
    /// Starts with a request for a URL, by a page of an origin.
    ///
    /// # Errors
    ///
    /// Returns an error if a browser would not send it.
    pub(super) fn start(url: Url, page: Option<&Url>) -> Result<Self, Objection> {
        let hops = Self {
            page: page.unwrap_or(&url).clone(),
            is_page_given: page.is_some(),
            relation: if page.is_none_or(|page| page.origin() == url.origin()) {
                Relation::SameOrigin
            } else {
                Relation::CrossOrigin
            },
            sets_cookies: false,
            redirects: Redirects::default(),
            url,
        };
        hops.check_mixed_content()?;
        Ok(hops)
    }

    /// Returns the URL of the current request.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the `Origin` of the current request. Returns `None` if a browser sends none.
    pub(super) fn origin(&self) -> Option<String> {
        match self.relation {
            Relation::SameOrigin => None,
            Relation::CrossOrigin => Some(self.page.origin().ascii_serialization()),
            Relation::Opaque => Some("null".to_owned()),
        }
    }

    /// Returns the redirects so far.
    pub(super) fn into_redirects(self) -> Redirects {
        self.redirects
    }

    /// Takes the response to the current request. Returns `true` if it is a redirect, whose target
    /// is the current URL from then on.
    ///
    /// # Errors
    ///
    /// Returns an error if a browser would not follow the redirect.
    pub(super) fn follow(&mut self, status: u16, headers: &HeaderMap) -> Result<bool, Objection> {
        self.check_cors(headers);
        let (true, Some(location)) =
            (matches!(status, 301 | 302 | 303 | 307 | 308), headers.get(LOCATION))
        else {
            return Ok(false);
        };
        let refuse = |reason: String| {
            let reason = format!("a redirect ({status}) {reason}");
            Err(Objection { fault: Fault::Redirect, verdict: Verdict::Bad, reason })
        };
        let location = String::from_utf8_lossy(location.as_bytes());
        let Ok(target) = self.url.join(&location) else {
            return refuse("leads to an invalid URL".to_owned());
        };
        if !matches!(target.scheme(), "http" | "https") {
            return refuse(format!("leads to a URL of the scheme `{}`", target.scheme()));
        }
        self.sets_cookies |= headers.contains_key(SET_COOKIE);
        if self.redirects.statuses.len() == MAX_REDIRECTS {
            let cookies = if self.sets_cookies {
                ". Some of them set cookies, which this command does not send back"
            } else {
                ""
            };
            return refuse(format!("is one too many: browsers follow {MAX_REDIRECTS}{cookies}"));
        }
        if target.origin() != self.url.origin() {
            let is_upgrade = (self.url.scheme(), target.scheme()) == ("http", "https")
                && self.url.host() == target.host();
            self.relation = match self.relation {
                Relation::SameOrigin if is_upgrade && !self.is_page_given => {
                    // The page would have been redirected in the same way.
                    self.page = target.clone();
                    Relation::SameOrigin
                }
                Relation::SameOrigin => Relation::CrossOrigin,
                // Back at the page's origin, it may leave again.
                relation if self.url.origin() == self.page.origin() => relation,
                _ => Relation::Opaque,
            };
        }
        let has_password = !target.username().is_empty() || target.password().is_some();
        if self.relation != Relation::SameOrigin && has_password {
            return refuse("leads to another origin, with a password".to_owned());
        }
        self.url = target;
        self.check_mixed_content()?;
        self.redirects.statuses.push(status);
        Ok(true)
    }

    /// Tests that a page over HTTPS sends no request over HTTP, except to its own machine.
    fn check_mixed_content(&self) -> Result<(), Objection> {
        if (self.page.scheme(), self.url.scheme()) != ("https", "http") || is_loopback(&self.url) {
            return Ok(());
        }
        let origin = |url: &Url| url.origin().ascii_serialization();
        let reason = format!(
            "a page of {} may not request {}: browsers block mixed content",
            origin(&self.page),
            origin(&self.url)
        );
        Err(Objection { fault: Fault::MixedContent, verdict: Verdict::Bad, reason })
    }

    /// Tests that a page may read a response. The first objection counts.
    fn check_cors(&mut self, headers: &HeaderMap) {
        let Some(origin) = self.origin() else { return };
        let values = headers.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter();
        let values: Vec<_> =
            values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let allowed = values.join(", ");
        if allowed == "*" || allowed == origin || self.redirects.objection.is_some() {
            return;
        }
        let sent = if values.is_empty() {
            "no `Access-Control-Allow-Origin`".to_owned()
        } else {
            format!("`Access-Control-Allow-Origin: {allowed}`")
        };
        let reason = format!(
            "{} does not allow the page's `Origin: {origin}` ({sent})",
            self.url.origin().ascii_serialization()
        );
        // The page may have another origin than is assumed here.
        let verdict = if self.is_page_given { Verdict::Bad } else { Verdict::Warning };
        self.redirects.objection = Some(Objection { fault: Fault::Cors, verdict, reason });
    }
}

/// Returns `true` for the hosts of the same machine (Secure Contexts, section 3.1).
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    match host.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn headers(location: &str, allowed: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !location.is_empty() {
            headers.insert(LOCATION, location.parse().unwrap());
        }
        for allowed in allowed.split_terminator(' ') {
            headers.append(ACCESS_CONTROL_ALLOW_ORIGIN, allowed.parse().unwrap());
        }
        headers
    }

    /// Follows redirects, each given as its target and its `Access-Control-Allow-Origin`, and then
    /// a response with that header.
    fn walk(
        start: &str,
        page: Option<&str>,
        redirects: &[(&str, &str)],
        allowed: &str,
    ) -> Result<Hops, Objection> {
        let mut hops = Hops::start(url(start), page.map(url).as_ref())?;
        for (location, allowed) in redirects {
            assert!(hops.follow(302, &headers(location, allowed))?, "{location}");
        }
        assert!(!hops.follow(200, &headers("", allowed))?);
        Ok(hops)
    }

    #[test]
    fn redirects_of_five_statuses_are_followed() {
        for status in [301, 302, 303, 307, 308] {
            for (location, target) in [
                ("/b", "http://a.example/b"),
                ("b?c", "http://a.example/x/b?c"),
                ("//a.example:80/b", "http://a.example/b"),
                ("?q", "http://a.example/x/y?q"),
                ("http://a.example/é", "http://a.example/%C3%A9"),
            ] {
                let mut hops = Hops::start(url("http://a.example/x/y"), None).unwrap();
                let mut head = HeaderMap::new();
                head.insert(LOCATION, location.as_bytes().try_into().unwrap());
                assert_eq!(hops.follow(status, &head), Ok(true));
                assert_eq!((hops.url().as_str(), hops.origin()), (target, None));
                assert_eq!(hops.into_redirects().statuses, [status]);
            }
        }
        let mut hops = Hops::start(url("http://a.example/"), None).unwrap();
        assert_eq!(hops.follow(302, &headers("", "")), Ok(false), "no target");
        for status in [200, 204, 300, 304, 305, 306] {
            assert_eq!(hops.follow(status, &headers("/b", "")), Ok(false), "{status}");
        }
    }

    #[test]
    fn a_redirect_that_leads_nowhere_is_refused() {
        for location in ["http://", "ftp://a.example/", "data:text/event-stream,", "javascript:0"] {
            let objection = walk("http://a.example/", None, &[(location, "")], "").unwrap_err();
            assert_eq!((objection.fault, objection.verdict), (Fault::Redirect, Verdict::Bad));
        }
        let password = [("http://user:password@b.example/", "*")];
        let objection = walk("http://a.example/", None, &password, "*").unwrap_err();
        assert_eq!(objection.fault, Fault::Redirect);
        let own = [("http://user:password@a.example/", "")];
        assert!(walk("http://a.example/", None, &own, "").is_ok());
        assert!(walk("http://a.example/", None, &[("/", ""); 20], "").is_ok());
        let objection = walk("http://a.example/", None, &[("/", ""); 21], "").unwrap_err();
        assert_eq!(objection.fault, Fault::Redirect);
        assert!(!objection.reason.contains("cookies"), "{}", objection.reason);
    }

    #[test]
    fn a_circle_that_waits_for_a_cookie_is_explained() {
        let mut hops = Hops::start(url("http://a.example/"), None).unwrap();
        let mut head = headers("/", "");
        head.insert(SET_COOKIE, "a=b".parse().unwrap());
        let objection = (0..=20).find_map(|_| hops.follow(302, &head).err()).unwrap();
        assert!(objection.reason.contains("set cookies"), "{}", objection.reason);
    }

    #[test]
    fn a_page_over_https_may_not_read_a_stream_over_http() {
        let page = Some("https://app.example");
        for (start, page, redirects) in [
            ("http://a.example/", page, &[][..]),
            ("https://a.example/", None, &[("http://a.example/", "*")]),
            ("https://a.example/", None, &[("http://b.example/", "*")]),
            ("https://a.example/", page, &[("http://a.example/", "*")]),
            // It upgrades, and then goes back.
            ("http://a.example/", None, &[("https://a.example/", ""), ("http://a.example/", "")]),
        ] {
            let objection = walk(start, page, redirects, "*").unwrap_err();
            assert_eq!((objection.fault, objection.verdict), (Fault::MixedContent, Verdict::Bad));
        }
        for allowed in ["http://127.0.0.1/", "http://[::1]/", "http://localhost:3000/"] {
            assert!(walk(allowed, page, &[], "*").is_ok(), "{allowed}");
        }
        assert!(walk("http://a.example/", Some("http://app.example"), &[], "*").is_ok());
    }

    #[test]
    fn each_response_from_another_origin_must_allow_the_page() {
        let (a, b, c) = ("http://a.example/", "http://b.example/", "http://c.example/");
        let page = Some("http://app.example");
        let own = "http://app.example";
        for (start, page, redirects, allowed, is_allowed) in [
            (a, None, &[][..], "", true),
            (a, page, &[], "", false),
            (a, page, &[], "*", true),
            (a, page, &[], own, true),
            (a, page, &[], "http://other.example", false),
            (a, page, &[], "http://app.example/", false),
            (a, page, &[], "http://app.example *", false),
            (a, page, &[], "null", false),
            (a, Some(a), &[], "", true),
            (a, page, &[(a, "")], "*", false),
            (a, page, &[(a, "*")], "*", true),
            // The origin of the page is assumed.
            (a, None, &[(b, "")], "", false),
            (a, None, &[(b, "")], "http://a.example", true),
            (a, None, &[(b, "")], "*", true),
            (a, None, &[("https://a.example/", "")], "", true),
            (a, None, &[("http://a.example:81/", "")], "", false),
            // A second foreign origin does not learn about the page.
            (a, None, &[(b, ""), (c, "*")], "http://a.example", false),
            (a, None, &[(b, ""), (c, "*")], "null", true),
            (a, None, &[(b, ""), (a, "*")], "", false),
            (a, None, &[(b, ""), (a, "*")], "*", true),
        ] {
            let redirects = walk(start, page, redirects, allowed).unwrap().into_redirects();
            let about = format!("{start} {page:?} {:?} {allowed}", redirects.statuses);
            assert_eq!(redirects.objection.is_none(), is_allowed, "{about}");
            let Some(objection) = redirects.objection else { continue };
            let verdict = if page.is_some() { Verdict::Bad } else { Verdict::Warning };
            assert_eq!((objection.fault, objection.verdict), (Fault::Cors, verdict), "{about}");
        }
    }
}
