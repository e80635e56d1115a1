//! Text of others, as it may be shown.

use std::{borrow::Cow, fmt::Write as _};

/// Replaces characters that a terminal would obey by escapes such as `\n` or `\u{1b}`.
pub(super) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        if is_obeyed(char) && char != '\t' {
            visible.extend(char.escape_default());
        } else {
            visible.push(char);
        }
    }
    visible
}

/// Does the same in a JSON text, whose value stays the same.
pub(super) fn visible_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_obeyed) {
        return json.into();
    }
    let mut visible = String::with_capacity(json.len());
    for char in json.chars() {
        if is_obeyed(char) {
            // All of them are in the Basic Multilingual Plane.
            let _ = write!(visible, "\\u{:04x}", u32::from(char));
        } else {
            visible.push(char);
        }
    }
    visible.into()
}

/// Returns `true` for control characters, and for those that end a line or change the direction of
/// the text after them.
fn is_obeyed(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_event() {
        assert_eq!(visible("a\tü\u{1b}[2J\r\n\u{9b}"), "a\tü\\u{1b}[2J\\r\\n\\u{9b}");
        assert_eq!(visible("a\u{202e}b\u{2028}"), "a\\u{202e}b\\u{2028}");
        let json = "{\"data\":\"ü\u{7f}\u{9b}\u{2066}\"}";
        assert_eq!(visible_json(json), r#"{"data":"ü\u007f\u009b\u2066"}"#);
        assert_eq!(visible_json("{}"), "{}");
    }
}
