//! The client for pages, as the server serves it.

use server::auth::Access;

use crate::support::{Server, Settings};

#[tokio::test]
async fn the_client_is_for_pages_of_any_origin() {
    // Even if the server names those that may read its events.
    let origin = "https://app.example.org".parse().unwrap();
    let access = Access { cors_origins: [origin].into(), ..Access::default() };
    let settings = Settings { access, ..Settings::default() };
    for server in [Server::start().await, Server::start_with(settings).await] {
        let headers: [(&str, &[u8]); 2] =
            [("Origin", b"https://other.example"), ("Via", b"a proxy")];
        let response = server.request("GET", "/client.js", &headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        assert_eq!(response.header("cross-origin-resource-policy"), Some("cross-origin"));
        assert_eq!(response.header("content-type"), Some("text/javascript"));
        assert_eq!(response.header("content-encoding"), None);
        assert!(response.rest().await.contains("subscribe"));
    }
}

#[tokio::test]
async fn the_client_is_sent_only_if_it_is_new() {
    let server = Server::start().await;
    let response = server.get("/client.js").await;
    assert_eq!(response.header("cache-control"), Some("public, no-cache, no-transform"));
    let tag = response.header("etag").expect("a tag").to_owned();
    let tags = format!("\"other\", {tag}");
    let response = server.request("GET", "/client.js", &[("If-None-Match", tags.as_bytes())]).await;
    assert_eq!(response.status(), 304);
    assert_eq!(response.header("etag"), Some(&*tag));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    assert_eq!(response.rest().await, "");
}

#[tokio::test]
async fn the_client_is_compressed_for_those_who_can_read_it() {
    let server = Server::start().await;
    for (accepted, encoding) in [
        ("gzip, deflate, br, zstd", Some("br")),
        ("br;q=0.5", Some("br")),
        ("br; q=0, gzip", None),
        ("gzip", None),
        ("", None),
    ] {
        let headers = [("Accept-Encoding", accepted.as_bytes())];
        let response = server.request("GET", "/client.js", &headers).await;
        assert_eq!(response.header("content-encoding"), encoding, "{accepted}");
        assert_eq!(response.header("vary"), Some("accept-encoding"));
        let length: usize = response.header("content-length").unwrap().parse().unwrap();
        assert_eq!(length < 8_192, encoding.is_some(), "{accepted}: {length}");
    }
}
