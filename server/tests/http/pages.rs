//! The pages over real sockets, as they are rendered on the server.

use crate::support::{Server, Settings};

async fn start() -> Server {
    Server::start(Settings::default()).await
}

#[tokio::test]
async fn the_page_has_the_latest_events_newest_last() {
    let server = start().await;
    for n in 1..=25 {
        server.publish(&format!("event number {n}.")).await;
    }
    let answer = server.get("/").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    let html = answer.rest().await;
    let newest = html.find(">event number 25.<").expect("the newest event");
    let older = html.find(">event number 6.<").expect("the twentieth event");
    assert!(older < newest);
    assert!(!html.contains(">event number 5.<"), "only so many");
}

#[tokio::test]
async fn before_anything_has_happened_it_says_so() {
    let server = start().await;
    let nothing = |html: String| {
        let at = html.find(">No events yet.<").expect("the text");
        html[html[..at].rfind('<').unwrap_or(0)..at].to_owned()
    };
    let before = nothing(server.get("/").await.rest().await);
    assert!(!before.contains("hidden"), "{before}");
    server.publish("something").await;
    let after = nothing(server.get("/").await.rest().await);
    assert!(after.contains("hidden"), "{after}");
}

#[tokio::test]
async fn tabs_that_show_the_same_are_told_the_same_group() {
    let server = start().await;
    let mut groups = Vec::new();
    for path in ["/", "/?topic=clock", "/?topic=b+a", "/?topic=a&topic=b&topic=a"] {
        let html = server.get(path).await.rest().await;
        let at = html.find("waterclock-2-").expect("the group");
        groups.push(html[at..at + "waterclock-2-0123456789abcdef".len()].to_owned());
    }
    assert_eq!(groups[0], groups[1]);
    assert_eq!(groups[2], groups[3]);
    assert_ne!(groups[0], groups[2]);
}

#[tokio::test]
async fn what_an_event_or_a_header_says_is_text_and_never_markup() {
    let server = start().await;
    server.publish("</script><script>alert(1)</script><!--").await;
    let answer = server.request("GET", "/", &[("Host", b"<img>:3000")]).await;
    let html = answer.rest().await;
    assert!(!html.contains("<script>alert"), "{html}");
    assert!(!html.contains("<img>"), "{html}");
}

#[tokio::test]
async fn the_command_names_the_host_that_the_reader_used() {
    let server = start().await;
    let answer = server.request("GET", "/", &[("Host", b"clock.test:8080")]).await;
    assert!(answer.rest().await.contains("curl -N http://clock.test:8080/events"));
}

#[tokio::test]
async fn where_no_page_is_a_browser_gets_a_page_that_says_so() {
    let server = start().await;
    let headers = [("Accept", b"text/html,*/*;q=0.8".as_slice())];
    let answer = server.request("GET", "/nowhere", &headers).await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(answer.header("vary"), Some("accept"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert!(answer.rest().await.contains("There is no page here."));
}

#[tokio::test]
async fn where_nothing_is_others_get_a_problem_that_says_what_there_is() {
    let server = start().await;
    for (method, accept) in [("GET", "*/*"), ("GET", "application/json"), ("POST", "*/*")] {
        let headers = [("Accept", accept.as_bytes())];
        let answer = server.request(method, "/nowhere", &headers).await;
        assert_eq!(answer.status(), 404);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("vary"), Some("accept"));
        assert!(answer.rest().await.contains("The events are at `/events`"));
    }
}

#[tokio::test]
async fn a_page_runs_its_own_scripts_only_with_a_nonce_that_is_drawn_anew() {
    let server = start().await;
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let answer = server.get("/").await;
        let policy = answer.header("content-security-policy").unwrap().to_owned();
        assert!(policy.starts_with("default-src 'none'; script-src 'self' 'nonce-"), "{policy}");
        assert!(!policy.contains("unsafe-inline"), "{policy}");
        let (_, nonce) = policy.split_once("'nonce-").unwrap();
        let (nonce, _) = nonce.split_once('\'').unwrap();
        let html = answer.rest().await;
        let scripts = html.matches("<script").count();
        assert!(scripts > 0);
        assert_eq!(html.matches(&format!(" nonce=\"{nonce}\"")).count(), scripts, "{html}");
        assert!(!html.contains("style="), "{html}");
        nonces.push(nonce.to_owned());
    }
    assert_ne!(nonces[0], nonces[1]);
}

#[tokio::test]
async fn every_answer_says_what_browsers_may_do_with_it() {
    let server = start().await;
    for path in ["/", "/favicon.svg", "/nowhere", "/events", "/events?topic=none"] {
        let answer = server.get(path).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{path}: {policy}");
        assert!(policy.ends_with("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cross-origin-opener-policy"), Some("same-origin"), "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
        assert!(answer.header("permissions-policy").is_some(), "{path}");
    }
}

#[tokio::test]
async fn a_file_is_kept_only_to_be_asked_for_again() {
    let server = start().await;
    let answer = server.get("/favicon.svg").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("content-type"), Some("image/svg+xml"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let since = answer.header("last-modified").unwrap().to_owned();
    let headers = [("If-Modified-Since", since.as_bytes())];
    assert_eq!(server.request("GET", "/favicon.svg", &headers).await.status(), 304);
}

#[tokio::test]
async fn nothing_outside_the_site_is_served() {
    let server = start().await;
    for path in
        ["/../Cargo.toml", "/%2e%2e/Cargo.toml", "/..%2fCargo.toml", "/pkg/../../Cargo.toml"]
    {
        assert_eq!(server.get(path).await.status(), 404, "{path}");
    }
}
