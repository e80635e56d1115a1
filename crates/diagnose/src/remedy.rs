//! The table of remedies: the settings of each intermediary that fix a fault.
//!
//! The settings are those of nginx 1.22 and later ([manual][nginx]), `HAProxy` 2.6 and later
//! ([manual][haproxy]), Caddy 2 ([manual][caddy]) and Apache httpd 2.4 ([manual][apache]).
//! `HAProxy` documents the delay of 0.2 s at its [`option http-no-delay`][delay]. Amazon documents
//! the limits of its API Gateway at the [response transfer mode][aws].
//!
//! [nginx]: https://nginx.org/en/docs/http/ngx_http_proxy_module.html
//! [haproxy]: https://docs.haproxy.org/2.6/configuration.html
//! [caddy]: https://caddyserver.com/docs/caddyfile/directives/reverse_proxy
//! [apache]: https://httpd.apache.org/docs/2.4/mod/mod_proxy.html
//! [delay]: https://docs.haproxy.org/2.6/configuration.html#4.2-option%20http-no-delay
//! [aws]: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html

use serde::Serialize;

use crate::{
    fault::Fault,
    intermediary::{
        Detection,
        Intermediary::{
            self, Apache, AwsApiGateway, AwsLoadBalancer, AzureApplicationGateway, AzureFrontDoor,
            Caddy, CloudFront, Cloudflare, Envoy, Fastly, GoogleCloud, HaProxy, Heroku, Netlify,
            Nginx, Traefik, Varnish, Vercel,
        },
    },
};

/// Instructions that fix a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// The intermediary to configure; `None` if the place of the fault is not known or does not
    /// matter.
    pub intermediary: Option<Intermediary>,
    /// The instructions, with settings in backticks.
    pub text: String,
}

impl Remedy {
    fn new(intermediary: Option<Intermediary>, text: impl Into<String>) -> Self {
        Self { intermediary, text: text.into() }
    }
}

/// Returns the remedies for a fault on a path: one for each detected intermediary that has a
/// setting for it. If there is none, returns a single remedy, with general advice and the settings
/// of the [common](Intermediary::COMMON) proxies.
pub fn remedies(fault: Fault, path: &[Detection]) -> Vec<Remedy> {
    let specific = path.iter().filter_map(|Detection { intermediary, .. }| {
        Some(Remedy::new(Some(*intermediary), remedy_for(fault, *intermediary)?))
    });
    let mut remedies: Vec<_> = specific.collect();
    if !remedies.is_empty() {
        // The limit may also be the server's own.
        if matches!(fault, Fault::ConnectionLimit | Fault::IdleTimeout) {
            remedies.extend(general(fault).map(|text| Remedy::new(None, text)));
        }
        return remedies;
    }
    let common = Intermediary::COMMON.into_iter().filter_map(|intermediary| {
        Some(format!("{}: {}", intermediary.title(), remedy_for(fault, intermediary)?))
    });
    let texts: Vec<_> = general(fault).map(str::to_owned).into_iter().chain(common).collect();
    vec![Remedy::new(None, texts.join(". "))]
}

/// Returns the advice for a fault that holds for any path.
fn general(fault: Fault) -> Option<&'static str> {
    Some(match fault {
        Fault::Http10 => {
            "Use HTTP/1.1 or HTTP/2 on the server or proxy that responds to the client"
        }
        Fault::Status => {
            "Respond to each request for the stream with status 200: at any other status, a \
             browser ends the `EventSource` for good. Check the URL. If it needs a token, give it \
             to this command by `--token-file` or `--header 'Authorization: Bearer …'`; a browser \
             needs a cookie, or a token in the URL"
        }
        Fault::Redirect => {
            "Send a `Location` that is an `http` or `https` URL without a password, and that does \
             not lead back. This command sends no cookies, so it follows a redirect that waits for \
             one in a circle"
        }
        Fault::MixedContent => {
            "Redirect to `https`, or give the page an `https` URL (Waterclock itself serves one \
             with `--tls-cert` and `--tls-key`)"
        }
        Fault::Cors => {
            "Send `Access-Control-Allow-Origin` with the page's origin in each response, redirects \
             included (Waterclock: `--cors-origin`), or serve the stream from the page's origin. \
             If the page has another origin than the URL, name it by `--origin`"
        }
        Fault::SixConnections => {
            "Serve HTTP/2 to browsers, which requires TLS (Waterclock: `--tls-cert` and \
             `--tls-key`, or `--tls-self-signed` to try it). The tabs of Waterclock's own page \
             share one connection"
        }
        Fault::ConnectionLimit => {
            "If the limit is Waterclock's own, raise `--max-streams` and \
             `--max-streams-per-address`. Behind a proxy, also set `--trusted-proxy`: without it, \
             all clients of the proxy count as one"
        }
        Fault::ContentType => {
            "Send `Content-Type: text/event-stream`, without a charset other than `utf-8`"
        }
        Fault::LateFirstEvent => {
            "Something delays the response: the server may have to start first, or a proxy may \
             wait for enough data to scan. See also the delivery check"
        }
        Fault::EndsAtOnce => {
            "Let the server keep the response open: its handler must not return, and must not set \
             `Content-Length`. If it does so already, look for a crash or a time limit of the \
             server, and in the error output of each proxy"
        }
        Fault::EventsLost | Fault::CommentsLost | Fault::RetryLost | Fault::IdsLost => {
            "Something on the path rewrites the stream, such as a firewall or a virus scanner. \
             Exempt `text/event-stream` there, or use TLS, which hides the stream from it"
        }
        Fault::Malformed => {
            "Send UTF-8, in lines that begin with `data:`, `event:`, `id:`, `retry:` (digits only) \
             or `:` (a comment), and an empty line after each event. Prefix each line of the data"
        }
        Fault::IdleTimeout => {
            "Send heartbeats at least twice within the time after which the stream is cut \
             (Waterclock: `--heartbeat`), or raise that timeout"
        }
        Fault::LastEventIdLost => {
            "Let the header pass, or send the id in the query (Waterclock: `last_event_id`)"
        }
        Fault::GetUnlikePost => {
            "Something scans the responses to GET before it passes them on, such as a virus \
             scanner. Use TLS, or exempt `text/event-stream` there"
        }
        Fault::ServiceWorker => {
            "Let the worker's `fetch` handler return without `respondWith` for requests that \
             accept `text/event-stream`"
        }
        Fault::ClockOff => "Synchronize both clocks with NTP",
        _ => return None,
    })
}

/// Returns the instructions that fix a fault in one intermediary. Returns `None` if the
/// intermediary has no setting for it.
pub fn remedy_for(fault: Fault, intermediary: Intermediary) -> Option<&'static str> {
    match fault {
        Fault::Buffering | Fault::LateFirstEvent | Fault::GetUnlikePost => buffering(intermediary),
        Fault::Coalescing => coalescing(intermediary),
        Fault::Compression => compression(intermediary),
        Fault::IdleTimeout => idle_timeout(intermediary),
        Fault::Http10 => http10(intermediary),
        Fault::Http10Upstream => http10_upstream(intermediary),
        Fault::SixConnections => six_connections(intermediary),
        Fault::ConnectionLimit => connection_limit(intermediary),
        Fault::ContentType => content_type(intermediary),
        Fault::CacheControl => cache_control(intermediary),
        Fault::Cached => cached(intermediary),
        Fault::LastEventIdLost => last_event_id_lost(intermediary),
        Fault::PostRefused => post_refused(intermediary),
        Fault::Status
        | Fault::Redirect
        | Fault::MixedContent
        | Fault::Cors
        | Fault::EndsAtOnce
        | Fault::EventsLost
        | Fault::CommentsLost
        | Fault::RetryLost
        | Fault::IdsLost
        | Fault::Malformed
        | Fault::ServiceWorker
        | Fault::ClockOff => None,
    }
}

fn buffering(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => {
            "Set `proxy_buffering off;`, `proxy_http_version 1.1;` and `gzip off;` in the \
             location. Remove `proxy_ignore_headers X-Accel-Buffering;`, so that nginx obeys the \
             stream's own `X-Accel-Buffering: no`"
        }
        HaProxy => {
            "Remove `http-response wait-for-body`. Leave `text/event-stream` out of `compression \
             type`"
        }
        Caddy => {
            "Remove `response_buffers` and `buffer_responses` from `reverse_proxy`. Restrict \
             `encode` with a matcher that leaves streams out. For streams that are not \
             `text/event-stream`, set `flush_interval -1`"
        }
        Apache => {
            "Set `SetEnvIf Request_URI \"^/(events|diagnose/stream)\" no-gzip no-brotli`, and use \
             no other output filter for streams. mod_proxy_http needs no setting: it flushes \
             whenever the server pauses. For mod_proxy_fcgi and mod_proxy_ajp, set `ProxyPass … \
             flushpackets=on`"
        }
        Varnish => {
            "Use `return (pipe);` for streams in `vcl_recv`, or `set beresp.do_stream = true;` in \
             `vcl_backend_response`"
        }
        Envoy => {
            "Use no filter on this route that collects responses, such as `ext_proc` with buffered \
             bodies, or the compressor"
        }
        Traefik => {
            "Use no `buffering` middleware on this router. Optionally set \
             `responseForwarding.flushInterval` of the service to `-1`"
        }
        Cloudflare => {
            "Switch Response Buffering off, and use no rule or app that rewrites the body of this \
             path"
        }
        CloudFront => {
            "Use the cache policy `CachingDisabled` for this path, switch `Compress objects \
             automatically` off, and use no Lambda@Edge function that collects the response"
        }
        AwsLoadBalancer => {
            "Use a target that is not a Lambda function: the response of a Lambda function is \
             collected as a whole"
        }
        AwsApiGateway => {
            "For a REST API, set the integration's response transfer mode to `STREAM`. An HTTP API \
             collects each response as a whole: use an Application Load Balancer instead"
        }
        GoogleCloud => {
            "Switch Cloud CDN off for this backend, and set its `compressionMode` to `DISABLED`"
        }
        AzureFrontDoor => "Switch caching and compression off for this route",
        AzureApplicationGateway => {
            "Set `enableResponseBuffering` to `false` in the global configuration"
        }
        Fastly => {
            "Use `return(pass);` for this path in `vcl_recv`, and `set beresp.do_stream = true;`"
        }
        Vercel | Netlify => {
            "Use a function that streams its response, or let clients connect to the server \
             directly"
        }
        _ => return None,
    })
}

fn coalescing(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => "Set `tcp_nodelay on;` (the default) and `proxy_buffering off;`",
        HaProxy => {
            "Set `option http-no-delay`. Without it, the system may wait 0.2 s for more data to \
             send"
        }
        Caddy => {
            "For streams that are not `text/event-stream`, set `flush_interval -1` in \
             `reverse_proxy`"
        }
        _ => return None,
    })
}

fn compression(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => {
            "Set `gzip off;` in the location, or leave `text/event-stream` out of `gzip_types`. \
             The same applies to `brotli` and `zstd`"
        }
        HaProxy => {
            "Set a `compression type` without `text/event-stream` (by default, every type is \
             compressed). Keep the stream's `Cache-Control: no-transform`, which HAProxy obeys"
        }
        Caddy => {
            "Restrict `encode` with a matcher that leaves streams out: `@page not path /events \
             /diagnose/stream`, `encode @page zstd gzip`"
        }
        Apache => {
            "Set `SetEnvIf Request_URI \"^/(events|diagnose/stream)\" no-gzip no-brotli`, or leave \
             `text/event-stream` out of `AddOutputFilterByType DEFLATE`"
        }
        Varnish => "Remove `set beresp.do_gzip = true;` for streams",
        Envoy => "Leave `text/event-stream` out of the compressor's `content_type`",
        Traefik => "Set `excludedContentTypes: text/event-stream` in the `compress` middleware",
        Cloudflare => "Add a Compression Rule that switches compression off for this path",
        CloudFront => "Switch `Compress objects automatically` off for this path",
        GoogleCloud => "Set the backend's `compressionMode` to `DISABLED`",
        AzureFrontDoor => "Leave `text/event-stream` out of the route's content types to compress",
        Fastly => "Leave `text/event-stream` out of the gzip policy",
        _ => return None,
    })
}

fn idle_timeout(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => "Set `proxy_read_timeout 1h;` (default 60s)",
        HaProxy => "Set `timeout server 1h`, and for WebSockets `timeout tunnel 1h`",
        Caddy => "Remove `read_timeout` from `transport http`, or set `read_timeout 1h`",
        Apache => {
            "Set `ProxyTimeout 3600`, or `timeout=3600` in `ProxyPass` (default: `Timeout`, 60 s)"
        }
        Varnish => {
            "Set `.between_bytes_timeout = 1h;` in the backend (default 60s), and `pipe_timeout` \
             for streams that are piped"
        }
        Envoy => {
            "Set `timeout: 0s` in the route (default 15 s), and `stream_idle_timeout: 0s` in the \
             connection manager (default 5 min) or `idle_timeout: 0s` in the route"
        }
        Traefik => "Set `respondingTimeouts.writeTimeout` of the entry point to `0` (the default)",
        Cloudflare => {
            "Send heartbeats more often. Cloudflare cuts a stream that is idle for 100 to 120 s, \
             which only Enterprise plans can change (Proxy Read Timeout)"
        }
        CloudFront => {
            "Send heartbeats more often than the origin's response timeout (default 30 s, at most \
             120 s)"
        }
        AwsLoadBalancer => "Raise `idle_timeout.timeout_seconds` (default 60, at most 4000)",
        AwsApiGateway => {
            "Use an Application Load Balancer instead. A REST API that streams allows 5 min \
             without data (30 s if it is edge-optimized) and 15 min in total. Other APIs end each \
             response after about 30 s"
        }
        GoogleCloud => {
            "Set the backend's `timeoutSec` to 86400 (default 30). It limits the whole stream, not \
             only the time without data"
        }
        AzureFrontDoor => {
            "Send heartbeats more often than the origin's response timeout (at most 240 s)"
        }
        AzureApplicationGateway => {
            "Raise the request timeout of the backend setting (default 20 s)"
        }
        Fastly => "Raise the backend's `between_bytes_timeout` (default 10 s)",
        Heroku => {
            "Send heartbeats more often. Heroku cuts every stream that is idle for 55 s, which \
             cannot be changed"
        }
        Vercel | Netlify => {
            "Let clients connect to the server directly: the response of a function or a rewrite \
             is limited in total time and in time without data"
        }
        _ => return None,
    })
}

fn http10_upstream(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => {
            "Set `proxy_http_version 1.1;` and `proxy_set_header Connection \"\";` (older versions \
             use HTTP/1.0 by default)"
        }
        Caddy => "Set `versions 1.1 2` in `transport http`",
        Apache => "Remove `SetEnv force-proxy-request-1.0`",
        _ => return None,
    })
}

fn http10(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Apache => {
            "Remove `downgrade-1.0` and `force-response-1.0` from `SetEnvIf` and `BrowserMatch`"
        }
        _ => return None,
    })
}

fn six_connections(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => "Set `listen 443 ssl;` and `http2 on;` (before 1.25.1: `listen 443 ssl http2;`)",
        HaProxy => "Set `bind :443 ssl crt … alpn h2,http/1.1`",
        Caddy => {
            "Serve the site over HTTPS, which enables HTTP/2, and keep `h2` in `protocols` of \
             `servers`"
        }
        Apache => "Set `Protocols h2 http/1.1` (mod_http2) in the virtual host with `SSLEngine on`",
        _ => return None,
    })
}

fn connection_limit(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => {
            "Raise `worker_connections` (a stream takes two), and for HTTP/2 \
             `http2_max_concurrent_streams` (default 128). Remove `limit_conn` for streams, and \
             `max_conns` from the upstream's `server`"
        }
        HaProxy => {
            "Raise `maxconn` in `global`, in the frontend and in the `server` line, and for HTTP/2 \
             `tune.h2.max-concurrent-streams` (default 100)"
        }
        Caddy => "Remove `max_conns_per_host` from `transport http`",
        Apache => {
            "Raise `MaxRequestWorkers` and `ServerLimit` (a stream takes a worker), `max=` in \
             `ProxyPass`, and for HTTP/2 `H2MaxWorkers`, which all connections of a process share. \
             A new HTTP/2 connection serves six requests at once, and more only after some \
             responses have ended"
        }
        Varnish => {
            "Raise `.max_connections` of the backend, and `thread_pool_max` (a stream takes a \
             thread)"
        }
        Envoy => {
            "Raise `max_connections` and `max_requests` in the cluster's circuit breakers (default \
             1024)"
        }
        _ => return None,
    })
}

fn content_type(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => {
            "Remove `add_header Content-Type` and `proxy_hide_header Content-Type` from the \
             location"
        }
        HaProxy => "Remove `http-response set-header Content-Type`",
        Caddy => {
            "Remove `header Content-Type`, and `header_down Content-Type` from `reverse_proxy`"
        }
        Apache => "Remove `ForceType` and `Header set Content-Type` for streams",
        _ => return None,
    })
}

fn cache_control(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => {
            "Remove `expires`, `proxy_hide_header Cache-Control` and `add_header Cache-Control` \
             from the location"
        }
        HaProxy => {
            "Remove `http-response set-header Cache-Control` and `http-response del-header \
             Cache-Control`"
        }
        Caddy => {
            "Remove `header Cache-Control`, and `header_down Cache-Control` from `reverse_proxy`"
        }
        Apache => {
            "Remove `Header set Cache-Control`, `Header unset Cache-Control` and `ExpiresActive \
             On` for streams"
        }
        Cloudflare => "Set Browser Cache TTL to Respect Existing Headers",
        Varnish => {
            "Remove `set resp.http.Cache-Control` and `unset resp.http.Cache-Control` for streams"
        }
        _ => return None,
    })
}

fn cached(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => "Set `proxy_cache off;` in the location",
        HaProxy => "Remove `http-request cache-use` for streams",
        Caddy => "Remove `cache` for streams",
        Apache => "Set `CacheDisable` for streams",
        Varnish => "Use `return (pipe);` or `return (pass);` for streams in `vcl_recv`",
        Cloudflare => "Add a Cache Rule that bypasses the cache for this path",
        CloudFront => "Use the cache policy `CachingDisabled` for this path",
        Fastly => "Use `return(pass);` for this path in `vcl_recv`",
        GoogleCloud => {
            "Switch Cloud CDN off for this backend, or set its cache mode to `USE_ORIGIN_HEADERS`"
        }
        AzureFrontDoor => "Switch caching off for this route",
        _ => return None,
    })
}

fn last_event_id_lost(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => "Remove `proxy_set_header Last-Event-ID` and `proxy_pass_request_headers off;`",
        HaProxy => "Remove `http-request del-header Last-Event-ID`",
        Caddy => "Remove `header_up -Last-Event-ID` from `reverse_proxy`",
        Apache => "Remove `RequestHeader unset Last-Event-ID`",
        CloudFront => "Use the origin request policy `AllViewer`, which forwards all headers",
        Varnish => "Remove `unset req.http.Last-Event-ID;`",
        _ => return None,
    })
}

fn post_refused(intermediary: Intermediary) -> Option<&'static str> {
    Some(match intermediary {
        Nginx => "Allow POST in `limit_except`",
        HaProxy => "Remove `http-request deny` rules that match POST by `method`",
        Caddy => "Allow POST in the `method` matcher",
        Apache => "Allow POST in `AllowMethods`, `<Limit>` and `<LimitExcept>`",
        CloudFront => "Allow all HTTP methods for this path",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(intermediary: Intermediary) -> [Detection; 1] {
        [Detection { intermediary, evidence: String::new() }]
    }

    #[test]
    fn each_fault_has_a_remedy_on_any_path() {
        for fault in Fault::ALL {
            for intermediary in Intermediary::ALL {
                let remedies = remedies(*fault, &path(*intermediary));
                let is_some = !remedies.is_empty();
                assert!(is_some && remedies.iter().all(|remedy| remedy.text.len() > 10));
            }
            assert_eq!(remedies(*fault, &[]).len(), 1);
        }
    }

    #[test]
    fn a_detected_proxy_is_the_only_one_with_a_remedy() {
        let remedies = remedies(Fault::Buffering, &path(Nginx));
        assert_eq!(remedies.len(), 1);
        assert_eq!(remedies[0].intermediary, Some(Nginx));
        assert!(remedies[0].text.starts_with("Set `proxy_buffering off;`"));
    }

    #[test]
    fn a_fault_that_may_be_of_the_server_has_a_general_remedy_too() {
        for (fault, of_nginx, of_server) in [
            (Fault::IdleTimeout, "proxy_read_timeout", "--heartbeat"),
            (Fault::ConnectionLimit, "worker_connections", "--max-streams-per-address"),
        ] {
            let remedies = remedies(fault, &path(Nginx));
            let intermediaries: Vec<_> = remedies.iter().map(|one| one.intermediary).collect();
            assert_eq!(intermediaries, [Some(Nginx), None], "{fault}");
            assert!(remedies[0].text.contains(of_nginx), "{}", remedies[0].text);
            assert!(remedies[1].text.contains(of_server), "{}", remedies[1].text);
        }
    }

    #[test]
    fn an_undetected_proxy_may_be_any_of_the_common_ones() {
        for fault in [Fault::Buffering, Fault::Compression, Fault::IdleTimeout, Fault::Cached] {
            let text = &remedies(fault, &[])[0].text;
            for intermediary in Intermediary::COMMON {
                assert!(text.contains(&format!("{}: ", intermediary.title())), "{text}");
            }
        }
    }
}
