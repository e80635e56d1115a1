//! Readers that are counted at other nodes than theirs.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};
use waterclock::transport::Transport;

use crate::{
    clients::{ReadAttempt, ReaderStart, Reading, get, publish},
    nodes::{ClusterNode, DEADLINE, NodeCluster, has_nats, until},
};

/// Time for which an upload is observed that must go on.
const OBSERVED: Duration = Duration::from_secs(4);

/// Starts a reader of the topic `t`, which reads until it is aborted.
fn read(node: &ClusterNode, transport: Transport) -> JoinHandle<()> {
    read_and_tell(node, transport).0
}

/// Starts such a reader. Returns it with a receiver that is told once it has received an event.
fn read_and_tell(
    node: &ClusterNode,
    transport: Transport,
) -> (JoinHandle<()>, oneshot::Receiver<()>) {
    let address = node.address().expect("it listens");
    let until = Instant::now() + DEADLINE;
    let (told, has_received) = oneshot::channel();
    let mut told = Some(told);
    let reader = tokio::spawn(async move {
        let (topics, start) = ("topic=t", ReaderStart::Oldest);
        let observe = |reading| {
            if matches!(reading, Reading::Receipt(_))
                && let Some(told) = told.take()
            {
                // The test may not wait for it.
                let _ = told.send(());
            }
            true
        };
        ReadAttempt { address, transport, topics, start, until }.run(observe).await;
    });
    (reader, has_received)
}

/// Waits until a node counts so many readers of the topic `t`, also in the list of topics.
async fn until_readers(node: &ClusterNode, count: u64) {
    let address = node.address().expect("it listens");
    until("number of readers", async || {
        let (_, text) = get(&format!("http://{address}/topics/t")).await?;
        let one: Value = serde_json::from_str(&text).unwrap();
        let (_, text) = get(&format!("http://{address}/topics?match=t")).await?;
        let list: Value = serde_json::from_str(&text).unwrap();
        let is_right = one["readers"] == count && list["topics"][0]["readers"] == count;
        is_right.then_some(())
    })
    .await;
}

/// Begins an upload that is stopped once nobody has read for a second.
async fn upload(address: SocketAddr) -> TcpStream {
    let mut upload = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /events/t?split=lines&while=read&patience=1 HTTP/1.1\r\nHost: {address}\r\n\
         Transfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n"
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    upload
}

/// Checks that the upload is not stopped for some time.
async fn assert_goes_on(upload: &mut TcpStream, readers: &str) {
    let mut byte = [0];
    let response = timeout(OBSERVED, upload.peek(&mut byte)).await;
    assert!(response.is_err(), "it was stopped in spite of {readers}");
}

/// Waits until the upload is stopped because nobody reads.
async fn until_stopped(mut upload: TcpStream) {
    let mut response = String::new();
    while !response.contains(r#""stopped":"unread""#) {
        let mut bytes = [0; 1024];
        let count = timeout(DEADLINE, upload.read(&mut bytes)).await.expect("no stop").unwrap();
        assert!(count > 0, "{response}");
        response.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(response.starts_with("HTTP/1.1 409 "), "{response}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_other_nodes_count() {
    if !has_nats() {
        return;
    }
    let cluster = NodeCluster::start(&["--interval=24h"]).await;
    let [here, there, last] = &cluster.nodes[..] else { panic!("three nodes") };
    let address = here.address().unwrap();

    let readers = [there, last].map(|node| read(node, Transport::Sse));
    // The list has only topics with events.
    let published = until("publish", async || {
        let answer = publish(address, "t", "first", None).await;
        (answer.status == Some(201)).then_some(())
    });
    published.await;
    until_readers(here, 2).await;
    until_readers(there, 2).await;
    let mut goes_on = upload(address).await;
    assert_goes_on(&mut goes_on, "streams").await;
    // A reader that is there only now and then counts, too. It polls before the others leave.
    let (polls, has_polled) = read_and_tell(there, Transport::Poll);
    timeout(DEADLINE, has_polled).await.expect("no poll").unwrap();
    readers.iter().for_each(JoinHandle::abort);
    assert_goes_on(&mut goes_on, "polls").await;
    polls.abort();
    until_stopped(goes_on).await;
    until_readers(here, 0).await;

    // Readers of a node that dies count no longer.
    let reader = read(there, Transport::WebSocket);
    until_readers(here, 1).await;
    let goes_on = upload(address).await;
    there.kill();
    reader.abort();
    until_stopped(goes_on).await;
    until_readers(here, 0).await;
    assert_eq!(cluster.unexpected_ends(), [""; 0]);
}
