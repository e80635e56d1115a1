//! The pages over real sockets, as the server renders them.

use crate::support::{Server, TIME, event_id};

#[tokio::test]
async fn the_page_has_the_latest_events_newest_last() {
    let server = Server::start().await;
    for n in 1..=25 {
        server.publish(&format!("event number {n}.")).await;
    }
    let response = server.get("/").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("private, no-cache, no-transform"));
    let html = response.rest().await;
    let newest = html.find(">event number 25.<").expect("the newest event");
    let older = html.find(">event number 6.<").expect("the twentieth event");
    assert!(older < newest);
    assert!(!html.contains(">event number 5.<"), "only the latest twenty");
}

#[tokio::test]
async fn a_page_without_javascript_is_refreshed_unless_its_reader_pauses_it() {
    let server = Server::start().await;
    for n in 1..=105 {
        server.publish(&format!("event number {n}.")).await;
    }
    let refresh = r#"<noscript><meta http-equiv="refresh" content="5"></noscript>"#;
    let html = server.get("/?topic=clock").await.rest().await;
    assert!(html.contains(refresh), "{html}");
    assert!(html.contains(r#"href="/?topic=clock&amp;refresh=0""#), "{html}");
    assert_eq!(html.matches(">event number ").count(), 20);
    assert!(
        html.contains(&format!(r#"id="as-of">{}<"#, &TIME[11..19])),
        "the server's time: {html}"
    );

    let html = server.get("/?topic=clock&refresh=0").await.rest().await;
    assert!(!html.contains("http-equiv"), "{html}");
    assert!(html.contains(r#"href="/?topic=clock""#), "{html}");
    assert!(html.contains(">event number 105.<") && html.contains(">event number 6.<"));
    assert!(!html.contains(">event number 5.<"));
    for path in ["/compare", "/diagnose"] {
        assert!(!server.get(path).await.rest().await.contains("http-equiv"), "{path}");
    }
}

#[tokio::test]
async fn the_page_has_the_ends_of_its_topics_in_order() {
    let server = Server::start().await;
    for (path, data) in [
        ("live", "1. live"),
        ("f", "1. f"),
        ("f?end=failed", "disk <full>"),
        ("live", "2. live"),
        ("other?end", ""),
    ] {
        let response = server.post(path, "", data.as_bytes()).await;
        assert!(response.status() < 300, "{path}");
    }
    let html = server.get("/?topic=live,f").await.rest().await;
    let parts = [">1. live<", ">1. f<", ">Topic failed: f: disk &lt;full&gt;<", ">2. live<"];
    let places = parts.map(|part| html.find(part).unwrap_or_else(|| panic!("{part}: {html}")));
    assert!(places.is_sorted(), "{places:?}");
    assert!(!html.contains("other"), "{html}");
    // The browser gets the same.
    let end = r#""topic":"f","outcome":"failed","message":"disk \u003cfull>"}]"#;
    assert!(html.contains(end), "{html}");
}

#[tokio::test]
async fn a_page_has_large_events_only_up_to_a_limit_and_can_load_the_rest() {
    let server = Server::start().await;
    let before = async || {
        let html = server.get("/?refresh=0").await.rest().await;
        let (_, before) = html.split_once(r#""before":"#).expect("the position");
        before.split(',').next().unwrap().to_owned()
    };
    assert_eq!(before().await, "null");
    server.publish("small").await;
    assert_eq!(before().await, "null");
    for _ in 0..5 {
        server.publish(&"x".repeat(60 * 1024)).await;
    }
    let loaded = format!("\"{}\"", event_id(3));
    assert_eq!(before().await, loaded, "four of them fit into 256 KiB");
    let poll = server.get(&format!("/poll?before={}", event_id(3))).await.rest().await;
    assert!(poll.contains(&format!("\"id\":\"{}\"", event_id(1))), "{poll}");
}

#[tokio::test]
async fn a_page_without_events_says_so() {
    let server = Server::start().await;
    let before = server.get("/").await.rest().await;
    assert!(before.contains("No events yet.") && !before.contains("<li "), "{before}");
    // The style sheet hides the text as soon as there is a row.
    server.publish("something").await;
    let after = server.get("/").await.rest().await;
    assert!(after.contains("<li "), "{after}");
}

#[tokio::test]
async fn a_page_whose_stream_would_be_refused_says_why_at_once() {
    let server = Server::start().await;
    let topics: Vec<_> = (0..65).map(|number| format!("topic=t{number}")).collect();
    let many = topics.join("&");
    for (path, host, status, sentence) in [
        (&*format!("/?{many}"), "localhost", 400, "may have at most 64 topics"),
        ("/?topic=a..b", "localhost", 400, "The server refused these topics: "),
        ("/", "clock.test", 403, "You may not read these events. This topic is not public, "),
        ("/topics", "clock.test", 403, "You may not list topics. "),
    ] {
        let headers = [("Host", host.as_bytes()), ("Accept", b"text/html")];
        let response = server.request("GET", path, &headers).await;
        assert_eq!(response.status(), 200);
        let html = response.rest().await;
        assert!(html.contains(sentence), "{html}");
        let (_, refusal) = html.split_once(r#""refusal":{"status":"#).expect("the refusal");
        assert!(refusal.starts_with(&format!("{status},")), "{refusal}");
        let (_, state) = html.split_once(r#"class="state">"#).expect("the state");
        let (state, _) = state.split_once("</span>").unwrap();
        assert!(state.contains(sentence) && !state.contains('`'), "{state}");
        assert!(html.contains(r#"data-state="refused""#), "{html}");
    }
    assert!(server.get("/").await.rest().await.contains(r#""refusal":null"#));
}

#[tokio::test]
async fn tabs_with_the_same_topics_share_a_group() {
    let server = Server::start().await;
    let mut groups = Vec::new();
    for path in [
        "/",
        "/?topic=clock",
        "/?topic=b+a",
        "/?topic=a&topic=b&topic=a",
        "/?topic=a,b",
        "/?topic=b%2C+a%2C",
    ] {
        let html = server.get(path).await.rest().await;
        let (_, rest) = html.split_once(r#""group":""#).expect("the group");
        let (group, _) = rest.split_once('"').expect("its end");
        assert_eq!(group.len(), 16, "{group}");
        groups.push(group.to_owned());
    }
    assert_eq!(groups[0], groups[1]);
    assert!(groups[2..].iter().all(|group| *group == groups[2]), "{groups:?}");
    assert_ne!(groups[0], groups[2]);
}

#[tokio::test]
async fn events_and_headers_are_never_rendered_as_markup() {
    let server = Server::start().await;
    server.publish("</script><script>alert(1)</script><!--").await;
    let response = server.request("GET", "/", &[("Host", b"<img>:3000")]).await;
    let html = response.rest().await;
    assert!(!html.contains("<script>alert"), "{html}");
    assert!(!html.contains("<img>"), "{html}");
}

#[tokio::test]
async fn control_characters_are_rendered_as_text() {
    let server = Server::start().await;
    server.publish("\u{1b}[31m10%\r20%\0\u{202e}").await;
    let html = server.get("/").await.rest().await;
    assert!(html.contains(">10%^M20%^@\u{fffd}<"), "{html}");
    assert!(!html.contains(['\u{1b}', '\r', '\0']), "{html}");
}

#[tokio::test]
async fn the_command_names_the_host_that_the_reader_used() {
    let server = Server::start().await;
    let response = server.request("GET", "/", &[("Host", b"clock.test:8080")]).await;
    assert!(response.rest().await.contains("curl -N http://clock.test:8080/events"));
}

#[tokio::test]
async fn a_browser_gets_a_page_for_an_unknown_path() {
    let server = Server::start().await;
    let headers = [("Accept", b"text/html,*/*;q=0.8".as_slice())];
    let response = server.request("GET", "/nowhere", &headers).await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("vary"), Some("accept"));
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    assert!(response.rest().await.contains("There is no page here."));
}

#[tokio::test]
async fn other_clients_get_a_problem_for_an_unknown_path() {
    let server = Server::start().await;
    for (method, accept) in [("GET", "*/*"), ("GET", "application/json"), ("POST", "*/*")] {
        let headers = [("Accept", accept.as_bytes())];
        let response = server.request(method, "/nowhere", &headers).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert_eq!(response.header("vary"), Some("accept"));
        assert!(response.rest().await.contains("Events are at `/events`"));
    }
}

#[tokio::test]
async fn scripts_run_only_with_a_fresh_nonce() {
    let server = Server::start().await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let response = server.get("/").await;
        let policy = response.header("content-security-policy").unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self' 'nonce-"), "{policy}");
        assert!(!policy.contains("unsafe-inline"), "{policy}");
        let (_, nonce) = policy.split_once("'nonce-").unwrap();
        let (nonce, _) = nonce.split_once('\'').unwrap();
        let html = response.rest().await;
        // The data of a page is in an element that does not run.
        let data = html.matches("type=\"application/json\"").count();
        let scripts = html.matches("<script").count() - data;
        assert!(scripts > 0);
        assert_eq!(html.matches(&format!(" nonce=\"{nonce}\"")).count(), scripts, "{html}");
        assert!(!html.contains("style="), "{html}");
        nonces.push(nonce.to_owned());
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn every_response_has_the_security_headers() {
    let server = Server::start().await;
    for path in ["/", "/favicon.svg", "/nowhere", "/events", "/events?topic=none"] {
        let response = server.get(path).await;
        let policy = response.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.ends_with("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(response.header("referrer-policy"), Some("same-origin"), "{path}");
        assert_eq!(response.header("cross-origin-opener-policy"), Some("same-origin"), "{path}");
        assert_eq!(response.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert!(response.header("permissions-policy").is_some(), "{path}");
    }
}

#[tokio::test]
async fn a_cached_file_must_be_revalidated() {
    let server = Server::start().await;
    let response = server.get("/favicon.svg").await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("content-type"), Some("image/svg+xml"));
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    let since = response.header("last-modified").unwrap().to_owned();
    let headers = [("If-Modified-Since", since.as_bytes())];
    assert_eq!(server.request("GET", "/favicon.svg", &headers).await.status(), 304);
}

#[tokio::test]
async fn nothing_outside_the_site_is_served() {
    let server = Server::start().await;
    for path in
        ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml", "/pkg/../../Cargo.toml"]
    {
        assert_eq!(server.get(path).await.status(), 404, "{path}");
    }
}
