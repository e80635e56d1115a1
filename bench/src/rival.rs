//! The usual alternative: axum's `Sse` over a broadcast channel.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::sse::{Event, KeepAlive, Sse},
    routing::{get, post},
};
use tokio::sync::broadcast;
use tokio_stream::{Stream, StreamExt as _, wrappers::BroadcastStream};

use crate::process;

type Sender = broadcast::Sender<Arc<str>>;

/// Serves until the process is killed.
pub fn serve() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let sender = Sender::new(1024);
        let router = Router::new()
            .route("/events", get(events))
            .route("/events/t", post(publish))
            .with_state(sender);
        axum::serve(process::listen(), router).await.unwrap();
    });
}

async fn events(
    State(sender): State<Sender>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = BroadcastStream::new(sender.subscribe())
        .filter_map(Result::ok)
        .map(|data| Ok(Event::default().id("00000000c10cca11-1").data(&data)));
    Sse::new(events).keep_alive(KeepAlive::default())
}

async fn publish(State(sender): State<Sender>, data: String) -> StatusCode {
    let _ = sender.send(data.into());
    StatusCode::CREATED
}
