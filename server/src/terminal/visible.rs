//! Text of others, as it may be shown.

/// Replaces control characters, which a terminal would obey, by escapes such as `\n` or `\u{1b}`.
pub(super) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() && char != '\t' {
            visible.extend(char.escape_default());
        } else {
            visible.push(char);
        }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_event() {
        assert_eq!(visible("a\tü\u{1b}[2J\r\n\u{9b}"), "a\tü\\u{1b}[2J\\r\\n\\u{9b}");
    }
}
