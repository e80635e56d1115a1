//! What is true of any bytes whatever, in one place: proptest calls these functions with what it makes up
//! (`cargo test`), and so do the fuzz targets in `fuzz/`, which look for bytes that take new ways through the
//! code (`make fuzz`).

use std::{str::FromStr, time::Duration};

use crate::{
    event::{Event, MAX_LENGTH, Name, Topic},
    id::{CountedId, Cursor, Epoch, EventId},
    pattern::Pattern,
    sse::{Block, Message, Parsed, Parser},
    timestamp::Timestamp,
};

/// A stream's parser reads the same in any pieces, and what the standard's own words say (WHATWG HTML, 9.2.6);
/// without the ids, what it gives is no longer than what it was fed, but for characters that stand for a byte
/// that is none.
///
/// # Panics
///
/// If that is not so.
pub fn a_stream_is_the_same_in_any_pieces(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let sizes: Vec<_> = (0..draw.byte() % 16).map(|_| usize::from(draw.byte())).collect();
    let stream = draw.0;

    let whole = Parser::default().feed(stream);
    assert_eq!(whole, by_the_standard(stream), "as the standard has it");
    assert_eq!(fed_in_pieces(stream, &sizes), whole, "in pieces of {sizes:?}");
    assert_eq!(fed_in_pieces(stream, &[1]), whole, "byte by byte");

    let length = |parsed: &Parsed| match parsed {
        Parsed::Message(message) if message.name == "message" => message.data.len(),
        Parsed::Message(message) => message.name.len() + message.data.len(),
        Parsed::Retry(_) => 0,
    };
    let given: usize = whole.iter().map(length).sum();
    assert!(given <= 3 * stream.len(), "{given} of {}", stream.len());
}

/// What is encoded is read back, in any pieces: blocks as they are, and events as JSON.
///
/// # Panics
///
/// If it is not.
pub fn what_is_encoded_is_read_back(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let sizes = [usize::from(draw.byte()), 1 + usize::from(draw.byte())];
    let (mut stream, mut expected) = (Vec::new(), Vec::new());
    let mut last_event_id = String::new();
    for _ in 0..draw.byte() % 8 {
        let (id, name) = (draw.maybe(Draw::text), draw.maybe(Draw::text));
        let (retry, data) = (draw.maybe(Draw::number), draw.text());
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
        // All that the wire format can tell of a line's end is that it is one.
        let data = data.replace("\r\n", "\n").replace('\r', "\n");
        expected.push(Parsed::Message(Message {
            name,
            data,
            last_event_id: last_event_id.clone(),
        }));
    }
    assert_eq!(fed_in_pieces(&stream, &sizes), expected);

    let Some(event) = draw.event() else { return };
    let Ok(json) = serde_json::to_string(&event) else { panic!("no JSON of {event:?}") };
    let mut stream = Vec::new();
    let block = Block { data: Some(&json), ..Block::default() };
    assert_eq!(block.encode(&mut stream), Ok(()));
    let parsed = fed_in_pieces(&stream, &sizes);
    let [Parsed::Message(Message { data, .. })] = &parsed[..] else { panic!("{parsed:?}") };
    assert_eq!(serde_json::from_str::<Event>(data).ok(), Some(event));
}

/// An id has one spelling; any text is some cursor, and one that is no id is kept as it is.
///
/// # Panics
///
/// If that is not so.
pub fn an_id_has_one_spelling(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    let id = EventId { epoch: Epoch::new(draw.number()), sequence: draw.number() };
    let counted = CountedId { id, sent: draw.number() };
    let (short, long) = (id.to_string(), counted.to_string());
    assert_eq!(short.parse().ok(), Some(id));
    assert_eq!(long.parse().ok(), Some(counted));
    assert_eq!(short.parse::<CountedId>().ok(), None);
    assert_eq!(long.parse::<EventId>().ok(), None);

    let any = String::from_utf8_lossy(draw.0).into_owned();
    // One that is nearly an id.
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

/// A pattern matches what a naive reader of the rules says it does, and what one covers that it covers, too.
///
/// # Panics
///
/// If that is not so.
pub fn a_pattern_matches_what_its_tokens_say(bytes: &[u8]) {
    let mut draw = Draw(bytes);
    // As it is, and of so few characters that some are patterns, and some match.
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
        assert_eq!(one.matches(&topic), means(&wanted, &tokens), "{one} {topic}");
        assert!(one.covers(&one), "{one} itself");
        assert_eq!(one.covers(&topic.clone().into()), one.matches(&topic), "{one} {topic}");
        if let Ok(other) = Pattern::from_str(&other)
            && one.covers(&other)
            && other.matches(&topic)
        {
            assert!(one.matches(&topic), "{one} covers {other}, which matches {topic}");
        }
    }
}

/// Bytes from which values are drawn: zeros and empty texts once there are none left.
struct Draw<'a>(&'a [u8]);

impl Draw<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u64 {
        // Mostly a small one.
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

    /// None if what is drawn is no topic or no name.
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

/// Fed in pieces of those sizes, one after the other, again and again.
fn fed_in_pieces(stream: &[u8], sizes: &[usize]) -> Vec<Parsed> {
    let mut parser = Parser::default();
    let (mut parsed, mut rest) = (Vec::new(), stream);
    // All of size 0 would be without end.
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

/// The standard's algorithm, step by step, on a stream as a whole.
fn by_the_standard(stream: &[u8]) -> Vec<Parsed> {
    let text = String::from_utf8_lossy(stream);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<_> = text.split('\n').collect();
    // What the end of the stream cuts short is dropped.
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

/// An id as its documentation spells it, and how much it counts, if it does.
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
    text.len() <= MAX_LENGTH && tokens.iter().enumerate().all(is_token)
}

/// Whether tokens of a pattern mean those of a topic.
fn means(wanted: &[&str], tokens: &[&str]) -> bool {
    match (wanted, tokens) {
        ([], []) | ([">"], [_, ..]) => true,
        (["*", wanted @ ..], [_, tokens @ ..]) => means(wanted, tokens),
        ([first, wanted @ ..], [token, tokens @ ..]) => first == token && means(wanted, tokens),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Bytes that are rich in what the wire format, ids and patterns give a meaning to.
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
        fn streams(bytes in tricky()) {
            a_stream_is_the_same_in_any_pieces(&bytes);
        }

        #[test]
        fn encoded(bytes in tricky()) {
            what_is_encoded_is_read_back(&bytes);
        }

        #[test]
        fn ids(bytes in tricky()) {
            an_id_has_one_spelling(&bytes);
        }

        #[test]
        fn patterns(bytes in tricky()) {
            a_pattern_matches_what_its_tokens_say(&bytes);
        }
    }
}
