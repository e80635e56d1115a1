//! Which proxies there are, and what each is recognised by: the headers that it adds to what it passes on.

/// What may stand between a client and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Intermediary {
    /// nginx, and what is made of it. It has its own `Server` in each answer
    /// ([proxy_hide_header](https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_hide_header)).
    Nginx,
    /// `HAProxy`. It adds no header by itself, so it is recognised only where it was told to; else by what it
    /// does.
    HaProxy,
    /// Caddy: `Via: 1.1 Caddy`
    /// ([reverse_proxy](https://caddyserver.com/docs/caddyfile/directives/reverse_proxy#defaults)).
    Caddy,
    /// Apache httpd: `X-Forwarded-Server` in requests
    /// ([mod_proxy](https://httpd.apache.org/docs/2.4/mod/mod_proxy.html#x-headers)), its own `Server`.
    Apache,
    /// Varnish: `X-Varnish` ([its book](https://varnish-cache.org/docs/trunk/users-guide/increasing-your-hitrate.html)).
    Varnish,
    /// Envoy: `x-envoy-*`
    /// ([headers](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#http-headers-consumed)).
    Envoy,
    /// Traefik: `X-Forwarded-Server` as Apache has it, and `X-Forwarded-Port`, which Apache has not
    /// ([forwarded headers](https://doc.traefik.io/traefik/getting-started/faq/#what-are-the-forwarded-headers-when-proxying-http-requests)).
    Traefik,
    /// Cloudflare: `CF-Ray`
    /// ([headers](https://developers.cloudflare.com/fundamentals/reference/http-headers/)).
    Cloudflare,
    /// Amazon `CloudFront`: `X-Amz-Cf-Id`
    /// ([headers](https://docs.aws.amazon.com/AmazonCloudFront/latest/DeveloperGuide/RequestAndResponseBehaviorCustomOrigin.html)).
    CloudFront,
    /// Amazon's Application Load Balancer: `X-Amzn-Trace-Id`
    /// ([tracing](https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-request-tracing.html)).
    AwsLoadBalancer,
    /// Amazon API Gateway: `x-amz-apigw-id`, or `apigw-requestid`.
    AwsApiGateway,
    /// Google Cloud's load balancer: `Via: 1.1 google`
    /// ([target proxies](https://cloud.google.com/load-balancing/docs/https#target-proxies)).
    GoogleCloud,
    /// Azure Front Door: `X-Azure-Ref`
    /// ([headers](https://learn.microsoft.com/azure/frontdoor/front-door-http-headers-protocol)).
    AzureFrontDoor,
    /// Azure Application Gateway: `x-appgw-trace-id`
    /// ([how it works](https://learn.microsoft.com/azure/application-gateway/how-application-gateway-works#modifications-to-the-request)).
    AzureApplicationGateway,
    /// Fastly: `Fastly-FF`, `X-Served-By: cache-…`
    /// ([headers](https://www.fastly.com/documentation/reference/http/http-headers/)).
    Fastly,
    /// Heroku's router: `Via: 1.1 vegur`, or `heroku-router`
    /// ([routing](https://devcenter.heroku.com/articles/http-routing#heroku-headers)).
    Heroku,
    /// Vercel: `X-Vercel-Id` ([headers](https://vercel.com/docs/headers/request-headers)).
    Vercel,
    /// Netlify: `X-NF-Request-ID`.
    Netlify,
    /// Fly.io: `Fly-Request-Id` ([headers](https://fly.io/docs/networking/request-headers/)).
    Fly,
    /// Something that says that it is there, and no more.
    Unknown,
}

impl Intermediary {
    /// All that there are.
    pub const ALL: [Self; 20] = [
        Self::Nginx,
        Self::HaProxy,
        Self::Caddy,
        Self::Apache,
        Self::Varnish,
        Self::Envoy,
        Self::Traefik,
        Self::Cloudflare,
        Self::CloudFront,
        Self::AwsLoadBalancer,
        Self::AwsApiGateway,
        Self::GoogleCloud,
        Self::AzureFrontDoor,
        Self::AzureApplicationGateway,
        Self::Fastly,
        Self::Heroku,
        Self::Vercel,
        Self::Netlify,
        Self::Fly,
        Self::Unknown,
    ];
    /// Those that most servers stand behind.
    pub const USUAL: [Self; 4] = [Self::Nginx, Self::HaProxy, Self::Caddy, Self::Apache];

    /// Its name, which stays.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Caddy => "caddy",
            Self::Apache => "apache",
            Self::Varnish => "varnish",
            Self::Envoy => "envoy",
            Self::Traefik => "traefik",
            Self::Cloudflare => "cloudflare",
            Self::CloudFront => "cloudfront",
            Self::AwsLoadBalancer => "aws-load-balancer",
            Self::AwsApiGateway => "aws-api-gateway",
            Self::GoogleCloud => "google-cloud",
            Self::AzureFrontDoor => "azure-front-door",
            Self::AzureApplicationGateway => "azure-application-gateway",
            Self::Fastly => "fastly",
            Self::Heroku => "heroku",
            Self::Vercel => "vercel",
            Self::Netlify => "netlify",
            Self::Fly => "fly",
            Self::Unknown => "unknown",
        }
    }

    /// As it calls itself.
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
            Self::AwsLoadBalancer => "Amazon's Application Load Balancer",
            Self::AwsApiGateway => "Amazon API Gateway",
            Self::GoogleCloud => "Google Cloud's load balancer",
            Self::AzureFrontDoor => "Azure Front Door",
            Self::AzureApplicationGateway => "Azure Application Gateway",
            Self::Fastly => "Fastly",
            Self::Heroku => "Heroku",
            Self::Vercel => "Vercel",
            Self::Netlify => "Netlify",
            Self::Fly => "Fly.io",
            Self::Unknown => "a proxy that does not say which",
        }
    }
}

/// One that was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// Which.
    pub intermediary: Intermediary,
    /// By what, in words.
    pub by: String,
}

/// Where a header is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Request,
    Answer,
}

/// By which header each is recognised, if its value begins with that or, in a list, has that in it. In lower
/// case.
#[rustfmt::skip]
const SIGNS: [(Intermediary, In, &str, &str); 49] = [
    (Intermediary::Cloudflare, In::Answer, "cf-ray", ""),
    (Intermediary::Cloudflare, In::Answer, "server", "cloudflare"),
    (Intermediary::Cloudflare, In::Request, "cf-ray", ""),
    (Intermediary::Cloudflare, In::Request, "cdn-loop", "cloudflare"),
    (Intermediary::CloudFront, In::Answer, "x-amz-cf-id", ""),
    (Intermediary::CloudFront, In::Answer, "via", "(cloudfront)"),
    (Intermediary::CloudFront, In::Request, "x-amz-cf-id", ""),
    (Intermediary::CloudFront, In::Request, "via", "(cloudfront)"),
    (Intermediary::Fastly, In::Answer, "x-served-by", "cache-"),
    (Intermediary::Fastly, In::Request, "fastly-ff", ""),
    (Intermediary::Fastly, In::Request, "fastly-client-ip", ""),
    (Intermediary::Fastly, In::Request, "cdn-loop", "fastly"),
    (Intermediary::AzureFrontDoor, In::Answer, "x-azure-ref", ""),
    (Intermediary::AzureFrontDoor, In::Request, "x-azure-fdid", ""),
    (Intermediary::AzureFrontDoor, In::Request, "x-azure-ref", ""),
    (Intermediary::AzureApplicationGateway, In::Answer, "server", "microsoft-azure-application-gateway"),
    (Intermediary::AzureApplicationGateway, In::Request, "x-appgw-trace-id", ""),
    (Intermediary::GoogleCloud, In::Answer, "via", "1.1 google"),
    (Intermediary::GoogleCloud, In::Request, "via", "1.1 google"),
    (Intermediary::GoogleCloud, In::Request, "x-cloud-trace-context", ""),
    (Intermediary::AwsApiGateway, In::Answer, "x-amz-apigw-id", ""),
    (Intermediary::AwsApiGateway, In::Answer, "apigw-requestid", ""),
    (Intermediary::AwsApiGateway, In::Request, "x-amzn-apigateway-api-id", ""),
    (Intermediary::AwsLoadBalancer, In::Answer, "server", "awselb"),
    (Intermediary::AwsLoadBalancer, In::Request, "x-amzn-trace-id", ""),
    (Intermediary::Heroku, In::Answer, "via", "vegur"),
    (Intermediary::Heroku, In::Answer, "via", "heroku-router"),
    (Intermediary::Heroku, In::Request, "via", "vegur"),
    (Intermediary::Heroku, In::Request, "via", "heroku-router"),
    (Intermediary::Vercel, In::Answer, "x-vercel-id", ""),
    (Intermediary::Vercel, In::Request, "x-vercel-id", ""),
    (Intermediary::Netlify, In::Answer, "x-nf-request-id", ""),
    (Intermediary::Netlify, In::Request, "x-nf-request-id", ""),
    (Intermediary::Fly, In::Answer, "fly-request-id", ""),
    (Intermediary::Fly, In::Request, "fly-request-id", ""),
    (Intermediary::Envoy, In::Answer, "x-envoy-upstream-service-time", ""),
    (Intermediary::Envoy, In::Answer, "server", "envoy"),
    (Intermediary::Envoy, In::Request, "x-envoy-expected-rq-timeout-ms", ""),
    (Intermediary::Varnish, In::Answer, "x-varnish", ""),
    (Intermediary::Varnish, In::Request, "x-varnish", ""),
    (Intermediary::Nginx, In::Answer, "server", "nginx"),
    (Intermediary::Nginx, In::Answer, "server", "openresty"),
    (Intermediary::Caddy, In::Answer, "via", "caddy"),
    (Intermediary::Caddy, In::Answer, "server", "caddy"),
    (Intermediary::Caddy, In::Request, "via", "caddy"),
    (Intermediary::Apache, In::Answer, "via", "(apache/"),
    (Intermediary::Apache, In::Request, "via", "(apache/"),
    (Intermediary::HaProxy, In::Answer, "via", "haproxy"),
    (Intermediary::HaProxy, In::Answer, "server", "haproxy"),
];

/// Recognises what a request and its answer have passed, by the headers that the client sees of the answer and
/// that the server saw of the request. Each is told once.
pub fn recognise<'a>(
    answer: impl IntoIterator<Item = (&'a str, &'a str)>,
    request: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Vec<Recognised> {
    let answer = answer.into_iter().map(|(name, value)| (In::Answer, name, value));
    let request = request.into_iter().map(|(name, value)| (In::Request, name, value));
    let headers: Vec<_> = answer
        .chain(request)
        .map(|(side, name, value)| (side, name.to_ascii_lowercase(), value))
        .collect();
    let mut recognised: Vec<Recognised> = Vec::new();
    let mut add = |intermediary, (side, name, value): &(In, String, &str)| {
        if recognised.iter().all(|one| one.intermediary != intermediary) {
            let side = if *side == In::Answer { "the answer" } else { "the request" };
            // A value may be long, and tell more than which proxy it is.
            let value: String = value.chars().take(60).collect();
            let by = format!("`{name}: {value}` in {side}");
            recognised.push(Recognised { intermediary, by });
        }
    };
    for (intermediary, side, name, sign) in SIGNS {
        let is_sign = |value: &str| {
            let value = value.to_ascii_lowercase();
            if matches!(name, "via" | "cdn-loop") {
                value.contains(sign)
            } else {
                value.starts_with(sign)
            }
        };
        let mut found = headers.iter().filter(|header| header.0 == side && header.1 == name);
        if let Some(header) = found.find(|header| is_sign(header.2)) {
            add(intermediary, header);
        }
    }
    let find = |side, name| headers.iter().find(|header| header.0 == side && header.1 == name);
    if let Some(server) = find(In::Answer, "server") {
        let product = server.2.split(['/', ' ']).next().unwrap_or_default();
        // Not Apache Traffic Server, which is another.
        if product.eq_ignore_ascii_case("apache") {
            add(Intermediary::Apache, server);
        }
    }
    if let Some(header) = find(In::Request, "x-forwarded-server") {
        let has_port = find(In::Request, "x-forwarded-port").is_some();
        add(if has_port { Intermediary::Traefik } else { Intermediary::Apache }, header);
    }
    if recognised.is_empty() {
        let names =
            [(In::Answer, "via"), (In::Request, "via"), (In::Request, "forwarded"), FORWARDED_FOR];
        if let Some((side, name, value)) = names.iter().find_map(|(side, name)| find(*side, name)) {
            let side = if *side == In::Answer { "the answer" } else { "the request" };
            let value = if *name == "via" { format!(": {value}") } else { String::new() };
            let by = format!("`{name}{value}` in {side}");
            recognised.push(Recognised { intermediary: Intermediary::Unknown, by });
        }
    }
    recognised
}

const FORWARDED_FOR: (In, &str) = (In::Request, "x-forwarded-for");

#[cfg(test)]
mod tests {
    use super::*;

    fn names(answer: &[(&str, &str)], request: &[(&str, &str)]) -> Vec<&'static str> {
        let recognised = recognise(answer.iter().copied(), request.iter().copied());
        recognised.into_iter().map(|one| one.intermediary.as_str()).collect()
    }

    #[test]
    fn by_the_answer() {
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
    fn by_what_the_server_saw() {
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
    fn several_on_one_path_each_once() {
        let answer = [("server", "cloudflare"), ("cf-ray", "x"), ("via", "1.1 Caddy")];
        assert_eq!(names(&answer, &[("cf-ray", "x")]), ["cloudflare", "caddy"]);
    }

    #[test]
    fn none_where_nothing_tells_of_one() {
        let answer = [("server", "ApacheTrafficServer"), ("content-type", "text/event-stream")];
        assert_eq!(names(&answer, &[("host", "nginx"), ("connection", "close")]), [""; 0]);
    }

    #[test]
    fn by_what_in_words_and_not_whose_address() {
        let one = &recognise([("Server", "nginx/1.22.1")], [])[0];
        assert_eq!(one.by, "`server: nginx/1.22.1` in the answer");
        let one = &recognise([], [("x-forwarded-for", "192.0.2.1")])[0];
        assert_eq!(one.by, "`x-forwarded-for` in the request");
    }
}
