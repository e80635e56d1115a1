//! The program `waterclock`: it reads its options, wires the parts, and serves until it is told to
//! stop. Or it diagnoses the path to a server.

use std::{
    error::Error,
    io::{IsTerminal as _, Write as _},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use server::{
    diagnose,
    load::Load,
    meter::Meters,
    metrics::Metrics,
    options::{Command, LogFormat, Options, Store},
    publish::Running,
    router::{AppState, StreamSettings, router},
    serve::{Room, Serving, TimeOuts, listen, serve},
    stop::Stop,
    streams::Streams,
    tls::Tls,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use waterclock::{
    clock,
    event_log::{MemoryLog, SqliteLog},
    hub::Hub,
    id::Epoch,
    timestamp::Timestamp,
};

/// How many open files are kept for what is no connection: the listeners, the log, and the site's files as they
/// are read.
const OTHER_FILES: usize = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Some(Command::Diagnose(options)) = &options.command {
        return diagnose::run(options).await.into();
    }
    start_log(options.log);
    let max_connections = max_connections(options.stream_limits().in_all);
    let started = match start(&options) {
        Ok(started) => started,
        Err(error) => {
            // For people, like what is wrong with an option, and not part of the log.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            return ExitCode::from(2);
        }
    };
    match run(started, max_connections, &options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("stopped: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_log(format: LogFormat) {
    // h2 warns of each PING that nobody has asked for, so that a client could fill the disk.
    let wanted = std::env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty());
    let directives = format!("h2=error,{}", wanted.as_deref().unwrap_or("info"));
    let filter = tracing_subscriber::EnvFilter::builder().parse_lossy(directives);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).init(),
    }
}

/// How many connections there may be. Each is an open file, and many systems allow few of them until they are
/// asked for more.
fn max_connections(max_streams: usize) -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        tracing::warn!(%error, "the limit of open files could not be raised");
        rlimit::Resource::NOFILE.get_soft()
    });
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let max = limit - OTHER_FILES.min(limit / 2);
    if max < max_streams {
        tracing::warn!(limit, "the system allows fewer open files than there may be streams");
    }
    max
}

/// What there is once the options have been followed.
struct Started {
    listeners: Vec<TcpListener>,
    tls: Option<Tls>,
    state: AppState,
}

fn start(options: &Options) -> Result<Started, Box<dyn Error>> {
    let mut leptos = leptos::config::get_configuration(None)?.leptos_options;
    leptos.site_root = site_root(leptos.site_root);
    let mut listeners = Vec::new();
    for address in options.listen(leptos.site_addr) {
        let listener = listen(address);
        listeners.push(listener.map_err(|error| format!("cannot listen on {address}: {error}"))?);
    }
    let state = AppState {
        hub: Arc::new(hub(options)?),
        stream_settings: StreamSettings {
            heartbeat: options.heartbeat,
            retry: options.retry,
            drain: options.drain,
        },
        leptos,
        streams: Streams::new(options.stream_limits()),
        access: options.access()?,
        trusted_proxies: options.trusted_proxies(),
        body_time_out: TimeOuts::default().body,
        publish_rate: Arc::new(options.publish_rate()),
        running: Running::default(),
        meters: Meters::default(),
        load: Load::default(),
        metrics: Arc::new(Metrics::default()),
        stop: Stop::default(),
    };
    Ok(Started { listeners, tls: options.tls()?, state })
}

fn hub(options: &Options) -> Result<Hub, Box<dyn Error>> {
    let retention = options.retention();
    Ok(match options.store {
        Store::File => {
            let log = SqliteLog::open(&options.data_dir, retention, Timestamp::now)?;
            Hub::new(log, Timestamp::now)
        }
        Store::Memory => Hub::new(MemoryLog::new(Epoch::random(), retention), Timestamp::now),
    })
}

/// Serves until a signal, or until a part of it fails; then stops within the time for it, or at once
/// at a second signal.
async fn run(
    Started { listeners, tls, state }: Started,
    max_connections: usize,
    options: &Options,
) -> Result<(), Box<dyn Error>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let serving = Serving {
        time_outs: TimeOuts::default(),
        tls: tls.clone(),
        room: Room::new(max_connections, Arc::clone(&state.metrics)),
        streams: state.streams.clone(),
        metrics: Arc::clone(&state.metrics),
        stop: state.stop.clone(),
    };
    let (hub, interval) = (Arc::clone(&state.hub), options.interval);
    let router = router(state);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let fingerprint = tls.as_ref().map(Tls::fingerprint);
    if let Some(tls) = tls {
        tracing::info!(file = %tls.file().display(), fingerprint, "certificate");
        tls.reload();
    }
    let mut servers = JoinSet::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        servers.spawn(serve(listener, router.clone(), serving.clone()));
        writeln!(std::io::stdout(), "listening on {scheme}://{address}")?;
    }
    if let Some(fingerprint) = fingerprint.filter(|_| options.tls_self_signed) {
        // Last, for programs that read no further than where we listen.
        let _ = writeln!(std::io::stdout(), "the certificate's SHA-256 fingerprint: {fingerprint}");
    }
    let clock = tokio::spawn(async move { clock::run(&hub, interval).await });

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = clock => return Ok(ended?),
        Some(ended) = servers.join_next() => return Ok(ended?),
    }
    tracing::info!(streams = serving.streams.count(), "stopping");
    serving.stop.begin();
    tokio::select! {
        _ = servers.join_all() => {}
        () = tokio::time::sleep(options.drain) => {
            tracing::warn!(streams = serving.streams.count(), "stopped before all clients had gone");
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
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
