//! Texts with parts in backticks.

use leptos::prelude::*;

/// Returns a text without the marks of its code, for an element that has only text.
pub(crate) fn without_code(text: &str) -> String {
    text.replace('`', "")
}

/// Renders the parts in backticks as code.
pub(crate) fn with_code(text: &str) -> impl IntoView + use<> {
    let pieces = text.split('`').map(str::to_owned).enumerate();
    pieces
        .map(
            |(i, piece)| {
                if i % 2 == 1 {
                    view! { <code>{piece}</code> }.into_any()
                } else {
                    piece.into_any()
                }
            },
        )
        .collect_view()
}
