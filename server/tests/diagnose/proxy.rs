//! A small reverse proxy with the faults of bad proxies.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, sleep_until},
};

/// A reverse proxy and its faults. The default has none.
#[derive(Clone)]
pub struct Proxy {
    /// Size of the buffer in bytes; 0 for none.
    pub holds_bytes: usize,
    /// Time for which the buffer holds data.
    pub holds_for: Option<Duration>,
    /// Holds everything until the end.
    pub holds_all: bool,
    /// Limits the buffer to responses to GET.
    pub holds_gets_only: bool,
    /// Idle time after which a stream is cut.
    pub cuts_after: Option<Duration>,
    /// Number of chunks after which each response ends cleanly.
    pub chunks: usize,
    /// Number of connections that are served at the same time. Others wait.
    pub connections: usize,
    /// Caches complete responses.
    pub caches: bool,
    /// Responds in place of the server, given the head of a request.
    pub responds: fn(&str) -> Option<&'static str>,
    /// Changes a line of a request's head, or removes it.
    pub request: fn(&str) -> Option<String>,
    /// Changes a line of a response's head, or removes it.
    pub response: fn(&str) -> Option<String>,
    /// Returns `false` for lines of the stream to remove.
    pub passes: fn(&str) -> bool,
}

/// Responses, by the first lines of their requests.
type Cache = Mutex<HashMap<String, Vec<u8>>>;

impl Default for Proxy {
    fn default() -> Self {
        Self {
            holds_bytes: 0,
            holds_for: None,
            holds_all: false,
            holds_gets_only: false,
            cuts_after: None,
            chunks: usize::MAX,
            connections: 1000,
            caches: false,
            responds: |_| None,
            request: |line| Some(line.to_owned()),
            response: |line| Some(line.to_owned()),
            passes: |_| true,
        }
    }
}

impl Proxy {
    /// Starts the proxy in front of a server. Returns its address.
    pub async fn before(self, server: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Semaphore::new(self.connections));
        let cache = Arc::new(Mutex::default());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, cache) = (self.clone(), Arc::clone(&cache));
                let connections = Arc::clone(&connections);
                tokio::spawn(async move {
                    let _permit = connections.acquire().await.unwrap();
                    // Errors come from connections that the client or the server closes.
                    let _ = proxy.serve(client, server, &cache).await;
                });
            }
        });
        address
    }

    async fn serve(
        &self,
        client: TcpStream,
        server: SocketAddr,
        cache: &Cache,
    ) -> std::io::Result<()> {
        let mut client = BufReader::new(client);
        let head = head_of(&mut client).await?;
        if let Some(response) = (self.responds)(&head) {
            client.write_all(response.as_bytes()).await?;
            return client.shutdown().await;
        }
        let is_cacheable = self.caches && head.starts_with("GET ");
        let line = head.lines().next().unwrap_or_default();
        let known = cache.lock().unwrap().get(line).cloned();
        if let Some(response) = known {
            client.write_all(&response).await?;
            return client.shutdown().await;
        }
        let request = changed(&head, self.request);
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let mut upstream = BufReader::new(TcpStream::connect(server).await?);
        upstream.write_all(request.as_bytes()).await?;
        let response = head_of(&mut upstream).await?;
        let is_chunked = response.contains("transfer-encoding: chunked");
        let mut response = changed(&response, |line| {
            (!line.starts_with("transfer-encoding") && !line.starts_with("connection"))
                .then(|| (self.response)(line))?
        });
        response = response.replacen("\r\n", "\r\nconnection: close\r\n", 1);

        let (sender, mut chunks) = mpsc::channel(1);
        let reader = tokio::spawn(async move {
            while let Some(chunk) = next(&mut upstream, is_chunked).await {
                if sender.send(chunk).await.is_err() {
                    break;
                }
            }
        });
        let holds = !self.holds_gets_only || head.starts_with("GET");
        let mut kept = response.into_bytes();
        let mut all = Vec::new();
        let mut flush_at = None;
        let mut passed = 0;
        if !(holds && (self.holds_all || self.holds_bytes > 0)) {
            client.write_all(&kept).await?;
            all.append(&mut kept);
        }
        let silence = sleep(self.cuts_after.unwrap_or(Duration::from_hours(1)));
        tokio::pin!(silence);
        loop {
            let flush = sleep_until(flush_at.unwrap_or(Instant::now() + Duration::from_hours(1)));
            let chunk = tokio::select! {
                chunk = chunks.recv() => chunk,
                () = flush => {
                    flush_at = None;
                    client.write_all(&kept).await?;
                    kept.clear();
                    continue;
                }
                () = &mut silence => {
                    // Closes the connection without the last chunk.
                    reader.abort();
                    return Ok(());
                }
                // The client closed the connection.
                _ = client.fill_buf() => {
                    reader.abort();
                    return Ok(());
                }
            };
            if let Some(after) = self.cuts_after {
                silence.as_mut().reset(Instant::now() + after);
            }
            let Some(chunk) = chunk else { break };
            for line in String::from_utf8_lossy(&chunk).split_inclusive('\n') {
                if (self.passes)(line) {
                    kept.extend_from_slice(line.as_bytes());
                }
            }
            let passes_on = match self.holds_for {
                _ if !holds => true,
                Some(time) => {
                    flush_at.get_or_insert(Instant::now() + time);
                    false
                }
                None => !self.holds_all && kept.len() >= self.holds_bytes,
            };
            if passes_on {
                client.write_all(&kept).await?;
                all.append(&mut kept);
            }
            passed += 1;
            if passed == self.chunks {
                reader.abort();
                break;
            }
        }
        client.write_all(&kept).await?;
        all.append(&mut kept);
        if is_cacheable {
            cache.lock().unwrap().insert(line.to_owned(), all);
        }
        client.shutdown().await
    }
}

/// Reads the lines up to the empty one.
async fn head_of(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn changed(head: &str, change: impl Fn(&str) -> Option<String>) -> String {
    let lines = head.trim_end().split("\r\n").filter_map(change);
    lines.map(|line| line + "\r\n").collect::<String>() + "\r\n"
}

/// Reads the next piece of a response's body.
async fn next(stream: &mut BufReader<TcpStream>, is_chunked: bool) -> Option<Vec<u8>> {
    if !is_chunked {
        let mut bytes = vec![0; 8192];
        let read = stream.read(&mut bytes).await.ok().filter(|read| *read > 0)?;
        bytes.truncate(read);
        return Some(bytes);
    }
    let mut size = String::new();
    stream.read_line(&mut size).await.ok()?;
    let size = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0)?;
    let mut bytes = vec![0; size + 2];
    stream.read_exact(&mut bytes).await.ok()?;
    bytes.truncate(size);
    Some(bytes)
}
