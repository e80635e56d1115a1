//! `waterclock health`, for programs that watch a server.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::Args;
use reqwest::{Method, Url};

use super::{error::TerminalError, output::exit_code, server::ServerClient, visible::visible};
use crate::client::{ServerArgs, server_url};

/// Limit of the whole check. Docker gives a check 30 s, Kubernetes 1 s unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The options of `waterclock health`.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: 0 the server is ready; 1 it is not, or does not answer.")]
pub struct Health {
    /// URL of the server, in the place of --url
    #[arg(value_name = "URL", value_parser = server_url)]
    address: Option<Url>,

    /// Require that events can be published, too
    #[arg(long)]
    publish: bool,

    /// Accept any certificate, since the check may come by another name
    #[arg(long, env = "WATERCLOCK_INSECURE")]
    insecure: bool,

    /// The server to ask.
    #[command(flatten)]
    server: ServerArgs,
}

/// Asks a server if it is ready. Returns the exit code.
pub async fn check_health(options: &Health) -> u8 {
    exit_code(check(options).await)
}

async fn check(options: &Health) -> Result<u8, TerminalError> {
    let args = &options.server;
    let url = options.address.as_ref().unwrap_or(&args.url);
    let server = ServerClient::at(url, args, options.insecure)?;
    let query: &[_] = if options.publish { &[("publish", "")] } else { &[] };
    let answer = server.call(server.request(Method::GET, "/health/ready", query)?, TIMEOUT).await?;
    let answer = String::from_utf8_lossy(&answer.body);
    if answer.trim() != "ready" && !answer.starts_with("ready,") {
        return Err(server.not_waterclock(200, "it does not say that it is ready"));
    }
    writeln!(io::stdout(), "{}", visible(answer.trim()))?;
    Ok(0)
}
