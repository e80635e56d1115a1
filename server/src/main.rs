//! The program `waterclock`. It reads its options, wires the parts, and serves until shutdown; or
//! it diagnoses the path to a server.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{self, ExitCode},
    sync::Arc,
    time::Duration,
};

#[cfg(feature = "otlp")]
use server::ops::traces::Traces;
use server::{
    diagnose::{self, Diagnose},
    limits::{RESERVED_FILES, Timeouts},
    net::{Capacity, Serving, listen, serve, tls::Tls},
    ops::{output::Output, signals::StopSignals},
    options::{Command, Options, Store},
    routes::responder,
    state::AppState,
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use waterclock::{
    clock,
    cluster::{ClusterLog, ClusterStatus, JoinError},
    event_log::{ImportSource, MemoryLog, Retention, SqliteLog, volume_bytes},
    hub::Hub,
    id::Epoch,
    timestamp::Timestamp,
};
use waterclock_nats::{NatsSequencer, NatsSettings};

/// Time for which a node that has events to serve waits for all servers of its cluster.
const MEMBER_PATIENCE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let options = Options::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    if let Some(Command::Diagnose(options)) = &options.command {
        return diagnose(options);
    }
    let output = Output::start(options.log);
    let ending = start_and_run(&options, &output);
    // The end of the runtime has printed messages, too.
    output.flush();
    match ending {
        Ending::Exit(code) => code,
        Ending::Restart => {
            let error = restart();
            output.print_error(format_args!("error: the program could not start again: {error}"));
            output.flush();
            ExitCode::FAILURE
        }
    }
}

/// The way in which the program ends.
enum Ending {
    Exit(ExitCode),
    /// It starts again, in the same process.
    Restart,
}

/// Replaces the program by a new start of it. Returns only if that fails.
fn restart() -> io::Error {
    let mut arguments = std::env::args_os();
    let Some(program) = arguments.next() else { return io::ErrorKind::NotFound.into() };
    // After an upgrade, the file of this program has another place or none.
    let running = std::env::current_exe().ok().filter(|program| program.exists());
    let program = running.unwrap_or_else(|| program.into());
    process::Command::new(program).args(arguments).exec()
}

#[tokio::main]
async fn diagnose(options: &Diagnose) -> ExitCode {
    diagnose::run(options).await.into()
}

#[tokio::main]
async fn start_and_run(options: &Options, output: &Output) -> Ending {
    let max_connections = max_connections(options.settings().streams.total);
    let started = match start(options).await {
        Ok(started) => started,
        Err(error) if matches!(error.downcast_ref(), Some(JoinError::StartAgain(_))) => {
            tracing::warn!("{error}");
            return Ending::Restart;
        }
        Err(error) => {
            // Like an error in an option, this is for people, whatever the format of the output.
            output.print_error(format_args!("error: {error}"));
            return Ending::Exit(ExitCode::from(2));
        }
    };
    match run(started, max_connections, options, output).await {
        Ok(ending) => ending,
        Err(error) => {
            tracing::error!("stopped: {error}");
            Ending::Exit(ExitCode::FAILURE)
        }
    }
}

/// Computes the maximum number of connections. Each is an open file, and many systems allow few of
/// them until a program asks for more.
fn max_connections(max_streams: usize) -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).or_else(|error| {
        tracing::warn!(%error, "the limit of open files could not be raised");
        rlimit::Resource::NOFILE.get_soft()
    });
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let max = limit - RESERVED_FILES.min(limit / 2);
    if max < max_streams {
        tracing::warn!(limit, "the system's limit of open files is below the limit of streams");
    }
    max
}

/// The parts that the options have configured.
struct Started {
    listeners: Vec<TcpListener>,
    tls: Option<Tls>,
    state: AppState,
    /// The state of the node, if it is one of a cluster.
    node: Option<NodeStatus>,
    /// The tracer, if there is a collector.
    #[cfg(feature = "otlp")]
    traces: Option<Traces>,
}

type NodeStatus = watch::Receiver<ClusterStatus>;

async fn start(options: &Options) -> Result<Started, Box<dyn Error>> {
    let mut leptos = leptos::config::get_configuration(None)?.leptos_options;
    leptos.site_root = site_root(leptos.site_root);
    let mut listeners = Vec::new();
    for address in options.listen(leptos.site_addr) {
        let listener = listen(address);
        listeners.push(listener.map_err(|error| format!("cannot listen on {address}: {error}"))?);
    }
    let address = listeners.first().map_or(Ok(leptos.site_addr), TcpListener::local_addr)?;
    let (access, tls) = (options.access()?, options.tls()?);
    let (hub, node) = match options.cluster.nats() {
        Some(nats) => node(options, address, nats).await?,
        None => (hub(options)?, None),
    };
    #[cfg_attr(not(feature = "otlp"), expect(unused_mut, reason = "only traces change it"))]
    let mut state = AppState::new(hub, access, options.settings(), leptos);
    #[cfg(feature = "otlp")]
    let traces = options.otlp_endpoint.as_ref().map(Traces::start).transpose()?;
    #[cfg(feature = "otlp")]
    if let Some(traces) = &traces {
        state.events = state.events.with_traces(traces.hook());
    }
    Ok(Started {
        listeners,
        tls,
        state,
        node,
        #[cfg(feature = "otlp")]
        traces,
    })
}

/// Joins a cluster.
async fn node(
    options: &Options,
    address: SocketAddr,
    nats: NatsSettings,
) -> Result<(Hub, Option<NodeStatus>), Box<dyn Error>> {
    if options.store == Store::Memory {
        return Err("a node of a cluster keeps its events in a file: leave out --store".into());
    }
    // The nodes keep the same, whatever the sizes of their volumes.
    let settings = options.cluster.node(options.retention(u64::MAX), address);
    if options.cluster.imports()
        && let Some(source) = ImportSource::open(&options.data_dir).await?
    {
        let sequencer = NatsSequencer::connect(nats.clone()).await?;
        ClusterLog::import(source, sequencer, settings.clone()).await?;
    }
    let mirror = SqliteLog::open_mirror(&options.data_dir)?;
    let is_member = mirror.mirrored().is_some_and(|mirrored| mirrored.retention.is_some());
    let mut first = nats.clone();
    if is_member {
        first.timeout = first.timeout.min(MEMBER_PATIENCE);
    }
    let sequencer = match NatsSequencer::connect(first).await {
        Err(error) if is_member && error.may_pass() => {
            tracing::warn!("the node serves what it has, until it reaches its cluster: {error}");
            NatsSequencer::resume(nats).await?
        }
        connected => connected?,
    };
    let log = ClusterLog::join(mirror, sequencer, settings).await?;
    let status = log.status();
    Ok((Hub::new(log, Timestamp::now), Some(status)))
}

fn hub(options: &Options) -> Result<Hub, Box<dyn Error>> {
    Ok(match options.store {
        Store::File => {
            let retention = retention(options);
            let log = SqliteLog::open(&options.data_dir, retention, Timestamp::now)?;
            Hub::new(log, Timestamp::now)
        }
        Store::Memory => {
            let retention = options.retention(u64::MAX);
            Hub::new(MemoryLog::new(Epoch::random(), retention), Timestamp::now)
        }
    })
}

/// Returns the retention of a log in a file, and prints if the volume is too small for it.
fn retention(options: &Options) -> Retention {
    let volume = volume_bytes(&options.data_dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "the size of the event log's volume is unknown");
        u64::MAX
    });
    let retention = options.retention(volume);
    let bytes = retention.bytes;
    if bytes as u64 > volume - volume / 8 {
        tracing::warn!(
            bytes,
            volume,
            "--retain-bytes does not fit on the volume of the data folder"
        );
    } else if bytes < options.retention(u64::MAX).bytes {
        tracing::warn!(
            bytes,
            volume,
            "the volume of the data folder is small: the event log keeps half of it"
        );
    }
    retention
}

/// Serves until a signal arrives or a part fails. The shutdown ends within the drain time, or at a
/// second SIGTERM or SIGINT.
async fn run(
    started: Started,
    max_connections: usize,
    options: &Options,
    output: &Output,
) -> Result<Ending, Box<dyn Error>> {
    let Started { listeners, tls, state, node, .. } = started;
    let mut signals = StopSignals::listen()?;
    let serving = Serving {
        timeouts: Timeouts { idle: options.keep_alive, ..Timeouts::default() },
        tls: tls.clone(),
        capacity: Capacity::new(max_connections, Arc::clone(&state.metrics)),
        streams: state.events.streams(),
        metrics: Arc::clone(&state.metrics),
        stop: state.stop.clone(),
        is_direct: !options.no_direct_path,
    };
    let (hub, interval) = (Arc::clone(&state.hub), options.interval);
    let publishing = Arc::clone(&hub);
    let responder = responder(state);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let fingerprint = tls.as_ref().map(Tls::fingerprint);
    if let Some(tls) = tls {
        tracing::info!(file = %tls.file().display(), fingerprint, "certificate");
        tls.watch();
    }
    let mut servers = JoinSet::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        servers.spawn(serve(listener, Arc::clone(&responder), serving.clone()));
        output.print(format_args!("listening on {scheme}://{address}"));
    }
    if let Some(fingerprint) = fingerprint.filter(|_| options.tls_self_signed) {
        // Last, for programs that read no further than the addresses.
        output.print(format_args!("the certificate's SHA-256 fingerprint: {fingerprint}"));
    }
    let clock = tokio::spawn(async move { clock::run(&hub, interval).await });

    let mut ending = tokio::select! {
        () = signals.first() => Ending::Exit(ExitCode::SUCCESS),
        Err(error) = clock => return Err(error.into()),
        () = publishing.stopped() => match node {
            Some(node) if node.borrow().needs_restart => Ending::Restart,
            _ => return Err("the event log's writer has stopped".into()),
        },
        Some(Err(error)) = servers.join_next() => return Err(error.into()),
    };
    tracing::info!(streams = serving.streams.count(), "stopping");
    serving.stop.begin();
    let is_restart = matches!(ending, Ending::Restart);
    let stopped = async {
        if is_restart {
            signals.first().await;
        } else {
            signals.second().await;
        }
    };
    tokio::select! {
        _ = servers.join_all() => {}
        () = tokio::time::sleep(options.drain) => {
            tracing::warn!(streams = serving.streams.count(), "stopped before all clients had left");
        }
        () = stopped => {
            if is_restart {
                ending = Ending::Exit(ExitCode::SUCCESS);
            }
        }
    }
    #[cfg(feature = "otlp")]
    if let Some(traces) = started.traces {
        traces.stop().await;
    }
    Ok(ending)
}

/// Finds the site's files: at `LEPTOS_SITE_ROOT` if it is set, beside the program, where a release
/// build puts them, or else where `cargo leptos watch` does.
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
