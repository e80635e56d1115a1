//! Dialogs (WHATWG HTML 4.11.4). They are in the document only while they are open.

use leptos::{html::Div, mount::mount_to, prelude::*};
use wasm_bindgen::{JsCast as _, closure::Closure};
use web_sys::{HtmlDialogElement, HtmlDivElement};

use super::page::matches_media;

/// Returns `true` if the window has room for a dialog beside the list. The style sheet has the same
/// condition.
fn has_room() -> bool {
    matches_media("(min-width: 64rem)")
}

/// Opens a dialog with this content and a button that closes it. It is modal, unless there is room
/// for it beside a list that is given.
pub(crate) fn open_dialog<N: IntoView<State: 'static>>(
    label: &str,
    list: Option<NodeRef<Div>>,
    content: impl FnOnce() -> N + 'static,
) {
    let Some(dialog) = new_dialog(label) else { return };
    let content = mount_to(dialog.clone().unchecked_into(), move || {
        view! {
            {content()}
            <form method="dialog" class="buttons"><button class="quiet" autofocus=true>"Close"</button></form>
        }
    });
    show(&dialog, list.and_then(|list| list.get_untracked()), Box::new(move || drop(content)));
}

fn new_dialog(label: &str) -> Option<HtmlDialogElement> {
    let dialog = document().create_element("dialog").ok()?;
    // This does not fail for a new element.
    let _ = dialog.set_attribute("aria-label", label);
    dialog.dyn_into().ok()
}

fn show(dialog: &HtmlDialogElement, list: Option<HtmlDivElement>, clean_up: Box<dyn FnOnce()>) {
    let list = list.filter(|_| has_room());
    // None of this fails for a new element.
    if let Some(parent) = list.as_ref().and_then(|list| list.parent_element()) {
        let _ = parent.append_child(dialog);
        // Its method `show` would also move the focus.
        dialog.set_open(true);
    } else {
        let _ = document().body().map(|body| body.append_child(dialog));
        let _ = dialog.show_modal();
    }
    let closed = dialog.clone();
    let on_close = Closure::once_into_js(move || {
        clean_up();
        closed.remove();
        // A modal dialog gives the focus back by itself.
        let _ = list.map(|list| list.focus());
    });
    dialog.set_onclose(Some(on_close.unchecked_ref()));
}

/// Closes the dialog that is open beside the list. Returns `false` if there is none.
pub(crate) fn close_pane() -> bool {
    let dialog = document().query_selector("dialog").ok().flatten();
    let dialog = dialog.and_then(|dialog| dialog.dyn_into::<HtmlDialogElement>().ok());
    dialog.map(|dialog| dialog.close()).is_some()
}
