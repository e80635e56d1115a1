//! The table of what mends a fault: for each intermediary the very setting, where it has one.
//!
//! The directives are those of nginx 1.22 and later ([ngx_http_proxy_module](https://nginx.org/en/docs/http/ngx_http_proxy_module.html)),
//! `HAProxy` 2.6 and later ([manual](https://docs.haproxy.org/2.6/configuration.html)),
//! Caddy 2 ([reverse_proxy](https://caddyserver.com/docs/caddyfile/directives/reverse_proxy)) and
//! Apache httpd 2.4 ([mod_proxy](https://httpd.apache.org/docs/2.4/mod/mod_proxy.html)). Where 0.2 s come from in
//! `HAProxy`: [option http-no-delay](https://docs.haproxy.org/2.6/configuration.html#4.2-option%20http-no-delay).
//! What Amazon's API Gateway streams:
//! [response transfer mode](https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html).

use serde::Serialize;

use crate::{Fault, Intermediary, Recognised};

/// What mends a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// Where; none if it is not known where the fault is, or it does not matter.
    pub intermediary: Option<Intermediary>,
    /// What to do, with settings in backticks.
    pub text: String,
}

/// What mends a fault on a path: what each intermediary that was recognised is to be told. If there is none that
/// could be told, what the usual ones would be told, in short, or what to do in general.
pub fn mends(fault: Fault, path: &[Recognised]) -> Vec<Mend> {
    let of = |intermediary| {
        let text = mend(fault, intermediary)?.to_owned();
        Some(Mend { intermediary: Some(intermediary), text })
    };
    let mut mends: Vec<_> = path.iter().filter_map(|one| of(one.intermediary)).collect();
    if !mends.is_empty() {
        // It may be the server, and not who is on the way.
        let general =
            matches!(fault, Fault::ConnectionLimit | Fault::IdleTimeout).then(|| general(fault));
        let general =
            general.flatten().map(|text| Mend { intermediary: None, text: text.to_owned() });
        mends.extend(general);
        return mends;
    }
    let usual = Intermediary::USUAL.into_iter().filter_map(|intermediary| {
        Some(format!("{}: {}", intermediary.title(), mend(fault, intermediary)?))
    });
    let texts: Vec<_> = general(fault).map(str::to_owned).into_iter().chain(usual).collect();
    vec![Mend { intermediary: None, text: texts.join(". ") }]
}

/// What mends a fault whatever is on the path.
fn general(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::Http10 => "Have whatever answers the client speak HTTP/1.1 or HTTP/2",
        Fault::SixConnections => {
            "Have whatever answers browsers speak HTTP/2, which they do over TLS only. The tabs of Waterclock's own \
             page share one connection"
        }
        Fault::ConnectionLimit => {
            "If it is Waterclock's own limit: `--max-streams`, and `--max-streams-per-address` with \
             `--trusted-proxy`, without which all clients of a proxy count as one"
        }
        Fault::LateFirstEvent => {
            "Something waits before it passes the answer on: for the server to start, or for enough of the answer to \
             look at. See also what is said of delivery"
        }
        Fault::EventsLost | Fault::CommentsLost | Fault::RetryLost | Fault::IdsLost => {
            "Something on the way rewrites the stream, such as a filter of a firewall or a virus scanner: have it \
             leave `text/event-stream` alone, or use TLS, through which it cannot see"
        }
        Fault::IdleTimeout => {
            "Have the server send heartbeats more often, half the time after which the stream is cut (Waterclock: \
             `--heartbeat`), or have who cuts it wait longer"
        }
        Fault::LastEventIdLost => {
            "Have the header pass, or send the id in the query (Waterclock: `last_event_id`)"
        }
        Fault::GetUnlikePost => {
            "Something looks into answers to GET before it passes them on, such as a virus scanner: use TLS, or have \
             it leave `text/event-stream` alone"
        }
        Fault::ServiceWorker => {
            "Have its `fetch` handler return without `respondWith` for requests that accept `text/event-stream`"
        }
        Fault::ClockOff => "Have both machines set their clocks by NTP",
        _ => return None,
    })
}

/// What an intermediary is to be told, if it has a setting for it.
#[rustfmt::skip]
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub fn mend(fault: Fault, intermediary: Intermediary) -> Option<&'static str> {
    use Intermediary::{
        Apache, AwsApiGateway, AwsLoadBalancer, AzureApplicationGateway, AzureFrontDoor, Caddy, CloudFront,
        Cloudflare, Envoy, Fastly, GoogleCloud, HaProxy, Heroku, Netlify, Nginx, Traefik, Varnish, Vercel,
    };
    Some(match (fault, intermediary) {
        (Fault::Buffering | Fault::LateFirstEvent | Fault::GetUnlikePost, intermediary) => match intermediary {
            Nginx => "`proxy_buffering off;` in the location, and no `proxy_ignore_headers X-Accel-Buffering;`, so that the stream's own `X-Accel-Buffering: no` counts; `proxy_http_version 1.1;` and `gzip off;` there, too",
            HaProxy => "no `http-response wait-for-body`, and `compression type` without `text/event-stream`",
            Caddy => "neither `response_buffers` nor `buffer_responses` in `reverse_proxy`, and `encode` only where a matcher leaves streams out; `flush_interval -1` for streams that are not `text/event-stream`",
            Apache => "`SetEnvIf Request_URI \"^/(events|diagnose/stream)\" no-gzip no-brotli`, and no other output filter for streams; mod_proxy_http itself passes on what it has whenever the server pauses (mod_proxy_fcgi and mod_proxy_ajp: `ProxyPass … flushpackets=on`)",
            Varnish => "`return (pipe);` for streams in `vcl_recv`, or `set beresp.do_stream = true;` in `vcl_backend_response`",
            Envoy => "for this route no filter that collects answers, such as `ext_proc` with buffered bodies, or the compressor",
            Traefik => "no `buffering` middleware on this router; `responseForwarding.flushInterval` of the service may be `-1`",
            Cloudflare => "no rule or app that rewrites the body of this path, and Response Buffering off",
            CloudFront => "the cache policy `CachingDisabled` for this path, `Compress objects automatically` off, and no Lambda@Edge that collects the answer",
            AwsLoadBalancer => "a target that is no Lambda function, whose answers are collected whole",
            AwsApiGateway => "REST APIs: the integration's response transfer mode `STREAM`. HTTP APIs collect each answer whole: go past them, by an Application Load Balancer",
            GoogleCloud => "Cloud CDN off for this backend, and its `compressionMode` `DISABLED`",
            AzureFrontDoor => "caching and compression off for this route",
            AzureApplicationGateway => "`enableResponseBuffering` of its global configuration: `false`",
            Fastly => "`return(pass);` for this path in `vcl_recv`, and `set beresp.do_stream = true;`",
            Vercel | Netlify => "a function that streams its answer, or past it straight to the server",
            _ => return None,
        },
        (Fault::Coalescing, intermediary) => match intermediary {
            Nginx => "`tcp_nodelay on;` (the default), and `proxy_buffering off;`",
            HaProxy => "`option http-no-delay`; without it, the system may wait 0.2 s for more to send",
            Caddy => "`flush_interval -1` in `reverse_proxy`, for streams that are not `text/event-stream`",
            _ => return None,
        },
        (Fault::Compression, intermediary) => match intermediary {
            Nginx => "`gzip off;` in the location, or `gzip_types` without `text/event-stream`; the same for `brotli` and `zstd`",
            HaProxy => "a `compression type` that lists what is to be compressed, and not `text/event-stream` (without any, all is); and leave the stream's `Cache-Control: no-transform` in place, which it obeys",
            Caddy => "`encode` only where a matcher leaves streams out: `@page not path /events /diagnose/stream`, `encode @page zstd gzip`",
            Apache => "`SetEnvIf Request_URI \"^/(events|diagnose/stream)\" no-gzip no-brotli`, or no `text/event-stream` in `AddOutputFilterByType DEFLATE`",
            Varnish => "no `set beresp.do_gzip = true;` for streams",
            Envoy => "`content_type` of the compressor without `text/event-stream`",
            Traefik => "`excludedContentTypes: text/event-stream` of the `compress` middleware",
            Cloudflare => "a Compression Rule that switches it off for this path",
            CloudFront => "`Compress objects automatically` off for this path",
            GoogleCloud => "`compressionMode` of the backend: `DISABLED`",
            AzureFrontDoor => "no `text/event-stream` among the route's content types to compress",
            Fastly => "no `text/event-stream` in the gzip policy",
            _ => return None,
        },
        (Fault::IdleTimeout, intermediary) => match intermediary {
            Nginx => "`proxy_read_timeout 1h;` (default 60s)",
            HaProxy => "`timeout server 1h`; for WebSockets `timeout tunnel 1h`",
            Caddy => "no `read_timeout` in `transport http`, or `read_timeout 1h`",
            Apache => "`ProxyTimeout 3600`, or `timeout=3600` in `ProxyPass` (default: `Timeout`, 60 s)",
            Varnish => "`.between_bytes_timeout = 1h;` of the backend (default 60s), and `pipe_timeout` where streams are piped",
            Envoy => "`stream_idle_timeout: 0s` of the connection manager (default 5 min) or `idle_timeout: 0s` of the route, and its `timeout: 0s` (default 15 s)",
            Traefik => "`respondingTimeouts.writeTimeout` of the entry point: `0` (the default)",
            Cloudflare => "it cuts after 100 to 120 s of silence, which only Enterprise plans can change (Proxy Read Timeout): heartbeats more often than that",
            CloudFront => "the origin's response time-out (default 30 s, up to 120 s): heartbeats more often than that",
            AwsLoadBalancer => "`idle_timeout.timeout_seconds` (default 60), up to 4000",
            AwsApiGateway => "REST APIs that stream allow 5 min of silence, edge-optimised ones 30 s, and 15 min in all; others end each answer after some 30 s: go past them, by an Application Load Balancer",
            GoogleCloud => "`timeoutSec` of the backend (default 30), which bounds the whole stream: 86400",
            AzureFrontDoor => "the origin's response time-out (up to 240 s): heartbeats more often than that",
            AzureApplicationGateway => "the request time-out of the backend setting (default 20 s)",
            Fastly => "the backend's `between_bytes_timeout` (default 10 s)",
            Heroku => "it cuts after 55 s of silence, always: heartbeats more often than that",
            Vercel | Netlify => "what a function or a rewrite answers may last, or be silent, only so long: go past it straight to the server",
            Intermediary::Fly | Intermediary::Unknown => return None,
        },
        (Fault::Http10Upstream, intermediary) => match intermediary {
            Nginx => "`proxy_http_version 1.1;` and `proxy_set_header Connection \"\";` (older versions ask in 1.0 by default)",
            Caddy => "`versions 1.1 2` in `transport http`",
            Apache => "no `SetEnv force-proxy-request-1.0`",
            _ => return None,
        },
        (Fault::Http10, intermediary) => match intermediary {
            Apache => "neither `downgrade-1.0` nor `force-response-1.0` in `SetEnvIf` or `BrowserMatch`",
            _ => return None,
        },
        (Fault::SixConnections, intermediary) => match intermediary {
            Nginx => "`listen 443 ssl;` with `http2 on;` (before 1.25.1: `listen 443 ssl http2;`)",
            HaProxy => "`bind :443 ssl crt … alpn h2,http/1.1`",
            Caddy => "a site with HTTPS has HTTP/2 by itself, unless `protocols` in `servers` leaves `h2` out",
            Apache => "`Protocols h2 http/1.1` (mod_http2) in the virtual host, which has `SSLEngine on`",
            _ => return None,
        },
        (Fault::ConnectionLimit, intermediary) => match intermediary {
            Nginx => "`worker_connections`, of which a stream takes two; no `limit_conn` for streams, no `max_conns` of the upstream's `server`; over HTTP/2 `http2_max_concurrent_streams` (default 128)",
            HaProxy => "`maxconn`, in `global`, in the frontend and of the `server`; over HTTP/2 `tune.h2.max-concurrent-streams` (default 100)",
            Caddy => "no `max_conns_per_host` in `transport http`",
            Apache => "`MaxRequestWorkers` and `ServerLimit`, since each stream takes a worker; `max=` in `ProxyPass`; over HTTP/2 `H2MaxWorkers`, which all connections of a process share; a new connection has six at once, more only once answers end",
            Varnish => "`.max_connections` of the backend, and `thread_pool_max`, since each stream takes a thread",
            Envoy => "`max_connections` and `max_requests` of the cluster's circuit breakers (default 1024)",
            _ => return None,
        },
        (Fault::ContentType, intermediary) => match intermediary {
            Nginx => "neither `add_header Content-Type` nor `proxy_hide_header Content-Type` in the location",
            HaProxy => "no `http-response set-header Content-Type`",
            Caddy => "no `header Content-Type`, and no `header_down Content-Type` in `reverse_proxy`",
            Apache => "neither `ForceType` nor `Header set Content-Type` for streams",
            _ => return None,
        },
        (Fault::CacheControl, intermediary) => match intermediary {
            Nginx => "no `expires`, `proxy_hide_header Cache-Control` or `add_header Cache-Control` in the location",
            HaProxy => "neither `http-response set-header Cache-Control` nor `del-header Cache-Control`",
            Caddy => "no `header Cache-Control`, and no `header_down Cache-Control` in `reverse_proxy`",
            Apache => "no `Header set Cache-Control`, `Header unset Cache-Control` or `ExpiresActive On` for streams",
            Cloudflare => "Browser Cache TTL: Respect Existing Headers",
            Varnish => "no `set resp.http.Cache-Control` or `unset` for streams",
            _ => return None,
        },
        (Fault::Cached, intermediary) => match intermediary {
            Nginx => "`proxy_cache off;` in the location",
            HaProxy => "no `http-request cache-use` for streams",
            Caddy => "no `cache` for streams",
            Apache => "`CacheDisable` for streams",
            Varnish => "`return (pipe);` or `return (pass);` for streams in `vcl_recv`",
            Cloudflare => "a Cache Rule that bypasses the cache for this path",
            CloudFront => "the cache policy `CachingDisabled` for this path",
            Fastly => "`return(pass);` for this path in `vcl_recv`",
            GoogleCloud => "Cloud CDN off for this backend, or its cache mode `USE_ORIGIN_HEADERS`",
            AzureFrontDoor => "caching off for this route",
            _ => return None,
        },
        (Fault::LastEventIdLost, intermediary) => match intermediary {
            Nginx => "no `proxy_set_header Last-Event-ID`, and no `proxy_pass_request_headers off;`",
            HaProxy => "no `http-request del-header Last-Event-ID`",
            Caddy => "no `header_up -Last-Event-ID` in `reverse_proxy`",
            Apache => "no `RequestHeader unset Last-Event-ID`",
            CloudFront => "the origin request policy `AllViewer`, by which all headers pass",
            Varnish => "no `unset req.http.Last-Event-ID;`",
            _ => return None,
        },
        (Fault::PostRefused, intermediary) => match intermediary {
            Nginx => "no `limit_except` that leaves POST out",
            HaProxy => "no `http-request deny` by `method`",
            Caddy => "no `method` matcher that leaves POST out",
            Apache => "no `AllowMethods`, `<Limit>` or `<LimitExcept>` that leaves POST out",
            CloudFront => "allowed methods of this path: all",
            _ => return None,
        },
        (
            Fault::EventsLost | Fault::CommentsLost | Fault::RetryLost | Fault::IdsLost | Fault::ServiceWorker
            | Fault::ClockOff,
            _,
        ) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(intermediary: Intermediary) -> [Recognised; 1] {
        [Recognised { intermediary, by: String::new() }]
    }

    #[test]
    fn each_fault_has_a_mend_whatever_is_on_the_path() {
        for fault in Fault::ALL {
            for intermediary in Intermediary::ALL {
                let mends = mends(fault, &path(intermediary));
                assert!(mends.iter().all(|mend| mend.text.len() > 10), "{fault} {intermediary}");
                assert!(!mends.is_empty());
            }
            assert_eq!(mends(fault, &[]).len(), 1);
        }
    }

    #[test]
    fn who_was_recognised_is_told_and_nobody_else() {
        let mends = mends(Fault::Buffering, &path(Intermediary::Nginx));
        assert_eq!(mends.len(), 1);
        assert_eq!(mends[0].intermediary, Some(Intermediary::Nginx));
        assert!(mends[0].text.starts_with("`proxy_buffering off;`"));
    }

    #[test]
    fn where_it_may_be_the_server_it_is_told_too() {
        for (fault, of_nginx, of_server) in [
            (Fault::IdleTimeout, "proxy_read_timeout", "--heartbeat"),
            (Fault::ConnectionLimit, "worker_connections", "--max-streams-per-address"),
        ] {
            let mends = mends(fault, &path(Intermediary::Nginx));
            let told: Vec<_> = mends.iter().map(|mend| mend.intermediary).collect();
            assert_eq!(told, [Some(Intermediary::Nginx), None], "{fault}");
            assert!(mends[0].text.contains(of_nginx), "{}", mends[0].text);
            assert!(mends[1].text.contains(of_server), "{}", mends[1].text);
        }
    }

    #[test]
    fn if_nobody_was_the_usual_four_are_in_short() {
        for fault in [Fault::Buffering, Fault::Compression, Fault::IdleTimeout, Fault::Cached] {
            let text = &mends(fault, &[])[0].text;
            for intermediary in Intermediary::USUAL {
                assert!(text.contains(&format!("{}: ", intermediary.title())), "{text}");
            }
        }
    }
}
