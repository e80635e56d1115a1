//! The element that scrolls, and the list in it, of whose rows only those in view are in the document.

use leptos::{html::Div, prelude::*};
use wasm_bindgen::JsCast as _;
use web_sys::HtmlElement;

use crate::feed::Frame;

/// How high a row is until one was measured, in pixels.
const ROW: f64 = 28.0;

/// What is seen of the list, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// How far it is scrolled.
    top: f64,
    height: f64,
    /// The height of a row.
    pub(crate) row: f64,
}

impl Default for View {
    /// Of a window large enough for all that a page arrives with.
    fn default() -> Self {
        Self { top: 0.0, height: 100.0 * ROW, row: ROW }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
impl View {
    /// How many rows are above it, or begin there.
    pub(crate) fn rows_above(self) -> usize {
        (self.top / self.row) as usize
    }

    /// How many rows it shows, or parts of them.
    pub(crate) fn rows_in_view(self) -> usize {
        (self.height / self.row) as usize + 2
    }
}

/// What is seen by now; none if the page is gone.
pub(crate) fn measure(scroller: NodeRef<Div>) -> Option<View> {
    let scroller = scroller.try_get_untracked()??;
    let height = f64::from(scroller.client_height());
    let row = scroller.query_selector("li").ok().flatten();
    let row = row.map_or(ROW, |row| row.get_bounding_client_rect().height().max(1.0));
    Some(View { top: f64::from(scroller.scroll_top()), height, row })
}

/// Makes the list as high as if it had all its rows in it, and shows its end if that is followed. Says
/// how far it is scrolled then, in pixels.
pub(crate) fn lay_out(
    scroller: NodeRef<Div>,
    Frame { above, total, row, .. }: &Frame,
    is_at_end: bool,
) -> Option<i32> {
    let scroller = scroller.get_untracked()?;
    let style = scroller.first_element_child()?.dyn_into::<HtmlElement>().ok()?.style();
    // Whole pixels: to write fractions would add a tenth to what the page loads.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let pixels = |rows: &usize| format!("{}px", (*rows as f64 * row) as u64);
    // What a browser does not understand it leaves out.
    let _ = style.set_property("height", &pixels(total));
    let _ = style.set_property("padding-top", &pixels(above));
    if is_at_end {
        // As far as it goes.
        scroller.set_scroll_top(i32::MAX);
    }
    Some(scroller.scroll_top())
}

/// Whether the end is in view.
pub(crate) fn is_at_end(scroller: NodeRef<Div>) -> bool {
    scroller.get_untracked().is_none_or(|scroller| {
        // All of them are rounded.
        scroller.scroll_height() - scroller.client_height() - scroller.scroll_top() <= 2
    })
}

/// Whether it is scrolled less far than that, in pixels.
pub(crate) fn is_above(scroller: NodeRef<Div>, top: i32) -> bool {
    scroller.get_untracked().is_some_and(|scroller| scroller.scroll_top() < top - 2)
}

/// Whether there is more than is in view.
pub(crate) fn can_scroll(scroller: NodeRef<Div>) -> bool {
    let scroller = scroller.get_untracked();
    scroller.is_some_and(|scroller| scroller.scroll_height() > scroller.client_height())
}
