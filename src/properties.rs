//! Properties that hold for any input bytes. Both proptest (`cargo test`) and the fuzz targets in
//! `fuzz/` (`make fuzz`) check them.

use std::{str::FromStr, time::Duration};

use crate::{
    event::{Event, MAX_LENGTH, Name, Topic},
    id::{CountedId, Cursor, Epoch, EventId},
    pattern::{MAX_STARS, MAX_TOKENS, Pattern},
    sse::{Block, Message, Parsed, Parser},
    timestamp::Timestamp,
};

/// Checks that the parser of streams follows the algorithm of the standard (WHATWG HTML 9.2.6),
/// however the stream is split.
///
/// Without the ids, its output must not be longer than the input, except for the replacement
/// characters of invalid bytes.
///
/// # Panics
///
/// If the property does not hold.
pub fn parsing_does_not_depend_on_chunks(bytes: &[u8]) {
    let mut draw = ByteSource(bytes);
    let sizes: Vec<_> = (0..draw.byte() % 16).map(|_| usize::from(draw.byte())).collect();
    let stream = draw.0;

    let whole = Parser::default().feed(stream);
    assert_eq!(whole, by_the_standard(stream), "by the standard");
    assert_eq!(parse_in_chunks(stream, &sizes), whole, "in chunks of {sizes:?}");
    assert_eq!(parse_in_chunks(stream, &[1]), whole, "byte by byte");

    let length = |parsed: &Parsed| match parsed {
        Parsed::Message(message) if message.name == "message" => message.data.len(),
        Parsed::Message(message) => message.name.len() + message.data.len(),
        Parsed::Retry(_) => 0,
    };
    let given: usize = whole.iter().map(length).sum();
    assert!(given <= 3 * stream.len(), "{given} of {}", stream.len());
}

/// Checks that encoded blocks and events are parsed back unchanged, however the stream is split.
///
/// # Panics
///
/// If the property does not hold.
pub fn encoding_round_trips(bytes: &[u8]) {
    let mut draw = ByteSource(bytes);
    let sizes = [usize::from(draw.byte()), 1 + usize::from(draw.byte())];
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    let mut last_event_id = String::new();
    for _ in 0..draw.byte() % 8 {
        let (id, name) = (draw.maybe(ByteSource::text), draw.maybe(ByteSource::text));
        let (retry, data) = (draw.maybe(ByteSource::number), draw.text());
        let block = Block {
            id: id.as_deref(),
            name: name.as_deref(),
            retry: retry.map(Duration::from_millis),
            data: Some(&data),
        };
        let breaks_out =
            |text: &Option<String>| text.as_ref().is_some_and(|t| t.contains(['\r', '\n', '\0']));
        let before = stream.len();
        let is_encoded = block.encode(&mut stream).is_ok();
        assert_eq!(is_encoded, !breaks_out(&id) && !breaks_out(&name), "{block:?}");
        if !is_encoded {
            assert_eq!(stream.len(), before, "nothing is written of {block:?}");
            continue;
        }
        expected.extend(retry.map(|retry| Parsed::Retry(Duration::from_millis(retry))));
        last_event_id = id.unwrap_or(last_event_id);
        let name = name.filter(|name| !name.is_empty()).unwrap_or("message".to_owned());
        // The wire format does not preserve the kind of a line ending.
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        expected.push(Parsed::Message(Message {
            name,
            data,
            last_event_id: last_event_id.clone(),
        }));
    }
    assert_eq!(parse_in_chunks(&stream, &sizes), expected);

    let Some(event) = draw.event() else { return };
    let json = event.to_json();
    let mut stream = Vec::new();
    let block = Block { data: Some(&json), ..Block::default() };
    assert_eq!(block.encode(&mut stream), Ok(()));
    let parsed = parse_in_chunks(&stream, &sizes);
    let [Parsed::Message(Message { data, .. })] = &parsed[..] else { panic!("{parsed:?}") };
    assert_eq!(serde_json::from_str::<Event>(data).ok(), Some(event));
}

/// Checks that an id has only one spelling, and that any other text becomes a malformed cursor
/// unchanged.
///
/// # Panics
///
/// If the property does not hold.
pub fn ids_have_one_spelling(bytes: &[u8]) {
    let mut draw = ByteSource(bytes);
    let id = EventId { epoch: Epoch::new(draw.number()), sequence: draw.number() };
    let counted = CountedId { id, sent: draw.number() };
    let (short, long) = (id.to_string(), counted.to_string());
    assert_eq!(short.parse().ok(), Some(id));
    assert_eq!(long.parse().ok(), Some(counted));
    assert_eq!(short.parse::<CountedId>().ok(), None);
    assert_eq!(long.parse::<EventId>().ok(), None);

    let any = String::from_utf8_lossy(draw.0).into_owned();
    // A text that differs from an id in one byte.
    let mut near = long.clone().into_bytes();
    if let (Some(&at), Some(&byte)) = (draw.0.first(), draw.0.get(1)) {
        let at = usize::from(at) % near.len();
        near[at] = byte;
    }
    for text in [short, long, any, String::from_utf8_lossy(&near).into_owned()] {
        let expected = match (&*text, counted_id_of(&text)) {
            ("", _) => Cursor::Now,
            ("earliest", _) => Cursor::Earliest,
            (_, Some((id, _))) => Cursor::After(id),
            (text, None) => Cursor::Malformed(text.to_owned()),
        };
        assert_eq!(Cursor::parse(Some(&text)), expected);
    }
}

/// Checks patterns against a naive implementation of the rules, and that `covers` is consistent
/// with `matches`.
///
/// # Panics
///
/// If the property does not hold.
pub fn patterns_match_by_token(bytes: &[u8]) {
    let mut draw = ByteSource(bytes);
    // Both arbitrary text, and text of so few characters that some patterns are valid and match.
    let any = [draw.text(), draw.text(), String::from_utf8_lossy(draw.0).into_owned()];
    let few = any.clone().map(|text| {
        let characters = text.bytes().map(|byte| char::from(b"aab.*>.."[usize::from(byte % 8)]));
        characters.collect::<String>().replace("..", ".")
    });
    for [one, other, topic] in [any, few] {
        for text in [&one, &other, &topic] {
            assert_eq!(text.parse::<Pattern>().is_ok(), is_pattern(text), "{text:?}");
            let is_topic = is_pattern(text) && !text.contains(['*', '>']);
            assert_eq!(text.parse::<Topic>().is_ok(), is_topic, "{text:?}");
        }
        let topic = topic.replace(['*', '>'], "a");
        let (Ok(one), Ok(topic)) = (one.parse::<Pattern>(), topic.parse::<Topic>()) else {
            continue;
        };
        let (wanted, tokens) = (one.to_string(), topic.to_string());
        let (wanted, tokens): (Vec<_>, Vec<_>) =
            (wanted.split('.').collect(), tokens.split('.').collect());
        assert_eq!(one.matches(&topic), tokens_match(&wanted, &tokens), "{one} {topic}");
        assert!(one.covers(&one), "{one} does not cover itself");
        assert_eq!(one.covers(&topic.clone().into()), one.matches(&topic), "{one} {topic}");
        if let Ok(other) = Pattern::from_str(&other)
            && one.covers(&other)
            && other.matches(&topic)
        {
            assert!(one.matches(&topic), "{one} covers {other}, which matches {topic}");
        }
    }
}

/// A source of values that are drawn from bytes. At the end of the bytes it yields zeros and empty
/// texts.
struct ByteSource<'a>(&'a [u8]);

impl ByteSource<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u64 {
        // Small numbers are more likely.
        let bytes = self.byte() % 9;
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.byte()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn maybe<T>(&mut self, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.byte().is_multiple_of(4)).then(|| draw(self))
    }

    /// Draws an event. Returns `None` if the topic or the name is invalid.
    fn event(&mut self) -> Option<Event> {
        let topic = self.text();
        let topic = if topic.is_empty() { Topic::clock() } else { topic.parse().ok()? };
        Some(Event {
            id: EventId { epoch: Epoch::new(self.number()), sequence: self.number() },
            topic,
            name: self.text().parse::<Name>().ok()?,
            data: self.text(),
            time: Timestamp::from_millis(self.number()),
        })
    }
}

/// Parses the stream in chunks, cycling through `sizes`.
fn parse_in_chunks(stream: &[u8], sizes: &[usize]) -> Vec<Parsed> {
    let mut parser = Parser::default();
    let (mut parsed, mut rest) = (Vec::new(), stream);
    // If all sizes were 0, the loop would not end.
    if sizes.iter().any(|&size| size > 0) {
        for &size in sizes.iter().cycle() {
            let (piece, after) = rest.split_at(size.min(rest.len()));
            parsed.extend(parser.feed(piece));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    parsed.extend(parser.feed(rest));
    parsed
}

/// Parses the whole stream, following the standard step by step.
fn by_the_standard(stream: &[u8]) -> Vec<Parsed> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<_> = text.split('\n').collect();
    // An incomplete last line is discarded.
    lines.pop();
    let (mut parsed, mut data, mut name) = (Vec::new(), String::new(), String::new());
    let (mut id, mut last_event_id) = (String::new(), String::new());
    for line in lines {
        if line.is_empty() {
            last_event_id.clone_from(&id);
            if !data.is_empty() {
                data.pop();
                let name = if name.is_empty() { "message".to_owned() } else { name };
                let last_event_id = last_event_id.clone();
                parsed.push(Parsed::Message(Message { name, data, last_event_id }));
            }
            (data, name) = (String::new(), String::new());
            continue;
        }
        let (field, value) = match line.find(':') {
            Some(0) => continue,
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, ""),
        };
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => data = data + value + "\n",
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            "retry" if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) => {
                let digits = value.chars().filter_map(|digit| digit.to_digit(10));
                let millis = digits
                    .fold(0_u64, |n, digit| n.saturating_mul(10).saturating_add(digit.into()));
                parsed.push(Parsed::Retry(Duration::from_millis(millis)));
            }
            _ => {}
        }
    }
    parsed
}

/// Parses an id as documented, with its count if it has one.
fn counted_id_of(text: &str) -> Option<(EventId, Option<u64>)> {
    let number = |text: &str| {
        let is_one = text == "0" || !text.starts_with('0');
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (is_one && digits).then(|| text.parse::<u64>().ok())?
    };
    let (epoch, rest) = (text.get(..16)?, text.get(16..)?.strip_prefix('-')?);
    if !epoch.bytes().all(|byte| b"0123456789abcdef".contains(&byte)) {
        return None;
    }
    let epoch = Epoch::new(u64::from_str_radix(epoch, 16).ok()?);
    let (sequence, sent) = match rest.split_once('.') {
        Some((sequence, sent)) => (sequence, Some(number(sent)?)),
        None => (rest, None),
    };
    Some((EventId { epoch, sequence: number(sequence)? }, sent))
}

fn is_pattern(text: &str) -> bool {
    let tokens: Vec<_> = text.split('.').collect();
    let is_plain = |token: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        !token.is_empty() && token.chars().all(is_allowed)
    };
    let is_token = |(n, token): (usize, &&str)| {
        is_plain(token) || *token == "*" || *token == ">" && n == tokens.len() - 1
    };
    let stars = tokens.iter().filter(|token| **token == "*").count();
    let has_wildcard = stars > 0 || tokens.last() == Some(&">");
    let is_narrow = !has_wildcard || tokens.len() <= MAX_TOKENS && stars <= MAX_STARS;
    text.len() <= MAX_LENGTH && is_narrow && tokens.iter().enumerate().all(is_token)
}

/// Returns `true` if the tokens of a pattern match those of a topic.
fn tokens_match(wanted: &[&str], tokens: &[&str]) -> bool {
    match (wanted, tokens) {
        ([], []) | ([">"], [_, ..]) => true,
        (["*", wanted @ ..], [_, tokens @ ..]) => tokens_match(wanted, tokens),
        ([first, wanted @ ..], [token, tokens @ ..]) => {
            first == token && tokens_match(wanted, tokens)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Generates bytes that are rich in the syntax of the wire format, ids and patterns.
    fn tricky() -> impl Strategy<Value = Vec<u8>> {
        let meaningful = proptest::sample::select(
            &[
                "\r",
                "\n",
                "\r\n",
                "\n\n",
                ":",
                " ",
                "data",
                "data:",
                "event: ",
                "id: 1",
                "id:\0",
                "retry: 9",
                "\u{feff}",
                "\0",
                "earliest",
                "00000000c10cca11",
                "-1",
                ".2",
                "a",
                "a.b",
                "*",
                ">",
                ".",
            ][..],
        );
        let piece = prop_oneof![
            3 => meaningful.prop_map(|text| text.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..9),
            1 => (0..9_u8).prop_map(|byte| vec![byte]),
        ];
        vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_stream_is_parsed_by_the_standard(bytes in tricky()) {
            parsing_does_not_depend_on_chunks(&bytes);
        }

        #[test]
        fn any_block_is_parsed_back(bytes in tricky()) {
            encoding_round_trips(&bytes);
        }

        #[test]
        fn any_id_has_one_spelling(bytes in tricky()) {
            ids_have_one_spelling(&bytes);
        }

        #[test]
        fn any_pattern_matches_by_token(bytes in tricky()) {
            patterns_match_by_token(&bytes);
        }
    }
}
