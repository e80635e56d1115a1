//! Publishing from a form (`POST /events/{topic}`).

use gloo_net::http::Request;
use js_sys::encode_uri_component;
use wasm_bindgen::JsCast as _;
use waterclock_leptos::browser::internal::problem_detail;
use web_sys::{FormData, HtmlFormElement, SubmitEvent};

use crate::labels::publish_failure_label;

/// Publishes the fields `topic`, `name` and `data` of a form. Returns a text that describes the
/// result.
pub(crate) async fn publish(event: &SubmitEvent) -> String {
    let form = event.target().and_then(|target| target.dyn_into::<HtmlFormElement>().ok());
    let fields = form.as_ref().and_then(|form| FormData::new_with_form(form).ok());
    let field = |name| fields.as_ref().and_then(|fields| fields.get(name).as_string());
    let [topic, name, data] = ["topic", "name", "data"].map(|name| field(name).unwrap_or_default());
    let mut url = format!("/events/{}", encode_uri_component(&topic));
    if !name.is_empty() {
        url = format!("{url}?name={}", encode_uri_component(&name));
    }
    let Ok(request) = Request::post(&url).body(data) else { return String::new() };
    match request.send().await {
        Err(_) => "The server cannot be reached.".to_owned(),
        Ok(response) if response.ok() => "Published.".to_owned(),
        Ok(response) => {
            let status = response.status();
            let wait = response.headers().get("retry-after").and_then(|wait| wait.parse().ok());
            let detail = problem_detail(response).await;
            publish_failure_label(status, detail.as_deref(), wait)
        }
    }
}
