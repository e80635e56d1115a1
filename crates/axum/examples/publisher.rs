//! A publisher: each line of standard input becomes an event, exactly once, however often the
//! connection fails. An idempotency key lets the server recognize a line that is sent again.
//!
//! `ls | cargo run -p waterclock-axum --example publisher -- http://127.0.0.1:3000/events/files`

use std::{error::Error, io::BufRead, time::Duration};

use reqwest::{Client, StatusCode};

/// Publishes lines to `url`, which names the topic. `run` identifies this run among others.
pub(crate) async fn publish(
    url: &str,
    run: &str,
    lines: impl BufRead,
) -> Result<(), Box<dyn Error>> {
    let client = Client::new();
    for (number, line) in lines.lines().enumerate() {
        let (line, key) = (line?, format!("{run}-{number}"));
        loop {
            let request = client.post(url).header("idempotency-key", &key).body(line.clone());
            match request.send().await.map(|response| response.status()) {
                Ok(StatusCode::CREATED) => break,
                Ok(status) if status.is_client_error() && status != 429 => {
                    return Err(format!("{url} answers {status}").into());
                }
                // Not published, or published without an answer: the key makes a retry safe.
                _ => tokio::time::sleep(Duration::from_millis(500)).await,
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: publisher URL")?;
    let run = format!("{:016x}", fastrand::u64(..));
    publish(&url, &run, std::io::stdin().lock()).await
}
