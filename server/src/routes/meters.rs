//! `GET /meters/{meter}` and `POST /meters/{meter}/cut`: the byte counts of a page that compares
//! transports. A layer on the routes of events counts the requests that ask for it with `meter=…`.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderName, header::CACHE_CONTROL},
};
use serde::Serialize;
use waterclock_axum::{AcceptHook, Problem};

use crate::{
    compare::meter::{MeterName, Meters, TransportCounts},
    net::Tap,
};

/// Counts a request and its response if it asks for that, and its subscription is accepted.
pub(super) async fn count(
    State(meters): State<Meters>,
    mut request: Request,
) -> Result<Request, Problem> {
    if request.method().is_safe()
        && let Some(name) = MeterName::requested(request.uri())?
        && let Some(tap) = request.extensions().get::<Arc<Tap>>().cloned()
    {
        let hook = move |transport| meters.get_or_create(&name).count(transport, &tap);
        request.extensions_mut().insert(AcceptHook::new(hook));
    }
    Ok(request)
}

/// Returns the name in the path, which must be UTF-8.
fn name_in(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    let name = path.map(|Path(name)| name);
    name.map_err(|why| Problem::new(why.status(), format!("{}.", why.body_text())))
}

/// Answers with the counts of each transport, and of the connections that they share.
pub(super) async fn get(
    State(meters): State<Meters>,
    meter: Result<Path<String>, PathRejection>,
) -> Result<([(HeaderName, &'static str); 1], Json<BTreeMap<&'static str, TransportCounts>>), Problem>
{
    let meter = meters.get(&name_in(meter)?)?;
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
    meter: Result<Path<String>, PathRejection>,
) -> Result<Json<CutConnections>, Problem> {
    Ok(Json(CutConnections { cut: meters.get(&name_in(meter)?)?.cut() }))
}
