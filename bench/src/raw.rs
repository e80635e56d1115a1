//! The raw loop: a server that writes the bytes of each event to all sockets, one after the other.
//! It understands only the requests of the load generator, and keeps only the events, for
//! subscribers that are behind.

use std::io::{ErrorKind, Read as _, Write as _};

use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use waterclock::sse::Block;

use crate::process;

const LISTENER: Token = Token(usize::MAX);
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    cache-control: no-cache, no-transform\r\ntransfer-encoding: chunked\r\n\r\n";

struct RawClient {
    stream: TcpStream,
    received: Vec<u8>,
    is_subscriber: bool,
}

/// Serves until the process is killed.
pub fn serve() {
    let mut poll = Poll::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let listener = runtime.block_on(async { process::listen() });
    let mut listener = TcpListener::from_std(listener.into_std().unwrap());
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(1024);
    let mut connections: Vec<Option<RawClient>> = Vec::new();
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let token = Token(connections.len());
                    poll.registry().register(&mut stream, token, Interest::READABLE).unwrap();
                    let (received, is_subscriber) = (Vec::new(), false);
                    connections.push(Some(RawClient { stream, received, is_subscriber }));
                }
                continue;
            }
            let slot = &mut connections[event.token().0];
            let Some(connection) = slot else { continue };
            loop {
                match connection.stream.read(&mut buffer) {
                    Ok(0) => {
                        *slot = None;
                        break;
                    }
                    Ok(read) => connection.received.extend(&buffer[..read]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => {
                        *slot = None;
                        break;
                    }
                }
            }
            let Some(connection) = slot else { continue };
            let mut published = Vec::new();
            while let Some(request) = take_request(&mut connection.received) {
                match request {
                    Request::Get { behind } => {
                        connection.is_subscriber = true;
                        let missing = &frames[frames.len() - behind.min(frames.len())..];
                        let bytes = [HEAD, &missing.concat()].concat();
                        let _ = connection.stream.write(&bytes);
                    }
                    Request::Post { body } => {
                        published.push(body);
                        let response = b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n";
                        let _ = connection.stream.write(response);
                    }
                }
            }
            for body in published {
                let frame = frame(frames.len() + 1, &body);
                for connection in connections.iter_mut().flatten() {
                    if connection.is_subscriber {
                        let _ = connection.stream.write(&frame);
                    }
                }
                frames.push(frame);
            }
        }
    }
}

/// Returns an event's block in an HTTP chunk (RFC 9112, 7.1), as Waterclock writes it.
fn frame(number: usize, body: &[u8]) -> Vec<u8> {
    let id = format!("00000000c10cca11-{number}");
    let data = std::str::from_utf8(body).unwrap();
    let block = Block { id: Some(&id), name: None, data: Some(data), retry: None };
    let mut bytes = Vec::new();
    block.encode(&mut bytes).unwrap();
    [format!("{:X}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat()
}

enum Request {
    Get { behind: usize },
    Post { body: Vec<u8> },
}

/// Takes the first complete request from the received bytes.
fn take_request(received: &mut Vec<u8>) -> Option<Request> {
    let end = memchr::memmem::find(received, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&received[..end]).unwrap();
    let number_after = |name: &str| {
        let rest = head.split_once(name)?.1;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    if head.starts_with("GET") {
        let behind = number_after("behind=").unwrap_or(0);
        received.drain(..end);
        return Some(Request::Get { behind });
    }
    let length: usize = number_after("Content-Length: ")?;
    let body = received.get(end..end + length)?.to_vec();
    received.drain(..end + length);
    Some(Request::Post { body })
}
