//! A server of streams that is not Waterclock: it has no probe, and sends exactly the bytes of a
//! test.

use std::{
    collections::VecDeque,
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// The end of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection is closed: over TLS with `close_notify`.
    Close,
    /// The connection is reset.
    Reset,
    /// TCP is closed without the end of TLS.
    NoCloseNotify,
    /// The connection stays open until the client closes it.
    Open,
}

/// The bytes of a response, given the head of the request, and the end of it.
type Respond = dyn Fn(&str) -> (String, End) + Send + Sync;

/// The head of a stream that lasts until the connection is closed.
pub const STREAM: &str =
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\r\n";
/// The head of a stream with chunks.
pub const CHUNKED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\
    Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
pub const NOT_FOUND: &str =
    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Starts a server. Returns its address.
pub async fn serve(respond: impl Fn(&str) -> (String, End) + Send + Sync + 'static) -> SocketAddr {
    start(None, Arc::new(respond)).await
}

/// Starts a server with TLS and a certificate of its own. Returns its address.
pub async fn serve_tls(
    respond: impl Fn(&str) -> (String, End) + Send + Sync + 'static,
) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    start(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(respond)).await
}

async fn start(tls: Option<TlsAcceptor>, respond: Arc<Respond>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, respond) = (tls.clone(), Arc::clone(&respond));
            tokio::spawn(async move {
                // Errors come from clients that close the connection.
                let _ = match tls {
                    Some(tls) => match tls.accept(tcp).await {
                        Ok(stream) => {
                            exchange(stream, &*respond, |stream| stream.get_ref().0).await
                        }
                        Err(error) => Err(error),
                    },
                    None => exchange(tcp, &*respond, |tcp| tcp).await,
                };
            });
        }
    });
    address
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    respond: &Respond,
    tcp: impl Fn(&S) -> &TcpStream,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let (bytes, end) = if head.starts_with("GET /diagnose/stream") {
        (NOT_FOUND.to_owned(), End::Close)
    } else {
        respond(&head)
    };
    stream.write_all(bytes.as_bytes()).await?;
    stream.flush().await?;
    match end {
        End::Close => {
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await?;
        }
        End::Reset => SockRef::from(tcp(&stream)).set_linger(Some(Duration::ZERO))?,
        End::NoCloseNotify => {}
        End::Open => {
            stream.read_to_end(&mut Vec::new()).await?;
        }
    }
    Ok(())
}

/// The end of a response over HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2End {
    /// `RST_STREAM` with an error code.
    Reset(h2::Reason),
    /// The end of the connection.
    Close,
    /// The end of the connection when the fourth request arrives, which gets no response. Later
    /// connections end after a response.
    CloseAtFourth,
}

/// Starts a server of HTTP/2 without TLS, whose streams have one event and an end. Returns its
/// address.
pub async fn serve_http2(end: Http2End) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                // Errors come from clients that close the connection.
                let _ = exchange_http2(tcp, end, &requests).await;
            });
        }
    });
    address
}

async fn exchange_http2(
    tcp: TcpStream,
    end: Http2End,
    requests: &AtomicUsize,
) -> Result<(), h2::Error> {
    let tcp = tcp.into_std().unwrap();
    let mut rest = TcpStream::from_std(tcp.try_clone().unwrap()).unwrap();
    let result = respond_http2(TcpStream::from_std(tcp).unwrap(), end, requests).await;
    // To close a connection whose requests are not all read would be to reset it.
    let _ = rest.shutdown().await;
    let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    result
}

async fn respond_http2(
    tcp: TcpStream,
    end: Http2End,
    requests: &AtomicUsize,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(tcp).await?;
    let mut waiting = VecDeque::new();
    let mut open = Vec::new();
    loop {
        let next = match waiting.pop_front() {
            Some(next) => Some(next),
            None => connection.accept().await,
        };
        let Some(next) = next else { return Ok(()) };
        let (request, mut response) = next?;
        if request.uri().path() == "/diagnose/stream" {
            let head = hyper::Response::builder().status(404).body(()).unwrap();
            response.send_response(head, true)?;
            continue;
        }
        let earlier = requests.fetch_add(1, Relaxed);
        if end == Http2End::CloseAtFourth && earlier == 3 {
            return Ok(());
        }
        let head = hyper::Response::builder().header("content-type", "text/event-stream");
        let mut stream = response.send_response(head.body(()).unwrap(), false)?;
        stream.send_data(Bytes::from_static(b"data: x\n\n"), false)?;
        // Sends the frames, which the end would drop.
        waiting.extend(
            poll_fn(|context| match connection.poll_accept(context) {
                Poll::Ready(next) => Poll::Ready(next),
                Poll::Pending => Poll::Ready(None),
            })
            .await,
        );
        match end {
            Http2End::Reset(reason) => stream.send_reset(reason),
            Http2End::CloseAtFourth if earlier < 3 => open.push(stream),
            Http2End::Close | Http2End::CloseAtFourth => return Ok(()),
        }
    }
}

/// Starts a server of HTTP/2 without TLS that sends an event, and then `GOAWAY` as if it had not
/// received the request. Returns its address.
pub async fn serve_go_away() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Errors come from clients that close the connection.
                let _ = go_away(tcp).await;
            });
        }
    });
    address
}

async fn go_away(mut tcp: TcpStream) -> std::io::Result<()> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EVENT: &[u8] = b"data: x\n\n";
    // `:status: 200`, and the name of `content-type` in the static table (RFC 7541).
    const HEAD: &[u8] = b"\x88\x0f\x10\x11text/event-stream";
    // The last request that was received, and the error code `ENHANCE_YOUR_CALM` (RFC 9113).
    const GO_AWAY: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0x0b];
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }
    tcp.read_exact(&mut [0; PREFACE.len()]).await?;
    tcp.write_all(&frame(0x4, 0, 0, &[])).await?;
    let stream = loop {
        let mut head = [0; 9];
        tcp.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        tcp.read_exact(&mut vec![0; length as usize]).await?;
        if head[3] == 0x1 {
            break u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        }
    };
    let response =
        [frame(0x1, 0x4, stream, HEAD), frame(0x0, 0, stream, EVENT), frame(0x7, 0, 0, GO_AWAY)];
    tcp.write_all(&response.concat()).await?;
    tcp.read_to_end(&mut Vec::new()).await?;
    Ok(())
}
