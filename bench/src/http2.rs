//! HTTP/2 with prior knowledge (RFC 9113), as far as subscribers need it that share a connection. By hand, so that
//! the load has time for nothing but what it has received.

/// How many subscribers share a connection: as many as every server should allow (6.5.2).
pub const STREAMS: usize = 100;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// The flag of an answer to settings and pings.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Windows as large as can be (6.9.1): no run fills them, so that nobody waits for room.
const WINDOW: u32 = 0x7fff_ffff;
/// A connection's is that large at first (6.9.2).
const FIRST_WINDOW: u32 = 0xffff;

/// What a subscriber, by its number on the connection, or the connection is to do.
pub enum Received<'a> {
    /// The answer has begun, with 200.
    Head(usize),
    Data(usize, &'a [u8]),
    /// This is to be sent.
    Question(Vec<u8>),
    Nothing,
}

/// What a connection begins with (3.4).
pub fn preface() -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE (6.5.2) is for each stream.
    let windows = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &windows),
        &frame(WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes()),
    ]
    .concat()
}

/// The request of the subscriber of that number.
pub fn get(number: usize, path: &str) -> Vec<u8> {
    // Names, and two values, from the static table; other values as they are (RFC 7541, 6.1, 6.2.2 and appendix A).
    let value = |name: u8, text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        [&[name, length.expect("a short one")], text.as_bytes()].concat()
    };
    let (method_get, scheme_http, path_name, authority) = (0x82, 0x86, 4, 1);
    let fields =
        [vec![method_get, scheme_http], value(path_name, path), value(authority, "localhost")];
    // A client's streams have odd numbers (5.1.1).
    let stream = u32::try_from(2 * number + 1).unwrap();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields.concat())
}

/// Takes the first frame off what was received (4.1), if it is complete.
pub fn take<'a>(received: &mut &'a [u8]) -> Option<Received<'a>> {
    let (head, after) = received.split_first_chunk::<9>()?;
    let [kind, flags] = [head[3], head[4]];
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (payload, after) = after.split_at_checked(length)?;
    *received = after;
    let number = || {
        assert_eq!(flags & !END_HEADERS, 0, "the end of a stream, or padding");
        (u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize - 1) / 2
    };
    Some(match kind {
        DATA => Received::Data(number(), payload),
        HEADERS => {
            // ":status: 200" of the static table.
            assert_eq!(payload.first(), Some(&0x88), "another answer than 200");
            Received::Head(number())
        }
        SETTINGS if flags & ACK == 0 => Received::Question(frame(SETTINGS, ACK, 0, b"")),
        PING if flags & ACK == 0 => Received::Question(frame(PING, ACK, 0, payload)),
        SETTINGS | PING | WINDOW_UPDATE => Received::Nothing,
        _ => panic!("a frame of type {kind}: {payload:?}"),
    })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
