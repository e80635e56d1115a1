//! Leptos's effects and derived signals, boxed. Their generic code is then in the page once, not
//! once for each use.

use leptos::prelude::{Effect, GetUntracked as _, RwSignal, Set as _, Signal};

use crate::browser;

/// Runs in a browser, and again when a signal that it has read changes.
pub(crate) fn effect(run: impl FnMut() + 'static) {
    fn boxed(run: Box<dyn FnMut()>) {
        Effect::new(run);
    }
    boxed(Box::new(run));
}

/// Derives a text from other signals.
pub(crate) fn text(read: impl Fn() -> String + Send + Sync + 'static) -> Signal<String> {
    fn boxed(read: Box<dyn Fn() -> String + Send + Sync>) -> Signal<String> {
        Signal::derive(read)
    }
    boxed(Box::new(read))
}

/// Returns the server's origin: that of the host that the browser has requested, until the browser
/// tells its own. Behind a proxy, the server does not know its own address.
pub(crate) fn origin(host: &str) -> RwSignal<String> {
    let origin = RwSignal::new(format!("http://{host}"));
    effect(move || origin.set(browser::origin()));
    origin
}

/// Returns the text with which the server fills an element whose text changes. Returns `None` in a
/// browser: the property `textContent` sets the text there, and a child would repeat it.
pub(crate) fn first_text(text: Signal<String>) -> Option<String> {
    cfg!(feature = "ssr").then(|| text.get_untracked())
}
