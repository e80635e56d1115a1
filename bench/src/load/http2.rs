//! HTTP/2 with prior knowledge (RFC 9113): the part that subscribers on one connection need.
//! Written by hand, so that the load generator spends little time on it. Numbers in brackets are
//! sections of the RFC.

/// Streams on one connection that every server should allow (6.5.2).
pub const MAX_STREAMS: usize = 100;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// The flag of a reply to SETTINGS and PING.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The largest flow-control window (6.9.1). No run fills it, so that no server has to wait.
const MAX_WINDOW: u32 = 0x7fff_ffff;
/// The initial window of a connection (6.9.2).
const INITIAL_WINDOW: u32 = 0xffff;

/// A frame from the server. Subscribers are numbered from 0 on each connection.
pub enum ReceivedFrame<'a> {
    /// The head of the response to a subscriber: status 200.
    Head(usize),
    /// A part of the response to a subscriber.
    Data(usize, &'a [u8]),
    /// SETTINGS or a PING; the client must send this reply.
    NeedsReply(Vec<u8>),
    Ignored,
}

/// Returns the connection preface (3.4): the first bytes that a client sends.
pub fn preface() -> Vec<u8> {
    // SETTINGS_INITIAL_WINDOW_SIZE (6.5.2) applies to each stream.
    let windows = [&[0, 4][..], &MAX_WINDOW.to_be_bytes()].concat();
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &windows),
        &frame(WINDOW_UPDATE, 0, 0, &(MAX_WINDOW - INITIAL_WINDOW).to_be_bytes()),
    ]
    .concat()
}

/// Returns the GET request of a subscriber.
pub fn get(number: usize, path: &str, is_tls: bool) -> Vec<u8> {
    // HPACK (RFC 7541): names and two values are indices of the static table (6.1, appendix A),
    // other values are literals (6.2.2).
    let value = |name: u8, text: &str| {
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        [&[name, length.expect("a short value")], text.as_bytes()].concat()
    };
    let (method_get, path_name, authority) = (0x82, 4, 1);
    let scheme = if is_tls { 0x87 } else { 0x86 };
    let fields = [vec![method_get, scheme], value(path_name, path), value(authority, "localhost")];
    // Streams that a client opens have odd numbers (5.1.1).
    let stream = u32::try_from(2 * number + 1).unwrap();
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields.concat())
}

/// Takes the first frame (4.1) from the received bytes. Returns `None` if it is not complete yet.
pub fn take_frame<'a>(received: &mut &'a [u8]) -> Option<ReceivedFrame<'a>> {
    let (head, after) = received.split_first_chunk::<9>()?;
    let [kind, flags] = [head[3], head[4]];
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let (payload, after) = after.split_at_checked(length)?;
    *received = after;
    let number = || {
        assert_eq!(flags & !END_HEADERS, 0, "an end of a stream, or padding");
        (u32::from_be_bytes([head[5], head[6], head[7], head[8]]) as usize - 1) / 2
    };
    Some(match kind {
        DATA => ReceivedFrame::Data(number(), payload),
        HEADERS => {
            // The index of ":status: 200" in the static table.
            assert_eq!(payload.first(), Some(&0x88), "a status other than 200");
            ReceivedFrame::Head(number())
        }
        SETTINGS if flags & ACK == 0 => ReceivedFrame::NeedsReply(frame(SETTINGS, ACK, 0, b"")),
        PING if flags & ACK == 0 => ReceivedFrame::NeedsReply(frame(PING, ACK, 0, payload)),
        SETTINGS | PING | WINDOW_UPDATE => ReceivedFrame::Ignored,
        _ => panic!("unexpected frame of type {kind}: {payload:?}"),
    })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
