//! The element that scrolls, and the list in it. Only the rows in view are in the document.

use leptos::{html::Div, prelude::*};
use wasm_bindgen::JsCast as _;
use web_sys::{HtmlDivElement, HtmlElement};

/// Height of a row until one has been measured, in pixels.
const ROW_HEIGHT: f64 = 28.0;

/// The position and the size of the visible part of the list, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScrollPosition {
    /// Distance from the top of the list.
    top: f64,
    height: f64,
    pub(crate) row_height: f64,
}

impl Default for ScrollPosition {
    /// Returns a size that is large enough for all events that the server renders into a page.
    fn default() -> Self {
        Self { top: 0.0, height: 100.0 * ROW_HEIGHT, row_height: ROW_HEIGHT }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
impl ScrollPosition {
    /// Returns the number of rows above the visible part, including one that is cut off by its
    /// edge.
    pub(crate) fn rows_above(self) -> usize {
        (self.top / self.row_height) as usize
    }

    /// Returns the number of rows in the visible part, including those that are cut off by its
    /// edges.
    pub(crate) fn rows_in_view(self) -> usize {
        (self.height / self.row_height) as usize + 2
    }
}

/// The size of the list, and the position of the rows that are in the document.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layout {
    /// Number of rows above those in the document.
    pub(crate) above: usize,
    /// Number of all rows.
    pub(crate) total: usize,
    /// Height of a row, in pixels.
    pub(crate) row_height: f64,
}

/// Measures the visible part. Returns `None` if the page is gone.
pub(crate) fn measure(scroller: NodeRef<Div>) -> Option<ScrollPosition> {
    let scroller = scroller.try_get_untracked()??;
    let height = f64::from(scroller.client_height());
    let row = scroller.query_selector(".rows > *").ok().flatten();
    let row_height = row.map_or(ROW_HEIGHT, |row| row.get_bounding_client_rect().height().max(1.0));
    Some(ScrollPosition { top: f64::from(scroller.scroll_top()), height, row_height })
}

/// Makes the list as high as if all its rows were in the document, and scrolls to its end if that
/// is followed. Returns the scroll position, in pixels.
pub(crate) fn lay_out(scroller: NodeRef<Div>, layout: Layout, is_at_end: bool) -> Option<i32> {
    let scroller = scroller.get_untracked()?;
    let list = scroller.query_selector(".rows").ok()??;
    let style = list.dyn_into::<HtmlElement>().ok()?.style();
    // Whole pixels: the code that writes fractions would add a tenth to the size of the page.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let pixels = |rows: usize| format!("{}px", (rows as f64 * layout.row_height) as u64);
    // A browser ignores properties that it does not know.
    let _ = style.set_property("height", &pixels(layout.total));
    let _ = style.set_property("padding-top", &pixels(layout.above));
    if is_at_end {
        // The browser limits this to the end of the list.
        scroller.set_scroll_top(i32::MAX);
    }
    Some(scroller.scroll_top())
}

/// Returns `true` if the end of the list is in view.
pub(crate) fn is_at_end(scroller: NodeRef<Div>) -> bool {
    scroller.get_untracked().is_none_or(|scroller| {
        // All three are rounded.
        scroller.scroll_height() - scroller.client_height() - scroller.scroll_top() <= 2
    })
}

/// Returns `true` if the list is scrolled above a position, in pixels.
pub(crate) fn is_above(scroller: NodeRef<Div>, top: i32) -> bool {
    scroller.get_untracked().is_some_and(|scroller| scroller.scroll_top() < top - 2)
}

/// Returns `true` if the reader points at a row, or a row has the focus.
pub(crate) fn is_pointed_at(scroller: NodeRef<Div>) -> bool {
    let rows = ".rows:hover, .rows:focus-within";
    let found = |scroller: HtmlDivElement| scroller.query_selector(rows).ok().flatten();
    scroller.get_untracked().and_then(found).is_some()
}

/// Returns `true` if the list is higher than its visible part.
pub(crate) fn can_scroll(scroller: NodeRef<Div>) -> bool {
    let scroller = scroller.get_untracked();
    scroller.is_some_and(|scroller| scroller.scroll_height() > scroller.client_height())
}
