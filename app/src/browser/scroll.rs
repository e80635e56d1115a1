//! The element that scrolls, and the list in it. Only the rows in view are in the document.

use leptos::{html::Div, prelude::*};
use wasm_bindgen::JsCast as _;
use web_sys::{HtmlDivElement, HtmlElement};

use super::page::matches_media;

/// Height of a row until one has been measured, in pixels.
const ROW_HEIGHT: f64 = 28.0;

/// The position and the size of the visible part of the list, in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScrollPosition {
    /// Distance from the top of the list.
    top: f64,
    height: f64,
    /// Distance of the last part of the list from its top.
    end: f64,
    pub(crate) row_height: f64,
}

impl Default for ScrollPosition {
    /// Returns a size that is large enough for all events that the server renders into a page.
    fn default() -> Self {
        Self { top: 0.0, height: 100.0 * ROW_HEIGHT, end: 0.0, row_height: ROW_HEIGHT }
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

    /// Returns `true` if the end of the list is in view.
    pub(crate) fn is_at_end(self) -> bool {
        // All three numbers are rounded.
        self.end - self.top <= 2.0
    }

    /// Returns `true` if the list is scrolled above a position, in pixels.
    pub(crate) fn is_above(self, top: i32) -> bool {
        self.top < f64::from(top) - 2.0
    }

    /// Returns `true` if the list is scrolled to a position, in pixels.
    pub(crate) fn is_at(self, top: i32) -> bool {
        (self.top - f64::from(top)).abs() < 1.0
    }

    /// Returns `true` if the list is higher than its visible part.
    pub(crate) fn can_scroll(self) -> bool {
        self.end > 0.0
    }

    /// Moves down by a number of rows. Returns the distance from the top of the list.
    pub(crate) fn move_down(&mut self, rows: usize) -> i32 {
        self.top += self.height_of(rows);
        self.top as i32
    }

    /// Moves as little as needed to show the row below `above` others. Returns the distance from
    /// the top of the list.
    pub(crate) fn reveal(&mut self, above: usize) -> i32 {
        let lowest = (self.height_of(above + 1) - self.height).ceil();
        self.top = self.top.max(lowest).min(self.height_of(above));
        self.top as i32
    }

    /// Returns `true` if the visible part has room for a number of rows.
    pub(crate) fn has_room(self, rows: usize) -> bool {
        self.height_of(rows) <= self.height
    }

    #[expect(clippy::cast_precision_loss, reason = "as many rows do not fit into memory")]
    fn height_of(self, rows: usize) -> f64 {
        rows as f64 * self.row_height
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
    /// Scroll position, in pixels, unless it stays as it is. `i32::MAX` is the end.
    pub(crate) top: Option<i32>,
}

/// Measures the visible part. Returns `None` if the page is gone.
pub(crate) fn measure(scroller: NodeRef<Div>) -> Option<ScrollPosition> {
    let scroller = scroller.try_get_untracked()??;
    // `clientHeight` is rounded, and a row at the edge would be cut off by half a pixel.
    let height = scroller.get_bounding_client_rect().height().floor();
    let row = scroller.query_selector(".rows > *").ok().flatten();
    let row_height = row.map_or(ROW_HEIGHT, |row| row.get_bounding_client_rect().height().max(1.0));
    let end = f64::from(scroller.scroll_height()) - height;
    Some(ScrollPosition { top: f64::from(scroller.scroll_top()), height, end, row_height })
}

/// Makes the list as high as if all its rows were in the document, and scrolls it. Returns the
/// scroll position, in pixels.
pub(crate) fn lay_out(scroller: NodeRef<Div>, layout: Layout) -> Option<i32> {
    let scroller = scroller.get_untracked()?;
    let list = scroller.query_selector(".rows").ok()??;
    let style = list.dyn_into::<HtmlElement>().ok()?.style();
    // Whole pixels: the code that writes fractions would add a tenth to the size of the page.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let pixels = |rows: usize| format!("{}px", (rows as f64 * layout.row_height) as u64);
    // A browser ignores properties that it does not know.
    let _ = style.set_property("height", &pixels(layout.total));
    let _ = style.set_property("padding-top", &pixels(layout.above));
    if let Some(top) = layout.top {
        // The browser limits this to the end of the list.
        scroller.set_scroll_top(top);
    }
    Some(scroller.scroll_top())
}

/// Scrolls the list by a distance, in pixels.
pub(crate) fn scroll_by(scroller: NodeRef<Div>, distance: f64) {
    if let Some(scroller) = scroller.get_untracked() {
        scroller.scroll_by_with_x_and_y(0.0, distance);
    }
}

/// Returns `true` if the reader points at a row, or a row has the focus.
pub(crate) fn is_pointed_at(scroller: NodeRef<Div>) -> bool {
    // On a touch screen, a row counts as pointed at until something else is touched.
    let has_pointer = matches_media("(hover: hover)");
    let rows = if has_pointer { ".rows:hover, .rows:focus-within" } else { ".rows:focus-within" };
    let found = |scroller: HtmlDivElement| scroller.query_selector(rows).ok().flatten();
    scroller.get_untracked().and_then(found).is_some()
}
