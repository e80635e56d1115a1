//! The program's options. Each is a flag, an environment variable, and a name in the configuration
//! file.

mod acme;
mod check;
mod cluster;
#[cfg(test)]
mod config_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    env,
    error::Error,
    ffi::{OsStr, OsString},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use acme::AcmeOptions;
pub use check::CheckArguments;
use clap::{
    CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum, error::ErrorKind,
};
pub use cluster::ClusterOptions;
use waterclock::{
    event_log::{Retention, RetentionRule, volume_bytes},
    pattern::Pattern,
};
use waterclock_axum::{PublishRate, Settings, StreamLimits};

use crate::{
    auth::{
        Access, AllowedHost, CorsOrigin, IssuerSettings, JwksPlace, TokenVerifier, TrustedProxy,
    },
    config::{
        self, ConfigFile, ConfigIssuer, ConfigProblems, ConfigRule, ConfigSources, RuleRetention,
        age, bytes,
    },
    diagnose::Diagnose,
    net::tls::Tls,
    ops::output::{LogLevel, OutputFormat},
    terminal::{Backup, Completions, Health, Manual, Publish, Restore, Tail, TopicList},
    token::TokenTool,
};

/// Default of `--keep-alive`. Load balancers send a request on a connection that they believe to be
/// open, so their own time must be shorter. It is 60 s in most.
const KEEP_ALIVE: &str = "75s";

/// Minimum of the default of `--retain-bytes`: a log of no bytes drops all events.
const MIN_DEFAULT_BYTES: usize = 1 << 20;

const AFTER_HELP: &str = "\
Examples:
  waterclock                                 serve http://127.0.0.1:3000 to this machine
  waterclock --interval 100ms --listen 127.0.0.1:0
                                             tick ten times per second, on a free port
  waterclock --listen 0.0.0.0:80 --public-topic clock
                                             serve the clock to everyone
  waterclock --cors-origin http://localhost:5173
                                             permit reading by pages of that origin
  waterclock --config clock.toml             serve as a file says
  waterclock check --config clock.toml       report everything that is wrong with the file
  waterclock diagnose https://clock.example/ measure the path to a server
  waterclock token --help                    make keys and tokens for other machines

Then read the stream: curl -N http://127.0.0.1:3000/events

Messages go to standard error. Set their level with --log-level or RUST_LOG: warn, info (the
default), debug, ...
Exit codes: 0 stopped by a signal; 1 failed while running; 2 could not start.";

/// A live-event server. It streams a clock, one timestamp per second, over Server-Sent Events, and
/// serves a page that shows it.
///
/// It serves only this machine unless options say otherwise. Each option can also be set by an
/// environment variable, or in a file (`--config`). If an option may be repeated, its variable
/// takes a comma-separated list.
#[derive(Debug, Parser)]
#[command(name = "waterclock", version, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Options {
    /// The command to run instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// File with options, in TOML: the names of the flags without dashes, and rules for topics.
    /// Variables and flags take precedence. SIGHUP reloads it
    #[arg(long, env = "WATERCLOCK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Address and port to serve on; port 0 picks a free one. May be repeated
    /// [default: 127.0.0.1:3000]
    #[arg(long, env = "WATERCLOCK_LISTEN", value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    listen: Vec<SocketAddr>,

    /// Interval of the clock's ticks, such as 100ms, 2s or 1m
    #[arg(long, env = "WATERCLOCK_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = duration)]
    pub interval: Duration,

    /// Time without an event after which a stream sends a heartbeat
    #[arg(long, env = "WATERCLOCK_HEARTBEAT", value_name = "TIME", default_value = "15s", value_parser = duration)]
    heartbeat: Duration,

    /// Time that clients are told to wait before they reconnect
    #[arg(long, env = "WATERCLOCK_RETRY", value_name = "TIME", default_value = "2s", value_parser = duration)]
    retry: Duration,

    /// Store of the event log: a file, which survives a restart, or memory
    #[arg(long, env = "WATERCLOCK_STORE", value_name = "STORE", default_value = "file")]
    pub store: Store,

    /// Folder of the event log's file; created if it is missing
    #[arg(long, env = "WATERCLOCK_DATA_DIR", value_name = "FOLDER", default_value = "data")]
    pub data_dir: PathBuf,

    /// Maximum number of events kept per topic; for the clock, at most 3,600
    #[arg(long, env = "WATERCLOCK_RETAIN_COUNT", value_name = "COUNT", default_value_t = 100_000)]
    retain_count: usize,

    /// Maximum age of events
    #[arg(long, env = "WATERCLOCK_RETAIN_AGE", value_name = "TIME", default_value = "24h", value_parser = age)]
    retain_age: Duration,

    /// Approximate maximum size of all events, such as 64MiB or 1GiB
    /// [default: 1GiB, or half of a smaller volume]
    #[arg(long, env = "WATERCLOCK_RETAIN_BYTES", value_name = "BYTES", value_parser = bytes)]
    retain_bytes: Option<usize>,

    /// Maximum number of topics that have events; events of further topics are refused
    #[arg(long, env = "WATERCLOCK_MAX_TOPICS", value_name = "COUNT", default_value_t = 10_000)]
    max_topics: usize,

    /// Maximum publishes per second per client address. Further ones get 429, and the parts of
    /// a split body wait. Local publishes without a token are not limited
    #[arg(long, env = "WATERCLOCK_MAX_PUBLISHES", value_name = "COUNT", default_value = "1000")]
    max_publishes: NonZeroU32,

    /// Maximum number of open streams and waiting polls; further clients are told to come back
    /// later
    #[arg(long, env = "WATERCLOCK_MAX_STREAMS", value_name = "COUNT", default_value_t = 10_000)]
    max_streams: usize,

    /// Maximum number of open streams per client address (for IPv6, per /64). Behind a proxy that
    /// is not trusted, all clients have the proxy's address
    #[arg(
        long,
        env = "WATERCLOCK_MAX_STREAMS_PER_ADDRESS",
        value_name = "COUNT",
        default_value_t = 1000
    )]
    max_streams_per_address: usize,

    /// A topic that anyone may read, or a pattern of topics: `*` matches one token, a final `>` all
    /// remaining tokens. May be repeated
    #[arg(long, env = "WATERCLOCK_PUBLIC_TOPIC", value_name = "PATTERN", value_delimiter = ',')]
    public_topic: Vec<Pattern>,

    /// An origin whose pages may read like the server's own, such as `https://example.org`; `*` for
    /// all. May be repeated
    #[arg(long, env = "WATERCLOCK_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<CorsOrigin>,

    /// A further host name, in addition to localhost, by which this machine may call the server.
    /// May be repeated
    #[arg(long, env = "WATERCLOCK_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    allowed_host: Vec<AllowedHost>,

    /// A proxy, or a network of proxies such as 10.0.0.0/8, whose `Forwarded` or `X-Forwarded-For`
    /// is trusted for client addresses. May be repeated
    #[arg(long, env = "WATERCLOCK_TRUSTED_PROXY", value_name = "ADDRESS", value_delimiter = ',')]
    trusted_proxy: Vec<TrustedProxy>,

    /// File with the secret for tokens (JSON Web Tokens) signed with HS256. Read again when it
    /// changes. May be repeated
    #[arg(long, env = "WATERCLOCK_JWT_SECRET_FILE", value_name = "FILE", value_delimiter = ',')]
    jwt_secret_file: Vec<PathBuf>,

    /// File with public keys, in PEM, for tokens signed with RS256, EdDSA, ES256 or ES384. Read
    /// again when it changes. May be repeated
    #[arg(
        long,
        env = "WATERCLOCK_JWT_PUBLIC_KEY_FILE",
        value_name = "FILE",
        value_delimiter = ','
    )]
    jwt_public_key_file: Vec<PathBuf>,

    /// JSON Web Key Set with public keys for tokens: a file, or the https URL of an issuer. The
    /// server fetches it again when its keys change. May be repeated
    #[arg(long, env = "WATERCLOCK_JWT_JWKS", value_name = "URL_OR_FILE", value_delimiter = ',')]
    jwt_jwks: Vec<JwksPlace>,

    /// Issuer that tokens must name in `iss`. Without this option, they may name any
    #[arg(long, env = "WATERCLOCK_JWT_ISSUER", value_name = "ISSUER")]
    jwt_issuer: Option<String>,

    /// Audience that tokens must name in `aud`. Without this option, tokens with an `aud` are
    /// refused
    #[arg(long, env = "WATERCLOCK_JWT_AUDIENCE", value_name = "AUDIENCE")]
    jwt_audience: Option<String>,

    /// Issuers of tokens, in addition to the one of the options above.
    #[arg(skip)]
    issuers: Vec<ConfigIssuer>,

    /// Require a token from this machine, too
    #[arg(long, env = "WATERCLOCK_REQUIRE_TOKEN")]
    require_token: bool,

    /// File with the certificate chain, in PEM: serve https, with HTTP/2. Reloaded when it changes
    #[arg(long, env = "WATERCLOCK_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// File with the certificate's private key, in PEM
    #[arg(long, env = "WATERCLOCK_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Serve https with a self-signed certificate for this machine's names and those of
    /// `--allowed-host`, which is kept in the data folder. Browsers warn about it
    #[arg(long, env = "WATERCLOCK_TLS_SELF_SIGNED", conflicts_with_all = ["tls_cert", "tls_key"])]
    pub tls_self_signed: bool,

    /// The options of certificates by ACME.
    #[command(flatten)]
    pub acme: AcmeOptions,

    /// Time that an idle connection stays open for its next request. It should be longer than that
    /// of a load balancer in front, which is 60s in most
    #[arg(long, env = "WATERCLOCK_KEEP_ALIVE", value_name = "TIME", default_value = KEEP_ALIVE, value_parser = duration)]
    pub keep_alive: Duration,

    /// Write event streams over HTTP/1.1 by the HTTP library, as all other responses are. It takes
    /// more memory and time, and is for comparison
    #[arg(long, env = "WATERCLOCK_NO_DIRECT_PATH")]
    pub no_direct_path: bool,

    /// Maximum duration of a shutdown. Streams are told to reconnect, spread over that time if
    /// there are many; a second SIGTERM or SIGINT stops at once
    #[arg(long, env = "WATERCLOCK_DRAIN", value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub drain: Duration,

    /// Time after which an upload with `end` that broke off ends its topic as failed, unless
    /// another one continues
    #[arg(long, env = "WATERCLOCK_END_GRACE", value_name = "TIME", default_value = "10s", value_parser = duration)]
    end_grace: Duration,

    /// Format of the messages on standard error
    #[arg(long, env = "WATERCLOCK_LOG", value_name = "FORMAT", default_value = "text")]
    pub log: OutputFormat,

    /// Level of the messages: warn, info, debug, or a list such as `info,hyper=debug`. `RUST_LOG`
    /// takes precedence [default: info]
    #[arg(long, env = "WATERCLOCK_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    /// OTLP endpoint of a collector that gets traces of publishes, such as
    /// `http://127.0.0.1:4318`. The variables of OpenTelemetry apply, such as `OTEL_TRACES_SAMPLER`
    #[cfg(feature = "otlp")]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = endpoint)]
    pub otlp_endpoint: Option<reqwest::Url>,

    /// The rules of the configuration file.
    #[arg(skip)]
    rules: Vec<ConfigRule>,

    /// The options of a node of a cluster.
    #[command(flatten)]
    pub cluster: ClusterOptions,
}

/// The command to run instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the path to an event server, and report its faults and their remedies
    Diagnose(Diagnose),
    /// Check the configuration file and the environment, and report all problems
    Check(CheckArguments),
    /// Print events as they arrive, and resume exactly after a cut
    Tail(Tail),
    /// Publish an event, or each line of the input, or end a topic
    Publish(Publish),
    /// List the topics and their readers
    Topics(TopicList),
    /// Check that a server is ready, for programs that watch it
    Health(Health),
    /// Copy the event log to a file, also while the server runs
    Backup(Backup),
    /// Put a backup in the place of the event log
    Restore(Restore),
    /// Print the completions of a shell
    Completions(Completions),
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man(Manual),
    /// Make keys and tokens, and explain tokens
    Token(TokenTool),
}

/// The store of the event log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// A file in `--data-dir`.
    File,
    /// Memory only. Events are gone when the program ends.
    Memory,
}

impl Options {
    /// Reads the program's arguments, including its name, the environment, and the configuration
    /// file if one of them names it.
    ///
    /// # Errors
    ///
    /// If they are not valid, or ask for help.
    pub fn load(arguments: Vec<OsString>) -> Result<LoadedOptions, OptionsError> {
        let command = Self::command_for(&arguments);
        // Errors of the command line itself come first. Those of variables come with the file's.
        let alone = command.clone().mut_args(|arg| arg.env(None));
        let alone = alone.try_get_matches_from(&arguments);
        let is_incomplete = |error: &clap::Error| {
            matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict)
        };
        let path = match &alone {
            Ok(matches) if matches.subcommand_name().is_some() => None,
            Err(error) if !is_incomplete(error) => None,
            _ => config_path(&arguments),
        };
        let Some(path) = path else {
            let options = Self::read(arguments.clone())?;
            return Ok(LoadedOptions {
                options,
                arguments,
                file: ConfigFile::default(),
                problems: ConfigProblems::default(),
            });
        };
        let mut problems = ConfigProblems::of_file(&path);
        let file = ConfigFile::read(&path, &mut problems);
        let sources = ConfigSources { command: &command, arguments: &arguments, file: &file };
        let merged = sources.merge(&mut problems);
        let rules = config::rules(&file, &mut problems);
        let issuers = config::issuers(&file, &mut problems);
        match Self::read(merged.clone()) {
            Ok(mut options) => {
                (options.rules, options.issuers) = (rules, issuers);
                if problems.has_errors() {
                    return Err(OptionsError::Config(problems));
                }
                Ok(LoadedOptions { options, arguments: merged, file, problems })
            }
            Err(_) if problems.has_errors() => Err(OptionsError::Config(problems)),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the program's arguments, including its name, and the environment.
    ///
    /// # Errors
    ///
    /// If they are not valid, or ask for help.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let mut command = Self::command_for(&arguments);
        let matches = command.try_get_matches_from_mut(arguments)?;
        if let Some(name) = matches.subcommand_name().filter(|_| matches.args_present()) {
            let message = format!(
                "options of the server cannot be used with '{name}'; its own options must follow it, see \
                 'waterclock {name} --help'"
            );
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }

    /// The retention of the topics of rules, in the order of the rules. Each setting comes from the
    /// first rule that matches a topic and has it.
    pub fn topic_retention(&self) -> impl Iterator<Item = (&Pattern, RuleRetention)> {
        self.rules
            .iter()
            .flat_map(|rule| rule.access.topics.iter().map(|topics| (topics, rule.retention)))
    }

    /// Returns the parser of a command line, without the variables that do not count for it.
    fn command_for(arguments: &[OsString]) -> clap::Command {
        let command = Self::command();
        let is_serving =
            arguments.get(1).is_none_or(|name| command.find_subcommand(name).is_none());
        // The environment is for serving. An empty variable counts as not set, as in other
        // programs.
        let is_used =
            |name: &OsStr| is_serving && env::var_os(name).is_none_or(|value| !value.is_empty());
        let command = command.mut_args(|arg| match arg.get_env() {
            Some(name) if !is_used(name) => arg.env(None),
            _ => arg,
        });
        command.mut_subcommands(|subcommand| {
            subcommand.mut_args(|arg| match arg.get_env() {
                Some(name) if env::var_os(name).is_some_and(|value| value.is_empty()) => {
                    arg.env(None)
                }
                _ => arg,
            })
        })
    }

    /// The addresses to listen on, or else `default`.
    pub fn listen(&self, default: SocketAddr) -> Vec<SocketAddr> {
        if self.listen.is_empty() { vec![default] } else { self.listen.clone() }
    }

    /// The retention of the event log on a volume of so many bytes. Unless the options say
    /// otherwise, the log takes at most half of the volume: its journal needs room, too.
    pub fn retention(&self, volume: u64) -> Retention {
        let clock_count = Retention::default().clock_count.min(self.retain_count);
        let half = usize::try_from(volume / 2).unwrap_or(usize::MAX).max(MIN_DEFAULT_BYTES);
        let bytes = self.retain_bytes.unwrap_or(Retention::default().bytes.min(half));
        Retention {
            count: self.retain_count,
            clock_count,
            age: self.retain_age,
            bytes,
            // The clock has a topic of its own in addition.
            topics: self.max_topics.saturating_add(1),
            rules: self
                .topic_retention()
                .map(|(pattern, RuleRetention { count, age })| RetentionRule {
                    pattern: pattern.clone(),
                    count,
                    age,
                })
                .collect(),
        }
    }

    /// The retention of this node's event log, on the volume of `folder`. Prints if the volume is
    /// small. The nodes of a cluster keep the same, whatever the sizes of their volumes.
    pub fn retention_in(&self, folder: &Path) -> Retention {
        let volume = self.volume(folder).unwrap_or_else(|error| {
            tracing::warn!(%error, "the size of the event log's volume is unknown");
            u64::MAX
        });
        let retention = self.retention(volume);
        let bytes = retention.bytes;
        if bytes as u64 > volume - volume / 8 {
            tracing::warn!(
                bytes,
                volume,
                "--retain-bytes does not fit on the volume of the data folder"
            );
        } else if bytes < self.retention(u64::MAX).bytes {
            tracing::warn!(
                bytes,
                volume,
                "the volume of the data folder is small: the event log keeps half of it"
            );
        }
        retention
    }

    /// The place of the event log, which no reload changes.
    pub(crate) fn place(&self) -> LogPlace {
        LogPlace {
            store: self.store,
            data_dir: self.data_dir.clone(),
            cluster: self.cluster.clone(),
        }
    }

    /// Sets the place of the event log.
    pub(crate) fn set_place(&mut self, place: LogPlace) {
        let LogPlace { store, data_dir, cluster } = place;
        (self.store, self.data_dir, self.cluster) = (store, data_dir, cluster);
    }

    /// The size of the volume that counts for this node's event log.
    pub(crate) fn volume(&self, folder: &Path) -> io::Result<u64> {
        let is_own = self.store == Store::File && self.cluster.nats().is_none();
        if is_own { volume_bytes(folder) } else { Ok(u64::MAX) }
    }

    /// The certificate, if TLS is to be served.
    ///
    /// # Errors
    ///
    /// If one of its files cannot be used.
    pub fn tls(&self) -> Result<Option<Tls>, Box<dyn Error>> {
        if let (Some(certificate), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return Ok(Some(Tls::from_files(certificate, key)?));
        }
        if let Some(tls) = self.tls_of_authority()? {
            return Ok(Some(tls));
        }
        if !self.tls_self_signed {
            return Ok(None);
        }
        let addresses = self.listen.iter().map(SocketAddr::ip);
        let addresses = addresses.filter(|address| !address.is_unspecified());
        let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let addresses: BTreeSet<IpAddr> = addresses.chain(local).collect();
        let hosts = self.allowed_host.iter().map(ToString::to_string);
        // As in a URL, an IPv6 address has brackets.
        let hosts = hosts.map(|host| host.trim_matches(['[', ']']).to_owned());
        let addresses = addresses.iter().map(ToString::to_string);
        let mut names = vec!["localhost".to_owned()];
        for name in hosts.chain(addresses) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Some(Tls::self_signed(&self.data_dir, &names)?))
    }

    /// The certificate of an authority, if one is to be asked. Changes nothing.
    pub(crate) fn tls_of_authority(&self) -> Result<Option<Tls>, Box<dyn Error>> {
        let settings = self.acme.settings(&self.data_dir)?;
        Ok(settings.map(Tls::acme).transpose()?)
    }

    /// The settings of the event routes.
    pub fn settings(&self) -> Settings {
        Settings {
            heartbeat: self.heartbeat,
            retry: self.retry,
            drain: self.drain,
            streams: StreamLimits {
                total: self.max_streams,
                per_address: self.max_streams_per_address,
            },
            publish_rate: self.max_publishes,
            upload_grace: self.end_grace,
            ..Settings::default()
        }
    }

    /// The rules on who may read and publish.
    ///
    /// # Errors
    ///
    /// If the key for tokens cannot be read, or is missing.
    pub fn access(&self) -> Result<Access, String> {
        Ok(self.access_with(self.tokens()?))
    }

    /// The rules on who may read and publish, with these keys for tokens.
    pub(crate) fn access_with(&self, tokens: Option<TokenVerifier>) -> Access {
        Access {
            public_topics: self.public_topic.clone().into(),
            allowed_hosts: self.allowed_host.clone().into(),
            cors_origins: self.cors_origin.clone().into(),
            tokens: tokens.map(Arc::new),
            is_token_required: self.require_token,
            trusted_proxies: self.trusted_proxy.clone().into(),
            rules: self.rules.iter().map(|rule| rule.access.clone()).collect(),
            publish_rate: Some(Arc::new(PublishRate::new(self.max_publishes))),
            revision: 0,
        }
    }

    /// The keys for tokens, if there are any.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used, or none is set where one is needed.
    pub(crate) fn tokens(&self) -> Result<Option<TokenVerifier>, String> {
        let flags = IssuerSettings {
            issuer: self.jwt_issuer.clone(),
            jwks: self.jwt_jwks.clone(),
            secret_file: self.jwt_secret_file.clone(),
            public_key_file: self.jwt_public_key_file.clone(),
            audience: self.jwt_audience.clone(),
            publish: None,
            subscribe: None,
        };
        let of_file = self.issuers.iter().map(|issuer| issuer.settings.clone());
        let mut issuers: Vec<_> = of_file.collect();
        if flags.has_keys() {
            issuers.push(flags);
        } else if flags != IssuerSettings::default() || self.require_token && issuers.is_empty() {
            let needed = "--jwt-secret-file, --jwt-public-key-file or --jwt-jwks";
            return Err(format!("tokens need {needed}"));
        }
        if issuers.is_empty() {
            return Ok(None);
        }
        // The copies of key sets are for the next start.
        let cache = (self.store == Store::File).then_some(&*self.data_dir);
        TokenVerifier::open(&issuers, cache).map(Some).map_err(|why| why.to_string())
    }
}

/// The place of an event log: a file or memory, its folder, and the cluster.
pub(crate) struct LogPlace {
    store: Store,
    data_dir: PathBuf,
    cluster: ClusterOptions,
}

/// Options from all sources.
#[derive(Debug)]
pub struct LoadedOptions {
    /// The options.
    pub options: Options,
    /// The arguments that they stand for: those of the file, and the command line.
    pub arguments: Vec<OsString>,
    /// The configuration file; an empty one if there is none.
    pub file: ConfigFile,
    /// Problems that do not keep the options from being used.
    pub problems: ConfigProblems,
}

/// Options that cannot be used.
#[derive(Debug)]
pub enum OptionsError {
    /// The command line or the environment is not valid, or asks for help.
    Usage(clap::Error),
    /// The configuration file is not valid, or does not go together with the rest.
    Config(ConfigProblems),
}

impl From<clap::Error> for OptionsError {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

/// Returns the configuration file that the command line or the environment names.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let of_environment = || env::var_os("WATERCLOCK_CONFIG").filter(|path| !path.is_empty());
    config::find_argument(arguments, "config").or_else(of_environment).map(PathBuf::from)
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "expected an address and a port, such as 127.0.0.1:3000 or [::1]:3000")
}

/// Parses a time from 5 milliseconds, the resolution of timers, to a day.
fn duration(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (Duration::from_millis(5)..=Duration::from_hours(24)).contains(time))
        .ok_or("expected a time from 5ms to 24h, such as 500ms, 2s or 1m 30s")
}

/// Parses the endpoint of a collector.
#[cfg(feature = "otlp")]
fn endpoint(text: &str) -> Result<reqwest::Url, String> {
    let url = text.parse::<reqwest::Url>().ok();
    let url = url.filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    url.ok_or_else(|| "it must be an http or https URL, such as http://127.0.0.1:4318".to_owned())
}
