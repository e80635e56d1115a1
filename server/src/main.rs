//! The program `waterclock`. It reads its options, wires the parts, and serves until shutdown; or
//! it diagnoses the path to a server.

use std::{
    error::Error,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{self, ExitCode},
    sync::Arc,
    time::Duration,
};

use clap::CommandFactory as _;
#[cfg(feature = "otlp")]
use server::ops::traces::Traces;
use server::{
    config::ConfigProblems,
    diagnose,
    limits::{RESERVED_FILES, Timeouts},
    net::{Capacity, InheritedSockets, Serving, listen, serve, tls::Tls},
    ops::{output::Output, service_manager, signals::StopSignals},
    options::{CheckArguments, Command, LoadedOptions, Options, OptionsError, Store},
    reload::ConfigReload,
    routes::reloadable_responder,
    state::AppState,
    terminal, token,
};
use tokio::{
    net::TcpListener,
    signal::unix::Signal,
    sync::watch,
    task::{self, JoinSet},
};
use tokio_util::task::AbortOnDropHandle;
use waterclock::{
    clock,
    cluster::{ClusterLog, ClusterStatus, JoinError},
    event_log::{ImportSource, MemoryLog, SqliteLog},
    hub::Hub,
    id::Epoch,
    timestamp::Timestamp,
};
use waterclock_nats::{NatsSequencer, NatsSettings};

/// The allocator of the static program, in place of musl's.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Time for which a node that has events to serve waits for all servers of its cluster.
const MEMBER_PATIENCE: Duration = Duration::from_secs(3);
/// Time after which one append counts as stuck, unless the event log knows the reason. It is longer
/// than the time after which the log reports a disk that does not respond: a restart would not help
/// then, and readers would lose their streams.
const MAX_APPEND: Duration = Duration::from_mins(1);

fn main() -> ExitCode {
    let mut loaded = match Options::load(std::env::args_os().collect()) {
        Ok(loaded) => loaded,
        Err(error) => return refuse(error),
    };
    if let Some(command) = &loaded.options.command {
        return run_command(command);
    }
    // Without a file, the parts of the server report what they cannot use.
    if loaded.options.config.is_some() {
        loaded.check();
        if loaded.problems.has_errors() {
            return refuse(OptionsError::Config(loaded.problems));
        }
    }
    // Before there are threads.
    let sockets = InheritedSockets::take();
    let output = Output::start(loaded.options.log, loaded.options.log_level.as_ref());
    for warning in loaded.problems.sorted() {
        tracing::warn!("{warning}");
    }
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            output.print_error(format_args!("error: {error}"));
            output.flush();
            return ExitCode::from(2);
        }
    };
    let ending = start_and_run(loaded, &sockets, &output);
    // The end of the runtime has printed messages, too.
    output.flush();
    match ending {
        Ending::Exit(code) => code,
        Ending::Restart if !sockets.is_empty() => {
            // Only the service manager can hand over its sockets once more.
            output.print_error(format_args!("the service manager must start the program again"));
            output.flush();
            ExitCode::FAILURE
        }
        Ending::Restart => {
            let error = restart();
            output.print_error(format_args!("error: the program could not start again: {error}"));
            output.flush();
            ExitCode::FAILURE
        }
    }
}

/// Reports options that cannot be used.
fn refuse(error: OptionsError) -> ExitCode {
    match error {
        OptionsError::Usage(error) => error.exit(),
        OptionsError::Config(problems) => print_problems(&problems),
    }
    ExitCode::from(2)
}

/// Checks the configuration, and reports all problems.
fn check(options: &CheckArguments) -> ExitCode {
    let loaded = match options.run() {
        Ok(loaded) => loaded,
        Err(error) => return refuse(error),
    };
    print_problems(&loaded.problems);
    if loaded.problems.has_errors() {
        return ExitCode::from(2);
    }
    // If nobody reads it, the exit code tells.
    let _ = match &loaded.options.config {
        Some(file) => writeln!(io::stdout(), "{}: valid", file.display()),
        None => writeln!(io::stdout(), "valid; no configuration file is named"),
    };
    ExitCode::SUCCESS
}

/// Prints the problems of the configuration, each on a line. Nothing else is printed by then.
fn print_problems(problems: &ConfigProblems) {
    let mut stderr = io::stderr().lock();
    for problem in problems.sorted() {
        // If nobody reads them, the exit code tells.
        let _ = writeln!(stderr, "{problem}");
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
async fn run_command(command: &Command) -> ExitCode {
    let code = match command {
        Command::Check(options) => return check(options),
        Command::Diagnose(options) => diagnose::run(options).await,
        Command::Token(tool) => token::run(tool).await,
        Command::Tail(options) => terminal::tail(options).await,
        Command::Publish(options) => terminal::publish(options).await,
        Command::Topics(options) => terminal::list_topics(options).await,
        Command::Health(options) => terminal::check_health(options).await,
        Command::Backup(options) => terminal::back_up(options).await,
        Command::Restore(options) => terminal::restore(options).await,
        Command::Completions(options) => terminal::print_completions(options, Options::command()),
        Command::Man(options) => terminal::write_manual(options, Options::command()),
    };
    code.into()
}

#[tokio::main]
async fn start_and_run(
    loaded: LoadedOptions,
    sockets: &InheritedSockets,
    output: &Output,
) -> Ending {
    let options = &loaded.options;
    let max_connections = max_connections(options.settings().streams.total);
    // A start in the same process, which systemd takes for one that serves, may take minutes.
    let starting = service_manager::keep_alive(|| Ok("starting".to_owned()));
    let starting = AbortOnDropHandle::new(tokio::spawn(starting));
    let started = start(options, sockets).await;
    drop(starting);
    let started = match started {
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
    match run(started, max_connections, loaded, output).await {
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
    /// `true` if a service manager holds the listening sockets.
    is_backlog_kept: bool,
    tls: Option<Tls>,
    state: AppState,
    /// The state of the node, if it is one of a cluster.
    node: Option<NodeStatus>,
    /// The tracer, if there is a collector.
    #[cfg(feature = "otlp")]
    traces: Option<Traces>,
}

type NodeStatus = watch::Receiver<ClusterStatus>;

async fn start(options: &Options, sockets: &InheritedSockets) -> Result<Started, Box<dyn Error>> {
    let mut leptos = leptos::config::get_configuration(None)?.leptos_options;
    leptos.site_root = site_root(leptos.site_root);
    let listeners = listeners(options, sockets, leptos.site_addr)?;
    let address = listeners.first().map_or(Ok(leptos.site_addr), TcpListener::local_addr)?;
    let (access, tls) = (options.access()?, options.tls()?);
    let (hub, node) = match options.cluster.nats() {
        Some(nats) => node(options, address, nats).await?,
        None => (hub(options)?, None),
    };
    #[cfg_attr(not(feature = "otlp"), expect(unused_mut, reason = "only traces change it"))]
    let mut state = match options.config {
        Some(_) => AppState::reloadable(hub, access, options.settings(), leptos),
        None => AppState::new(hub, access, options.settings(), leptos),
    };
    #[cfg(feature = "otlp")]
    let traces = options.otlp_endpoint.as_ref().map(Traces::start).transpose()?;
    #[cfg(feature = "otlp")]
    if let Some(traces) = &traces {
        state.events = state.events.with_traces(traces.hook());
    }
    Ok(Started {
        listeners,
        is_backlog_kept: !sockets.is_empty(),
        tls,
        state,
        node,
        #[cfg(feature = "otlp")]
        traces,
    })
}

/// Takes the sockets of the service manager. Without any, listens on the addresses of the options.
fn listeners(
    options: &Options,
    sockets: &InheritedSockets,
    default: SocketAddr,
) -> Result<Vec<TcpListener>, Box<dyn Error>> {
    if !sockets.is_empty() {
        tracing::info!("the sockets of the service manager replace --listen");
        return Ok(sockets.listeners()?);
    }
    let mut listeners = Vec::new();
    for address in options.listen(default) {
        let listener = listen(address);
        listeners.push(listener.map_err(|error| format!("cannot listen on {address}: {error}"))?);
    }
    Ok(listeners)
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
    let settings = options.cluster.node(options.retention_in(&options.data_dir), address);
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
    let retention = options.retention_in(&options.data_dir);
    Ok(match options.store {
        Store::File => {
            let log = SqliteLog::open(&options.data_dir, retention, Timestamp::now)?;
            Hub::new(log, Timestamp::now)
        }
        Store::Memory => Hub::new(MemoryLog::new(Epoch::random(), retention), Timestamp::now),
    })
}

/// Serves until a signal arrives or a part fails. The shutdown ends within the drain time, or at a
/// second SIGTERM or SIGINT.
async fn run(
    started: Started,
    max_connections: usize,
    loaded: LoadedOptions,
    output: &Output,
) -> Result<Ending, Box<dyn Error>> {
    let Started { listeners, is_backlog_kept, tls, state, node, .. } = started;
    let (drain, is_self_signed) = (loaded.options.drain, loaded.options.tls_self_signed);
    let has_file = loaded.options.config.is_some();
    let mut signals = StopSignals::listen(has_file)?;
    let options = &loaded.options;
    let serving = Serving {
        timeouts: Timeouts { idle: options.keep_alive, ..Timeouts::default() },
        tls: tls.clone(),
        capacity: Capacity::new(max_connections, Arc::clone(&state.metrics)),
        streams: state.events.streams(),
        metrics: Arc::clone(&state.metrics),
        stop: state.stop.clone(),
        is_direct: !options.no_direct_path,
        is_backlog_kept,
    };
    let (hub, interval) = (Arc::clone(&state.hub), options.interval);
    let publishing = Arc::clone(&hub);
    if let Some(tokens) = &state.access.load().tokens {
        tokens.start();
    }
    let (responder, access) = reloadable_responder(state);
    if let Some(hangup) = signals.hangup() {
        let arguments = std::env::args_os().collect();
        let reload = ConfigReload::new(arguments, loaded, access, output.clone());
        tokio::spawn(reload_at(hangup, reload));
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let fingerprint = tls.as_ref().map(Tls::fingerprint);
    if let Some(tls) = tls {
        let file = tls.file().display();
        if fingerprint.as_deref() != Some("") {
            tracing::info!(%file, fingerprint, "certificate");
        }
        tls.watch(Arc::clone(&serving.metrics));
    }
    let mut servers = JoinSet::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        servers.spawn(serve(listener, Arc::clone(&responder), serving.clone()));
        output.print(format_args!("listening on {scheme}://{address}"));
    }
    if let Some(fingerprint) = fingerprint.filter(|_| is_self_signed) {
        // Last, for programs that read no further than the addresses.
        output.print(format_args!("the certificate's SHA-256 fingerprint: {fingerprint}"));
    }
    let (writing, streams, stop) =
        (Arc::clone(&hub), serving.streams.clone(), serving.stop.clone());
    let health = move || {
        if is_stuck(&writing) {
            return Err("the event log's writer");
        }
        let what = if stop.has_begun() { "saying goodbye to" } else { "serving" };
        Ok(format!("{what} {} streams", streams.count()))
    };
    service_manager::ready("serving");
    let _keep_alive = AbortOnDropHandle::new(tokio::spawn(service_manager::keep_alive(health)));
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
    let is_restart = matches!(ending, Ending::Restart);
    let status = format!("saying goodbye to {} streams", serving.streams.count());
    if is_restart && !is_backlog_kept {
        // The same process will serve again.
        service_manager::status(&status);
    } else {
        service_manager::stopping(&status);
    }
    serving.stop.begin();
    let stopped = async {
        if is_restart {
            signals.first().await;
        } else {
            signals.second().await;
        }
    };
    tokio::select! {
        _ = servers.join_all() => {}
        () = tokio::time::sleep(drain) => {
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

/// Reloads the configuration at each SIGHUP.
async fn reload_at(mut hangup: Signal, mut reload: ConfigReload) {
    while hangup.recv().await.is_some() {
        // A message may wait for the manager.
        let _ = task::spawn_blocking(|| service_manager::reloading("reloading")).await;
        reload.run().await;
        let _ = task::spawn_blocking(|| service_manager::ready("serving")).await;
    }
}

/// Returns `true` if the writer has been busy with one append for too long, and the event log knows
/// no reason for that.
fn is_stuck(hub: &Hub) -> bool {
    let is_slow = hub.append_since().is_some_and(|since| since.elapsed() > MAX_APPEND);
    is_slow && hub.condition().append_error.is_none()
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
