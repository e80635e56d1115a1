//! The proxies that a diagnosis detects, and the headers that reveal them.

use serde::Serialize;
use strum::{Display, IntoStaticStr, VariantArray};

/// A proxy, load balancer or CDN between a client and a server. The names in kebab case are stable.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Display,
    IntoStaticStr,
    VariantArray,
    Serialize,
)]
#[strum(serialize_all = "kebab-case")]
#[serde(into = "&'static str")]
pub enum Intermediary {
    /// nginx and servers derived from it, detected by `Server` in the response
    /// ([`proxy_hide_header`][nginx-header]).
    ///
    /// [nginx-header]: https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_hide_header
    Nginx,
    /// `HAProxy`. It adds no header by default, so it is detected only where it is configured to
    /// set `Via` or `Server`.
    #[strum(serialize = "haproxy")]
    HaProxy,
    /// Caddy, detected by `Via: 1.1 Caddy`
    /// ([`reverse_proxy`](https://caddyserver.com/docs/caddyfile/directives/reverse_proxy)).
    Caddy,
    /// Apache httpd, detected by `X-Forwarded-Server` in the request
    /// ([`mod_proxy`](https://httpd.apache.org/docs/2.4/mod/mod_proxy.html#x-headers)) or by its
    /// own `Server`.
    Apache,
    /// Varnish, detected by `X-Varnish` ([users' guide][varnish]).
    ///
    /// [varnish]: https://varnish-cache.org/docs/trunk/users-guide/increasing-your-hitrate.html
    Varnish,
    /// Envoy, detected by `x-envoy-*` (*HTTP headers* in the documentation of its router).
    Envoy,
    /// Traefik, detected by `X-Forwarded-Server` together with `X-Forwarded-Port`, which Apache
    /// does not send ([FAQ](https://doc.traefik.io/traefik/getting-started/faq/)).
    Traefik,
    /// Cloudflare, detected by `CF-Ray`
    /// ([headers](https://developers.cloudflare.com/fundamentals/reference/http-headers/)).
    Cloudflare,
    /// Amazon `CloudFront`, detected by `X-Amz-Cf-Id` (*Request and response behavior for
    /// custom origins* in its developer guide).
    #[strum(serialize = "cloudfront")]
    CloudFront,
    /// AWS Application Load Balancer, detected by `X-Amzn-Trace-Id` (*Request tracing* in its
    /// user guide).
    AwsLoadBalancer,
    /// Amazon API Gateway, detected by `x-amz-apigw-id` or `apigw-requestid`.
    AwsApiGateway,
    /// Google Cloud Load Balancing, detected by `Via: 1.1 google`
    /// ([target proxies](https://cloud.google.com/load-balancing/docs/https#target-proxies)).
    GoogleCloud,
    /// Azure Front Door, detected by `X-Azure-Ref`
    /// ([headers](https://learn.microsoft.com/azure/frontdoor/front-door-http-headers-protocol)).
    AzureFrontDoor,
    /// Azure Application Gateway, detected by `x-appgw-trace-id` ([modified
    /// headers][azure]).
    ///
    /// [azure]: https://learn.microsoft.com/azure/application-gateway/how-application-gateway-works
    AzureApplicationGateway,
    /// Fastly, detected by `Fastly-FF` or `X-Served-By: cache-…`
    /// ([headers](https://www.fastly.com/documentation/reference/http/http-headers/)).
    Fastly,
    /// Heroku's router, detected by `Via: 1.1 vegur` or `heroku-router`
    /// ([routing](https://devcenter.heroku.com/articles/http-routing#heroku-headers)).
    Heroku,
    /// Vercel, detected by `X-Vercel-Id`
    /// ([headers](https://vercel.com/docs/headers/request-headers)).
    Vercel,
    /// Netlify, detected by `X-NF-Request-ID`.
    Netlify,
    /// Fly.io, detected by `Fly-Request-Id`
    /// ([headers](https://fly.io/docs/networking/request-headers/)).
    Fly,
    /// An unidentified proxy: only `Via`, `Forwarded` or `X-Forwarded-For` reveal it.
    Unknown,
}

impl Intermediary {
    /// All intermediaries.
    pub const ALL: &[Self] = Self::VARIANTS;
    /// The reverse proxies that most servers run behind.
    pub const COMMON: [Self; 4] = [Self::Nginx, Self::HaProxy, Self::Caddy, Self::Apache];

    /// Returns the name in kebab case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the name that people know it by.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Apache => "Apache httpd",
            Self::Varnish => "Varnish",
            Self::Envoy => "Envoy",
            Self::Traefik => "Traefik",
            Self::Cloudflare => "Cloudflare",
            Self::CloudFront => "Amazon CloudFront",
            Self::AwsLoadBalancer => "AWS Application Load Balancer",
            Self::AwsApiGateway => "Amazon API Gateway",
            Self::GoogleCloud => "Google Cloud Load Balancing",
            Self::AzureFrontDoor => "Azure Front Door",
            Self::AzureApplicationGateway => "Azure Application Gateway",
            Self::Fastly => "Fastly",
            Self::Heroku => "Heroku",
            Self::Vercel => "Vercel",
            Self::Netlify => "Netlify",
            Self::Fly => "Fly.io",
            Self::Unknown => "an unidentified proxy",
        }
    }
}

/// An intermediary that was detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// The intermediary.
    pub intermediary: Intermediary,
    /// The header that revealed it, in words.
    pub evidence: String,
}

/// The message that a header belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Display)]
enum HeaderSide {
    /// The request, as the server received it.
    #[strum(serialize = "the request")]
    Request,
    /// The response, as the client received it.
    #[strum(serialize = "the response")]
    Response,
}

/// A header that reveals an intermediary: the message it is in, its name, and the beginning of its
/// value. In the list headers `via` and `cdn-loop`, the text may be anywhere in the value.
type Sign = (Intermediary, HeaderSide, &'static str, &'static str);

/// The signs, with names and values in lower case.
#[rustfmt::skip]
const SIGNS: &[Sign] = {
    use HeaderSide::{Request, Response};
    use Intermediary::{
        Apache, AwsApiGateway, AwsLoadBalancer, AzureApplicationGateway, AzureFrontDoor,
        Caddy, CloudFront, Cloudflare, Envoy, Fastly, Fly, GoogleCloud, HaProxy, Heroku,
        Netlify, Nginx, Varnish, Vercel,
    };
    &[
        (Cloudflare, Response, "cf-ray", ""),
        (Cloudflare, Response, "server", "cloudflare"),
        (Cloudflare, Request, "cf-ray", ""),
        (Cloudflare, Request, "cdn-loop", "cloudflare"),
        (CloudFront, Response, "x-amz-cf-id", ""),
        (CloudFront, Response, "via", "(cloudfront)"),
        (CloudFront, Request, "x-amz-cf-id", ""),
        (CloudFront, Request, "via", "(cloudfront)"),
        (Fastly, Response, "x-served-by", "cache-"),
        (Fastly, Request, "fastly-ff", ""),
        (Fastly, Request, "fastly-client-ip", ""),
        (Fastly, Request, "cdn-loop", "fastly"),
        (AzureFrontDoor, Response, "x-azure-ref", ""),
        (AzureFrontDoor, Request, "x-azure-fdid", ""),
        (AzureFrontDoor, Request, "x-azure-ref", ""),
        (AzureApplicationGateway, Response, "server", "microsoft-azure-application-gateway"),
        (AzureApplicationGateway, Request, "x-appgw-trace-id", ""),
        (GoogleCloud, Response, "via", "1.1 google"),
        (GoogleCloud, Request, "via", "1.1 google"),
        (GoogleCloud, Request, "x-cloud-trace-context", ""),
        (AwsApiGateway, Response, "x-amz-apigw-id", ""),
        (AwsApiGateway, Response, "apigw-requestid", ""),
        (AwsApiGateway, Request, "x-amzn-apigateway-api-id", ""),
        (AwsLoadBalancer, Response, "server", "awselb"),
        (AwsLoadBalancer, Request, "x-amzn-trace-id", ""),
        (Heroku, Response, "via", "vegur"),
        (Heroku, Response, "via", "heroku-router"),
        (Heroku, Request, "via", "vegur"),
        (Heroku, Request, "via", "heroku-router"),
        (Vercel, Response, "x-vercel-id", ""),
        (Vercel, Request, "x-vercel-id", ""),
        (Netlify, Response, "x-nf-request-id", ""),
        (Netlify, Request, "x-nf-request-id", ""),
        (Fly, Response, "fly-request-id", ""),
        (Fly, Request, "fly-request-id", ""),
        (Envoy, Response, "x-envoy-upstream-service-time", ""),
        (Envoy, Response, "server", "envoy"),
        (Envoy, Request, "x-envoy-expected-rq-timeout-ms", ""),
        (Varnish, Response, "x-varnish", ""),
        (Varnish, Request, "x-varnish", ""),
        (Nginx, Response, "server", "nginx"),
        (Nginx, Response, "server", "openresty"),
        (Caddy, Response, "via", "caddy"),
        (Caddy, Response, "server", "caddy"),
        (Caddy, Request, "via", "caddy"),
        (Apache, Response, "via", "(apache/"),
        (Apache, Request, "via", "(apache/"),
        (HaProxy, Response, "via", "haproxy"),
        (HaProxy, Response, "server", "haproxy"),
    ]
};

/// Detects the intermediaries on the path by the headers of the response as the client received it,
/// and by the headers of the request as the server received it. Each intermediary is listed once.
pub fn detect_intermediaries<'a>(
    response: impl IntoIterator<Item = (&'a str, &'a str)>,
    request: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<Detection> {
    let response = response.into_iter().map(|(name, value)| (HeaderSide::Response, name, value));
    let request = request.into_iter().map(|(name, value)| (HeaderSide::Request, name, value));
    let headers: Vec<_> = response
        .chain(request)
        .map(|(side, name, value)| (side, name.to_ascii_lowercase(), value))
        .collect();
    let mut detections: Vec<Detection> = Vec::new();
    let mut add = |intermediary, (side, name, value): &(HeaderSide, String, &str)| {
        if detections.iter().all(|detection| detection.intermediary != intermediary) {
            // A value may be long, and may contain more than the proxy's name.
            let value: String = value.chars().take(60).collect();
            let evidence = format!("`{name}: {value}` in {side}");
            detections.push(Detection { intermediary, evidence });
        }
    };
    for (intermediary, side, name, sign) in SIGNS {
        let is_sign = |value: &str| {
            let value = value.to_ascii_lowercase();
            if matches!(*name, "via" | "cdn-loop") {
                value.contains(sign)
            } else {
                value.starts_with(sign)
            }
        };
        let mut found = headers.iter().filter(|header| header.0 == *side && header.1 == *name);
        if let Some(header) = found.find(|header| is_sign(header.2)) {
            add(*intermediary, header);
        }
    }
    let find = |side, name| headers.iter().find(|header| header.0 == side && header.1 == name);
    if let Some(server) = find(HeaderSide::Response, "server") {
        let product = server.2.split(['/', ' ']).next().unwrap_or_default();
        // The whole name: Apache Traffic Server is a different product.
        if product.eq_ignore_ascii_case("apache") {
            add(Intermediary::Apache, server);
        }
    }
    if let Some(header) = find(HeaderSide::Request, "x-forwarded-server") {
        let has_port = find(HeaderSide::Request, "x-forwarded-port").is_some();
        add(if has_port { Intermediary::Traefik } else { Intermediary::Apache }, header);
    }
    if detections.is_empty() {
        let header = UNIDENTIFIED.into_iter().find_map(|(side, name)| find(side, name));
        if let Some((side, name, value)) = header {
            // The other headers contain the client's address.
            let value = if *name == "via" { format!(": {value}") } else { String::new() };
            let evidence = format!("`{name}{value}` in {side}");
            detections.push(Detection { intermediary: Intermediary::Unknown, evidence });
        }
    }
    detections
}

/// The headers that reveal a proxy, but not its product.
const UNIDENTIFIED: [(HeaderSide, &str); 4] = [
    (HeaderSide::Response, "via"),
    (HeaderSide::Request, "via"),
    (HeaderSide::Request, "forwarded"),
    (HeaderSide::Request, "x-forwarded-for"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn names(response: &[(&str, &str)], request: &[(&str, &str)]) -> Vec<&'static str> {
        let detections = detect_intermediaries(response.iter().copied(), request.iter().copied());
        detections.into_iter().map(|detection| detection.intermediary.as_str()).collect()
    }

    #[test]
    fn response_headers_reveal_a_proxy() {
        for (header, expected) in [
            (("Server", "nginx/1.22.1"), "nginx"),
            (("server", "openresty/1.25.3.1"), "nginx"),
            (("via", "1.1 Caddy"), "caddy"),
            (("server", "Caddy"), "caddy"),
            (("server", "Apache/2.4.62 (Debian)"), "apache"),
            (("server", "Apache"), "apache"),
            (("x-varnish", "32770"), "varnish"),
            (("server", "envoy"), "envoy"),
            (("server", "cloudflare"), "cloudflare"),
            (("CF-RAY", "230b030023ae2822-SJC"), "cloudflare"),
            (("via", "1.1 a1b2.cloudfront.net (CloudFront)"), "cloudfront"),
            (("apigw-requestid", "x"), "aws-api-gateway"),
            (("via", "1.1 google"), "google-cloud"),
            (("x-azure-ref", "0x"), "azure-front-door"),
            (("x-served-by", "cache-fra-etou8220157-FRA"), "fastly"),
            (("via", "2.0 heroku-router"), "heroku"),
            (("via", "1.1 vegur"), "heroku"),
            (("x-vercel-id", "fra1::x"), "vercel"),
            (("x-nf-request-id", "01"), "netlify"),
            (("fly-request-id", "01"), "fly"),
            (("via", "1.0 somebody"), "unknown"),
        ] {
            assert_eq!(names(&[header], &[]), [expected], "{header:?}");
        }
    }

    #[test]
    fn request_headers_reveal_a_proxy() {
        for (headers, expected) in [
            (&[("x-forwarded-server", "a"), ("x-forwarded-for", "b")][..], "apache"),
            (&[("x-forwarded-server", "a"), ("x-forwarded-port", "80")], "traefik"),
            (&[("x-amzn-trace-id", "Root=1-67891233-abc")], "aws-load-balancer"),
            (&[("x-appgw-trace-id", "x")], "azure-application-gateway"),
            (&[("x-envoy-expected-rq-timeout-ms", "15000")], "envoy"),
            (&[("via", "1.1 Caddy"), ("x-forwarded-for", "b")], "caddy"),
            (&[("x-forwarded-for", "192.0.2.1")], "unknown"),
        ] {
            assert_eq!(names(&[], headers), [expected], "{headers:?}");
        }
    }

    #[test]
    fn several_proxies_on_one_path_are_listed_once_each() {
        let response = [("server", "cloudflare"), ("cf-ray", "x"), ("via", "1.1 Caddy")];
        assert_eq!(names(&response, &[("cf-ray", "x")]), ["cloudflare", "caddy"]);
    }

    #[test]
    fn unrelated_headers_reveal_nothing() {
        let response = [("server", "ApacheTrafficServer"), ("content-type", "text/event-stream")];
        assert_eq!(names(&response, &[("host", "nginx"), ("connection", "close")]), [""; 0]);
    }

    #[test]
    fn the_evidence_names_the_header_but_not_the_address_of_the_client() {
        let detection = &detect_intermediaries([("Server", "nginx/1.22.1")], [])[0];
        assert_eq!(detection.evidence, "`server: nginx/1.22.1` in the response");
        let detection = &detect_intermediaries([], [("x-forwarded-for", "192.0.2.1")])[0];
        assert_eq!(detection.evidence, "`x-forwarded-for` in the request");
    }
}
