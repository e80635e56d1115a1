//! A modal dialog (WHATWG HTML 4.11.4). It is in the document only while it is open.

use std::{cell::RefCell, rc::Rc};

use leptos::{mount::mount_to, prelude::*};
use wasm_bindgen::{JsCast as _, closure::Closure};
use web_sys::HtmlDialogElement;

/// Opens a dialog with this content and a button that closes it.
pub(crate) fn open_dialog<N: IntoView<State: 'static>>(
    label: &str,
    content: impl FnOnce() -> N + 'static,
) {
    let Ok(dialog) = document().create_element("dialog") else { return };
    let dialog: HtmlDialogElement = dialog.unchecked_into();
    // None of this fails for a new element.
    let _ = dialog.set_attribute("aria-label", label);
    let _ = document().body().map(|body| body.append_child(&dialog));
    let content = mount_to(dialog.clone().unchecked_into(), move || {
        view! {
            {content()}
            <form method="dialog" class="buttons"><button class="quiet" autofocus=true>"Close"</button></form>
        }
    });
    let content = Rc::new(RefCell::new(Some(content)));
    let closed = dialog.clone();
    let on_close = Closure::once_into_js(move || {
        content.take();
        closed.remove();
    });
    dialog.set_onclose(Some(on_close.unchecked_ref()));
    let _ = dialog.show_modal();
}
