//! Network links that a test can cut: TCP proxies.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    Open,
    /// Connections stay, but nothing passes.
    Held,
    /// Connections are closed, and new ones, too.
    Closed,
}

/// A way to a port of this machine.
pub struct Link {
    /// The port of the proxy.
    pub port: u16,
    passage: watch::Sender<Passage>,
}

impl Link {
    /// Opens a way to `target`.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (passage, watch) = watch::channel(Passage::Open);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connect(stream, target, watch.clone()));
            }
        });
        Self { port, passage }
    }

    pub fn set(&self, passage: Passage) {
        self.passage.send_replace(passage);
    }
}

/// Serves a connection until it ends or is cut.
async fn connect(stream: TcpStream, target: u16, mut passage: watch::Receiver<Passage>) {
    let mut closed = passage.clone();
    let serve = async {
        passage.wait_for(|passage| *passage == Passage::Open).await.ok()?;
        let to = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await.ok()?;
        stream.set_nodelay(true).and(to.set_nodelay(true)).ok()?;
        let ((from_reader, from_writer), (to_reader, to_writer)) =
            (stream.into_split(), to.into_split());
        tokio::select! {
            ended = pass(from_reader, to_writer, passage.clone()) => ended,
            ended = pass(to_reader, from_writer, passage) => ended,
        }
    };
    tokio::select! {
        _ = serve => {}
        // An error means that the test has ended.
        _ = closed.wait_for(|passage| *passage == Passage::Closed) => {}
    }
}

/// Passes bytes on. Returns `None` at the end.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut passage: watch::Receiver<Passage>,
) -> Option<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        passage.wait_for(|passage| *passage == Passage::Open).await.ok()?;
        to.write_all(&buffer[..count]).await.ok()?;
    }
}
