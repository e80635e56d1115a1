//! Publishing from a form (`POST /events/{topic}`).

use gloo_net::http::Request;
use js_sys::encode_uri_component;
use wasm_bindgen::JsCast as _;
use waterclock_leptos::browser::internal::problem_detail;
use web_sys::{FormData, HtmlFormElement, SubmitEvent};

use crate::labels::publish_failure_label;

/// Publishes the fields `topic`, `name` and `data` of a form, with an idempotency key.
///
/// # Errors
///
/// A text that describes why it failed. Another attempt with the same key publishes at most once.
pub(crate) async fn publish(event: &SubmitEvent, key: &str) -> Result<(), String> {
    let form = event.target().and_then(|target| target.dyn_into::<HtmlFormElement>().ok());
    let fields = form.as_ref().and_then(|form| FormData::new_with_form(form).ok());
    let field = |name| fields.as_ref().and_then(|fields| fields.get(name).as_string());
    let [topic, name, data] = ["topic", "name", "data"].map(|name| field(name).unwrap_or_default());
    let mut url = format!("/events/{}", encode_uri_component(&topic));
    if !name.is_empty() {
        url = format!("{url}?name={}", encode_uri_component(&name));
    }
    let request = Request::post(&url).header("Idempotency-Key", key).body(data);
    let request = request.map_err(|_| String::new())?;
    match request.send().await {
        Err(_) => Err("The server cannot be reached.".to_owned()),
        Ok(response) if response.ok() => Ok(()),
        Ok(response) => {
            let status = response.status();
            let wait = response.headers().get("retry-after").and_then(|wait| wait.parse().ok());
            let detail = problem_detail(response).await;
            Err(publish_failure_label(status, detail.as_deref(), wait))
        }
    }
}
