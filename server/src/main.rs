//! The program `waterclock`: it reads its options, wires the parts, and serves until it is told to
//! stop.

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Parser as _;
use server::{
    options::Options,
    router::{AppState, Connections, StreamSettings, router},
    serve::serve,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use waterclock::{clock, hub::Hub, id::Epoch, log::MemoryLog, timestamp::Timestamp};

/// How many ticks the clock's log keeps: an hour, at one a second.
const CLOCK_RETAIN_COUNT: usize = 3600;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .from_env_lossy();
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal)
        .init();

    let (listener, state) = match start(&options).await {
        Ok(started) => started,
        Err(error) => {
            tracing::error!("could not start: {error}");
            return ExitCode::from(2);
        }
    };
    match run(listener, state, options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("stopped: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start(options: &Options) -> Result<(TcpListener, AppState), Box<dyn Error>> {
    let leptos = leptos::config::get_configuration(None)?.leptos_options;
    let address = options.listen(leptos.site_addr);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let state = AppState {
        hub: Arc::new(Hub::new(
            MemoryLog::new(Epoch::random(), CLOCK_RETAIN_COUNT),
            Timestamp::now,
        )),
        streams: StreamSettings { heartbeat: options.heartbeat, retry: options.retry },
        leptos,
        connections: Connections::default(),
        stopping: CancellationToken::new(),
    };
    Ok((listener, state))
}

async fn run(
    listener: TcpListener,
    state: AppState,
    options: Options,
) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopping = state.stopping.clone();
    let address = listener.local_addr()?;
    let hub = Arc::clone(&state.hub);
    let serving = tokio::spawn(serve(listener, router(state), stopping.clone()));
    let clock = tokio::spawn(async move { clock::run(&hub, options.interval).await });
    writeln!(std::io::stdout(), "listening on http://{address}")?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stopping.cancel();
    clock.abort();
    Ok(serving.await??)
}
