//! Requests for the server's JSON.

use gloo_net::http::Request;

/// Requests a resource. Returns `None` unless the server has answered with it.
pub(crate) async fn get(url: &str) -> Option<String> {
    let response = Request::get(url).header("accept", "application/json").send().await.ok()?;
    if response.ok() { response.text().await.ok() } else { None }
}
