//! `POST /load` and `DELETE /load`: the built-in load, for local requests only.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, Uri},
};
use waterclock::hub::Hub;
use waterclock_axum::{Denied, Problem, Stop};

use crate::{
    auth::Caller,
    compare::load::{Load, LoadParameters},
};

/// Starts the load (201), or extends a running one of the same rate and size (200). `name=…`
/// identifies the user of the load.
pub(super) async fn post(
    State(load): State<Load>,
    State(hub): State<Arc<Hub>>,
    State(stop): State<Stop>,
    Extension(caller): Extension<Arc<Caller>>,
    uri: Uri,
) -> Result<(StatusCode, Json<LoadParameters>), Problem> {
    caller.require_own().map_err(Denied::from)?;
    let parameters = LoadParameters::parse(&uri)?;
    let is_new = load.start(hub, stop, parameters, name(&uri))?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(parameters)))
}

/// Ends the load; with `name=…`, once no other user needs it.
pub(super) async fn delete(
    State(load): State<Load>,
    Extension(caller): Extension<Arc<Caller>>,
    uri: Uri,
) -> Result<StatusCode, Problem> {
    caller.require_own().map_err(Denied::from)?;
    load.end(&name(&uri));
    Ok(StatusCode::NO_CONTENT)
}

fn name(uri: &Uri) -> String {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    query.find(|(name, _)| name == "name").map(|(_, value)| value.into_owned()).unwrap_or_default()
}
