//! Data and names as people can read them. Anything may be in an event: the colours and the
//! carriage returns of a terminal, or characters that change the order of those around them.

/// Returns a text for one line of the list. Control sequences (ECMA-48 5.4), such as colours, are
/// left out, and so is the beginning of one that is cut off; see [`visible`].
pub(crate) fn visible_line(text: &str) -> String {
    replace(text, false)
}

/// Returns a text in which each control character is written as `^` and a letter, as terminals do
/// (`^[` for ESC), and nothing is left out. A line feed and a tab stay, and so does a carriage
/// return before a line feed. Text may still be written from right to left, but it cannot be forced
/// to be.
pub(crate) fn visible(text: &str) -> String {
    replace(text, true)
}

fn replace(text: &str, has_sequences: bool) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, chars.peek()) {
            ('\r', Some('\n')) => {}
            ('\x1b', Some('[')) if !has_sequences => {
                chars.next();
                while chars.next_if(|char| (' '..='?').contains(char)).is_some() {}
                chars.next_if(|char| ('@'..='~').contains(char));
            }
            ('\n' | '\t', _) => replaced.push(char),
            ('\0'..='\x1f' | '\x7f', _) => {
                replaced.push('^');
                replaced.push(char::from(char as u8 ^ 0x40));
            }
            ('\u{2028}' | '\u{2029}', _) => replaced.push('\n'),
            // C1 controls, and the overrides of the order of all further characters.
            ('\u{80}'..='\u{9f}' | '\u{202d}' | '\u{202e}', _) => replaced.push('\u{fffd}'),
            _ => replaced.push(char),
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_letters_after_a_caret() {
        assert_eq!(visible("10%\r20%\r"), "10%^M20%^M");
        assert_eq!(visible("a\0b\x07c\x7f"), "a^@b^Gc^?");
        assert_eq!(visible("\x1b[31mred\x1b[0m"), "^[[31mred^[[0m");
        assert_eq!(visible("\u{85}\u{9b}31m"), "\u{fffd}\u{fffd}31m");
    }

    #[test]
    fn lines_and_tabs_stay() {
        assert_eq!(visible("one\r\ntwo\n\tthree"), "one\ntwo\n\tthree");
        assert_eq!(visible("one\u{2028}two\u{2029}three"), "one\ntwo\nthree");
    }

    #[test]
    fn a_line_of_the_list_has_no_colours() {
        assert_eq!(visible_line("\x1b[1;31mred\x1b[0m and \x1b[38:5:9mmore\x1b[K"), "red and more");
        assert_eq!(visible_line("\x1b[31"), "");
        assert_eq!(visible_line("\x1b[31\n\x1b]0;title\x07"), "\n^[]0;title^G");
        assert_eq!(visible_line("10%\r\x1b"), "10%^M^[");
    }

    #[test]
    fn the_order_of_characters_cannot_be_forced() {
        assert_eq!(visible("a\u{202e}gpj.exe\u{202d}"), "a\u{fffd}gpj.exe\u{fffd}");
    }

    #[test]
    fn other_text_stays() {
        let text = "Zürich 🌊 שלום عربي \u{200f}\u{2068}x\u{2069} 👩\u{200d}🚀 Z\u{36f}\u{36f}";
        assert_eq!(visible(text), text);
        assert_eq!(visible_line(text), text);
    }
}
