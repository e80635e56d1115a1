//! `GET /meters/{meter}` and `POST /meters/{meter}/cut`: the byte counts of a page that compares
//! transports. A layer on the routes of events counts the requests that ask for it with `meter=…`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderName, Uri, header::CACHE_CONTROL},
};
use serde::Serialize;
use waterclock::transport::Transport;
use waterclock_axum::Problem;

use crate::{
    compare::meter::{Meters, TransportCounts},
    net::Tap,
};

/// Counts a request and its response if it asks for that.
pub(super) async fn count(
    State(meters): State<Meters>,
    request: Request,
) -> Result<Request, Problem> {
    if let Some(transport) = transport(request.uri())
        && let Some(meter) = meters.requested(request.uri())?
        && let Some(tap) = request.extensions().get::<Arc<Tap>>()
    {
        meter.count(transport, tap);
    }
    Ok(request)
}

/// The transport of a request that reads events.
fn transport(uri: &Uri) -> Option<Transport> {
    let waits = || {
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        query.filter(|(name, _)| name == "wait").last().is_some_and(|(_, wait)| wait != "0")
    };
    match uri.path() {
        "/events" => Some(Transport::Sse),
        "/ws" => Some(Transport::WebSocket),
        "/poll" if waits() => Some(Transport::LongPoll),
        "/poll" => Some(Transport::Poll),
        _ => None,
    }
}

/// Answers with the counts of each transport, and of the connections that they share.
pub(super) async fn get(
    State(meters): State<Meters>,
    Path(meter): Path<String>,
) -> Result<([(HeaderName, &'static str); 1], Json<BTreeMap<&'static str, TransportCounts>>), Problem>
{
    let meter = meters.get(&meter)?;
    Ok(([(CACHE_CONTROL, "no-store")], Json(meter.read().collect())))
}

/// The number of connections that were cut.
#[derive(Serialize)]
pub(super) struct CutConnections {
    cut: usize,
}

/// Closes the connections of a meter, like a network that fails.
pub(super) async fn cut(
    State(meters): State<Meters>,
    Path(meter): Path<String>,
) -> Result<Json<CutConnections>, Problem> {
    Ok(Json(CutConnections { cut: meters.get(&meter)?.cut() }))
}
