//! HTTP/1.1 responses (RFC 9112), as far as the load generator needs them.

use memchr::memmem;

/// The head of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Its size in bytes, with the empty line.
    pub size: usize,
    pub status: u16,
    /// `true` if the body is in chunks (7.1).
    pub is_chunked: bool,
    /// The size of the body in bytes, if it is known.
    pub length: Option<usize>,
    /// `true` if the connection ends after the response.
    pub is_last: bool,
}

impl ResponseHead {
    /// Parses the head of a response. Returns `None` if it is not complete yet.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let size = memmem::find(bytes, b"\r\n\r\n")? + 4;
        let text = String::from_utf8_lossy(&bytes[..size]).to_ascii_lowercase();
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
        let value = |name: &str| field(name).unwrap_or_default().trim();
        let status = text.split(' ').nth(1).and_then(|word| word.trim().parse().ok());
        Some(Self {
            size,
            status: status.unwrap_or_default(),
            is_chunked: value("transfer-encoding").ends_with("chunked"),
            length: value("content-length").parse().ok(),
            is_last: value("connection") == "close",
        })
    }
}

/// Decodes a body in chunks (7.1).
#[derive(Debug, Default)]
pub struct ChunkDecoder {
    state: ChunkState,
    /// The number of chunks so far, without the last, empty one.
    pub chunks: usize,
}

#[derive(Debug)]
enum ChunkState {
    /// In the line with the size of the next chunk. Holds the bytes of the line so far.
    Size(Vec<u8>),
    /// In a chunk. Holds the number of bytes to come.
    Data(usize),
    /// In the line end after a chunk. Holds the number of bytes to come.
    LineEnd(usize),
    /// In the fields after the last chunk, which end with an empty line. Holds the bytes of the
    /// current line so far.
    Trailer(Vec<u8>),
    Ended,
}

impl Default for ChunkState {
    fn default() -> Self {
        Self::Size(Vec::new())
    }
}

impl ChunkDecoder {
    /// Takes the next part of the body from the received bytes. Returns `None` if there is no
    /// further one.
    pub fn next<'a>(&mut self, received: &mut &'a [u8]) -> Option<&'a [u8]> {
        while !received.is_empty() {
            match &mut self.state {
                ChunkState::Size(line) => {
                    if !take_line(received, line) {
                        return None;
                    }
                    let size = chunk_size(line);
                    self.chunks += usize::from(size > 0);
                    self.state = match size {
                        0 => ChunkState::Trailer(Vec::new()),
                        _ => ChunkState::Data(size),
                    };
                }
                ChunkState::Data(missing) => {
                    let (data, rest) = received.split_at(received.len().min(*missing));
                    *received = rest;
                    *missing -= data.len();
                    if *missing == 0 {
                        self.state = ChunkState::LineEnd(2);
                    }
                    return Some(data);
                }
                ChunkState::LineEnd(missing) => {
                    let taken = received.len().min(*missing);
                    *received = &received[taken..];
                    *missing -= taken;
                    if *missing == 0 {
                        self.state = ChunkState::default();
                    }
                }
                ChunkState::Trailer(line) => {
                    if !take_line(received, line) {
                        return None;
                    }
                    let is_end = line.iter().all(|byte| *byte == b'\r' || *byte == b'\n');
                    self.state =
                        if is_end { ChunkState::Ended } else { ChunkState::Trailer(Vec::new()) };
                }
                ChunkState::Ended => return None,
            }
        }
        None
    }

    /// Returns `true` if the last chunk has arrived.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, ChunkState::Ended)
    }
}

/// Moves bytes up to the end of a line. Returns `true` if the line is complete.
fn take_line(received: &mut &[u8], line: &mut Vec<u8>) -> bool {
    let end = memchr::memchr(b'\n', received).map(|at| at + 1);
    let (taken, rest) = received.split_at(end.unwrap_or(received.len()));
    line.extend(taken);
    *received = rest;
    end.is_some()
}

/// Parses the line before a chunk: its size in hexadecimal digits, and perhaps extensions.
fn chunk_size(line: &[u8]) -> usize {
    let text = std::str::from_utf8(line).expect("a size of a chunk");
    let digits = text.split(';').next().unwrap_or_default().trim();
    usize::from_str_radix(digits, 16).expect("a size of a chunk")
}

/// Receives responses on one connection, one after the other.
#[derive(Debug, Default)]
pub struct ResponseReader {
    /// The beginning of a head that is not complete yet.
    received: Vec<u8>,
    head: Option<ResponseHead>,
    chunks: ChunkDecoder,
    body: Vec<u8>,
}

/// A complete response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// `true` if the connection ends after it.
    pub is_last: bool,
}

impl ResponseReader {
    /// Adds received bytes. Returns the response if it is complete. The bytes must not belong to
    /// more than one response.
    pub fn received(&mut self, bytes: &[u8]) -> Option<Response> {
        let joined;
        let mut bytes = bytes;
        if self.head.is_none() {
            self.received.extend(bytes);
            let head = ResponseHead::parse(&self.received)?;
            joined = std::mem::take(&mut self.received);
            bytes = &joined[head.size..];
            self.head = Some(head);
        }
        let head = self.head.as_ref()?;
        let is_complete = if head.is_chunked {
            while let Some(part) = self.chunks.next(&mut bytes) {
                self.body.extend(part);
            }
            self.chunks.has_ended()
        } else {
            self.body.extend(bytes);
            self.body.len() >= head.length.unwrap_or_default()
        };
        if !is_complete {
            return None;
        }
        let Self { head, body, .. } = std::mem::take(self);
        head.map(|head| Response { status: head.status, body, is_last: head.is_last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: &[u8], size: usize) -> (String, ChunkDecoder) {
        let (mut decoder, mut body) = (ChunkDecoder::default(), Vec::new());
        for mut part in bytes.chunks(size) {
            while let Some(data) = decoder.next(&mut part) {
                body.extend(data);
            }
        }
        (String::from_utf8(body).unwrap(), decoder)
    }

    #[test]
    fn chunks_are_joined_wherever_the_bytes_are_split() {
        let bytes = b"5\r\nhello\r\nA;x=1\r\n, world\r\n.\r\n0\r\nField: 1\r\n\r\n";
        for size in 1..=bytes.len() {
            let (text, decoder) = body(bytes, size);
            assert_eq!(text, "hello, world\r\n.");
            assert_eq!(decoder.chunks, 2);
            assert!(decoder.has_ended());
        }
    }

    #[test]
    fn a_body_whose_last_chunk_is_missing_has_not_ended() {
        let (text, decoder) = body(b"5\r\nhello\r\n0\r\n", 3);
        assert_eq!(text, "hello");
        assert!(!decoder.has_ended());
    }

    #[test]
    fn fields_of_a_head_are_found_in_any_case() {
        let bytes = b"HTTP/1.1 201 Created\r\nCONTENT-Length: 12\r\nConnection: Close\r\n\r\nrest";
        let head = ResponseHead::parse(bytes).unwrap();
        assert_eq!((head.status, head.length, head.is_last), (201, Some(12), true));
        assert_eq!(&bytes[head.size..], b"rest");
        assert_eq!(ResponseHead::parse(b"HTTP/1.1 200 OK\r\nA: b\r\n"), None);
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(ResponseHead::parse(chunked).unwrap().is_chunked);
    }

    #[test]
    fn a_response_is_complete_with_its_last_byte() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ] {
            let mut reader = ResponseReader::default();
            for _ in 0..2 {
                let (last, before) = bytes.split_last().unwrap();
                assert!(before.iter().all(|byte| reader.received(&[*byte]).is_none()));
                let response = reader.received(&[*last]).unwrap();
                assert_eq!((response.status, &response.body[..]), (200, &b"hello"[..]));
            }
        }
    }

    #[test]
    fn a_response_without_a_body_is_complete_with_its_head() {
        let mut reader = ResponseReader::default();
        let response = reader.received(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!((response.status, response.body.len(), response.is_last), (204, 0, false));
    }
}
