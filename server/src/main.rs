//! The program `waterclock`: it reads its options, wires the parts, and serves until it is told to
//! stop.

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
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

/// How long a stop may take.
const DRAIN: Duration = Duration::from_secs(10);

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
    let mut leptos = leptos::config::get_configuration(None)?.leptos_options;
    leptos.site_root = site_root(leptos.site_root);
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

/// Serves until a signal, or until a part of it fails; then stops within [`DRAIN`], or at once at a
/// second signal.
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
    let mut serving = tokio::spawn(serve(listener, router(state), stopping.clone()));
    let clock = tokio::spawn(async move { clock::run(&hub, options.interval).await });
    writeln!(std::io::stdout(), "listening on http://{address}")?;

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        served = &mut serving => return Ok(served??),
        ended = clock => return Ok(ended?),
    }
    stopping.cancel();
    tokio::select! {
        served = serving => Ok(served??),
        () = tokio::time::sleep(DRAIN) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Where the page's files are, unless the environment says: beside the program, where a release build
/// puts them, or else where `cargo leptos watch` does.
fn site_root(default: Arc<str>) -> Arc<str> {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("site"));
    match beside.as_deref().and_then(Path::to_str) {
        Some(beside)
            if std::env::var_os("LEPTOS_SITE_ROOT").is_none() && Path::new(beside).is_dir() =>
        {
            beside.into()
        }
        _ => default,
    }
}
