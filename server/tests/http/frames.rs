//! HTTP/2 frames (RFC 9113), encoded by hand for clients that violate the protocol.

/// The beginning of a connection: the preface, and settings that change nothing.
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, b"")[..]].concat()
}

pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Encodes a frame (4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes a setting (6.5.1).
pub fn setting(name: u16, value: u32) -> Vec<u8> {
    [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// Encodes a complete request without a body.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &head("GET", path))
}

/// Encodes the head of a local request (RFC 7541).
pub fn head(method: &str, path: &str) -> Vec<u8> {
    [
        field(":method", method),
        field(":scheme", "http"),
        field(":authority", "localhost"),
        field(":path", path),
    ]
    .concat()
}

/// Encodes a field literally: without an index, and without Huffman coding (RFC 7541, 6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [&[0][..], &string(name), &string(value)].concat()
}

/// Encodes a string after its length, which takes as few bytes as possible (RFC 7541, 5.1, 5.2).
pub fn string(text: &str) -> Vec<u8> {
    let byte = |number: usize| u8::try_from(number).unwrap();
    let mut bytes = Vec::new();
    match text.len().checked_sub(0x7f) {
        None => bytes.push(byte(text.len())),
        Some(mut rest) => {
            bytes.push(0x7f);
            while rest >= 0x80 {
                bytes.push(byte(rest % 0x80) | 0x80);
                rest /= 0x80;
            }
            bytes.push(byte(rest));
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}
