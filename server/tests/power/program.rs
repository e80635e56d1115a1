//! The program on a mounted disk, and clients of it.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::Sender,
    thread,
};

use super::{DEADLINE, model::Polled};

/// A moment that the test waits for.
pub enum Moment {
    /// The program listens.
    Ready(SocketAddr),
    /// The program has closed its output.
    Ended,
    /// The power has failed.
    Cut,
}

pub struct Program(Child);

impl Program {
    /// Starts the program. Its standard error goes to a file.
    pub fn start(data: &Path, errors: &Path, options: &[String], moments: Sender<Moment>) -> Self {
        let mut child = Command::new(crate::binary::waterclock())
            .arg("--listen=127.0.0.1:0")
            .arg(format!("--data-dir={}", data.display()))
            .args(options)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .stderr(File::create(errors).unwrap())
            .spawn()
            .unwrap();
        let output = child.stdout.take().map(BufReader::new);
        thread::spawn(move || {
            for line in output.into_iter().flat_map(BufReader::lines).map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("listening on http://") {
                    let _ = moments.send(Moment::Ready(address.parse().unwrap()));
                }
            }
            let _ = moments.send(Moment::Ended);
        });
        Self(child)
    }

    /// Asks the program to stop.
    pub fn terminate(&self) {
        let kill = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(kill.unwrap().success());
    }

    pub fn kill(&mut self) -> io::Result<()> {
        self.0.kill()
    }

    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait()
    }
}

/// A connection that is kept alive.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request. Returns the status and the body of the response.
    pub fn request(
        &mut self,
        request: &str,
        headers: &str,
        body: &str,
    ) -> io::Result<(u16, String)> {
        let request = format!(
            "{request} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line == "\r\n" {
                break;
            }
            lines.push(line.to_ascii_lowercase());
        }
        let status = lines[0].split(' ').nth(1).and_then(|status| status.parse().ok());
        let length = lines.iter().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap();
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status.unwrap(), String::from_utf8(body).unwrap()))
    }

    /// Reads the events of topics after a cursor.
    pub fn poll(address: SocketAddr, topic: &str, cursor: &str, wait: u64) -> io::Result<Polled> {
        let Self(mut stream) = Self::connect(address)?;
        let request = format!(
            "GET /poll?topic={topic}&last_event_id={cursor}&wait={wait} HTTP/1.0\r\n\
             Host: localhost\r\n\r\n"
        );
        stream.get_mut().write_all(request.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        if !head.starts_with("HTTP/1.0 200") && !head.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(response));
        }
        serde_json::from_str(body).map_err(io::Error::other)
    }
}
