//! The pages over real sockets, as they are rendered on the server.

use crate::support::{Server, Settings};

async fn start() -> Server {
    Server::start(Settings::default()).await
}

#[tokio::test]
async fn the_page_has_the_latest_events_newest_first() {
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
    assert!(newest < older);
    assert!(!html.contains(">event number 5.<"), "only so many");
}

#[tokio::test]
async fn before_anything_has_happened_it_says_so() {
    let html = start().await.get("/").await.rest().await;
    assert!(html.contains("Nothing has happened yet."));
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
async fn where_no_page_is_a_page_says_so() {
    let answer = start().await.get("/nowhere").await;
    assert_eq!(answer.status(), 404);
    assert!(answer.rest().await.contains("There is no page here."));
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
