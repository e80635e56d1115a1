//! An axum app with live events. Stop the server for a while, or go offline: the page resumes after
//! the last event that it has received.
//!
//! `cargo run -p waterclock-axum --example app`, then open <http://127.0.0.1:3001>.

use std::{error::Error, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, response::Html, routing::get};
use waterclock::{event::Draft, hub::Hub};
use waterclock_axum::EventRoutes;

const PAGE: &str = r#"<!doctype html><title>Orders</title><ul></ul><script>
new EventSource("/events?topic=orders.*").onmessage = (event) => {
  const item = document.createElement("li");
  item.textContent = event.data;
  document.querySelector("ul").append(item);
};
</script>"#;

pub(crate) fn app(hub: Arc<Hub>) -> Router {
    Router::new().route("/", get(async || Html(PAGE))).merge(EventRoutes::new(hub).router())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = Arc::new(Hub::in_memory());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3001").await?;
    // With the addresses of clients, to which the limits per client apply.
    let app = app(Arc::clone(&hub)).into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(axum::serve(listener, app).into_future());
    for number in 1.. {
        hub.publish(Draft::new("orders.eu".parse()?, format!("order {number}"))).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(serving.await??)
}
