//! The cases: what is measured, how, and with which target.
//!
//! # Layout
//!
//! | module | contents |
//! |---|---|
//! | `delivery` | events at a fixed rate to many subscribers: CPU time and latency |
//! | `memory` | idle subscribers, without and with TLS |
//! | `growth` | costs by the number of subscribers, patterns and topics |
//! | `publishing` | durable publishes |
//! | `replaying` | subscribers that are behind, and events that arrive all at once |
//! | `neighbours` | the costs that one client causes for others |
//! | `nodes` | a cluster next to a single process |
//! | `failures` | failures in a cluster, as a browser sees them |
//! | `setup` | the servers of the cases, the runs, and their medians |

mod delivery;
mod failures;
mod growth;
mod memory;
mod neighbours;
mod nodes;
mod publishing;
mod replaying;
mod setup;

use std::{
    net::{TcpStream, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use crate::{
    cluster,
    load::Endpoint,
    options::{Against, BenchOptions, RunLength, Url},
    process::{self, ServerKind},
    table::BenchTable,
};
use nodes::{ClusterSetup, Extent};
use setup::{RUNS, Setup, Site};

/// The longest time until another server accepts the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A case by name. `S` has the servers that it measures.
struct Case<S> {
    name: &'static str,
    about: &'static str,
    measure: fn(&S, &mut BenchTable),
}

/// The delivery case that only Waterclock has.
const GATHERED: &str = "delivery-gathered";

const fn case<S>(
    name: &'static str,
    about: &'static str,
    measure: fn(&S, &mut BenchTable),
) -> Case<S> {
    Case { name, about, measure }
}

const CASES: [Case<Setup>; 20] = [
    case("delivery-1000", "1,000 subscribers, 10 events/s", |setup, table| {
        delivery::measure(setup, table, "1,000 subscribers, 10 events/s", 1000, 10.0, 100);
    }),
    case("delivery-5000", "5,000 subscribers, 10 events/s", |setup, table| {
        delivery::measure(setup, table, "5,000 subscribers, 10 events/s", 5000, 10.0, 100);
    }),
    case("delivery-fast", "1,000 subscribers, 100 events/s", |setup, table| {
        delivery::measure(setup, table, "1,000 subscribers, 100 events/s", 1000, 100.0, 100);
    }),
    case("delivery-8k", "1,000 subscribers, 10 events/s of 8 KiB", |setup, table| {
        delivery::measure(setup, table, "1,000 subscribers, 10/s of 8 KiB", 1000, 10.0, 8192);
    }),
    case(GATHERED, "1,000 subscribers, 1,000 events/s, with max_delay=20", delivery::gathered),
    case("http2", "100 subscribers on each HTTP/2 connection", delivery::http2),
    case("memory", "memory per idle subscriber", memory::idle),
    case("tls-http1", "one stream per TLS connection, HTTP/1.1", memory::tls_http1),
    case("tls-http2", "one stream per TLS connection, HTTP/2", memory::tls_http2),
    case("growth-subscribers", "100 to 15,000 subscribers", growth::subscribers),
    case("growth-patterns", "1 to 64,000 wildcard patterns", growth::patterns),
    case("growth-topics", "1 to 10,000 topics", growth::topics),
    case("publish-single", "one event per request, 64 connections", publishing::single),
    case("publish-batches", "many events per request", publishing::batches),
    case("publish-alone", "one publisher at a low rate", publishing::alone),
    case("replay", "a subscriber far behind", replaying::replay),
    case("storm", "5,000 subscribers reconnect at once", replaying::storm),
    case("burst", "100 events at once to 1,000 subscribers", replaying::burst),
    case("neighbours-stalled", "subscribers that do not read", neighbours::stalled),
    case("neighbours-reading", "replays and polls with many patterns", neighbours::reading),
];

/// The cases of a cluster.
const CLUSTER_CASES: [Case<ClusterSetup>; 5] = [
    case("publish", "durable publishes", nodes::publishing),
    case("delivery", "1,000 subscribers of one node", nodes::delivery),
    case("idle", "nodes with nothing but the clock", nodes::idling),
    case("arrival", "from a publish on one node to a reader of another", nodes::arrival),
    case("failures", "kill -9, as a page in a browser sees it", failures::page),
];

/// Prints the names of the cases.
pub fn list() {
    CASES.iter().for_each(Case::print);
    println!("\nWith --cluster:");
    CLUSTER_CASES.iter().for_each(Case::print);
}

impl<S> Case<S> {
    fn print(&self) {
        println!("{:<20} {}", self.name, self.about);
    }
}

/// Runs the chosen cases, and prints their table. Returns `true` if no target is missed by more
/// than a tenth, or an error if the options name something that does not exist.
pub fn measure(options: &BenchOptions) -> Result<bool, String> {
    if let Some(extent) = options.cluster {
        return measure_cluster(options, extent);
    }
    let cases = select(&CASES, &names(options)?)?;
    let program = options.program.clone();
    let other = options.against.as_deref().map(site).transpose()?;
    let servers = if other.is_some() {
        vec!["raw loop", "measured"]
    } else {
        check(&program)?;
        vec!["raw loop", "axum", "Waterclock"]
    };
    println!("The server has one core, the load another. Medians of {RUNS} runs.");
    let (setup, mut table) = (Setup { program, other }, BenchTable::new(&servers));
    for case in cases {
        if setup.other.is_none() || case.name != GATHERED {
            (case.measure)(&setup, &mut table);
        }
    }
    Ok(table.finish())
}

/// Does the same for the cases of a cluster.
fn measure_cluster(options: &BenchOptions, length: RunLength) -> Result<bool, String> {
    let cases = select(&CLUSTER_CASES, &options.cases)?;
    check(&options.program)?;
    let nats_server = cluster::nats_server();
    if !cluster::runs(&nats_server, "--version") {
        let name = nats_server.display();
        return Err(format!("{name} cannot be run; NATS_SERVER names the program of NATS"));
    }
    let extent = match length {
        RunLength::Full => Extent::FULL,
        RunLength::Short => Extent::SHORT,
    };
    println!("The nodes share one core. The servers of NATS and the load have the others.");
    println!("Medians of {} runs.", extent.runs);
    let setup = Setup { program: options.program.clone(), other: None };
    let bench = ClusterSetup { setup, extent };
    let mut table = BenchTable::new(&["one process", "cluster"]);
    for case in cases {
        (case.measure)(&bench, &mut table);
    }
    // A short run does not tell of targets.
    Ok(table.finish() || length == RunLength::Short)
}

/// Returns an error unless the program of the server exists.
fn check(program: &str) -> Result<(), String> {
    if Path::new(program).is_file() {
        return Ok(());
    }
    Err(format!("{program} is not a file; --program names the server's program"))
}

/// Returns the names of the cases to run. Another server has only some of them.
fn names(options: &BenchOptions) -> Result<Vec<String>, String> {
    let Some(against) = &options.against else { return Ok(options.cases.clone()) };
    let has_pid = !against.pids.is_empty();
    if options.cases.is_empty() {
        let names = if has_pid { &["delivery", "memory"][..] } else { &["delivery"] };
        return Ok(names.iter().map(|name| (*name).to_owned()).collect());
    }
    let has = |name: &str| name != GATHERED && (is_named("delivery", name) || name == "memory");
    match options.cases.iter().find(|name| !has(name)) {
        Some(name) => Err(format!("{name} cannot run with --against, only delivery and memory")),
        None if !has_pid && options.cases.iter().any(|name| name == "memory") => {
            Err("memory needs --pid".to_owned())
        }
        None => Ok(options.cases.clone()),
    }
}

/// Returns the cases with one of the names, or all of them if there is no name.
fn select<'a, S>(cases: &'a [Case<S>], names: &[String]) -> Result<Vec<&'a Case<S>>, String> {
    for name in names {
        if !cases.iter().any(|case| is_named(name, case.name)) {
            return Err(format!("there is no case {name}; --list names them"));
        }
    }
    let is_chosen = |case: &&Case<S>| names.iter().any(|name| is_named(name, case.name));
    Ok(cases.iter().filter(|case| names.is_empty() || is_chosen(case)).collect())
}

/// Returns `true` if `name` is `full`, or its words up to a hyphen.
fn is_named(name: &str, full: &str) -> bool {
    full.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Describes another server. Returns an error unless it accepts a subscriber and publishers, and
/// its processes exist.
fn site(against: &Against) -> Result<Site, String> {
    let endpoint = |url: &Url| {
        let authority = &url.authority;
        let mut addresses =
            authority.to_socket_addrs().map_err(|error| format!("{authority}: {error}"))?;
        let address = addresses
            .find(|address| TcpStream::connect_timeout(address, CONNECT_TIMEOUT).is_ok())
            .ok_or_else(|| format!("{authority} accepts no connection"))?;
        let mut fields = format!("Host: {authority}\r\n");
        for header in &against.headers {
            fields.extend([header, "\r\n"]);
        }
        Ok::<_, String>(Endpoint::plain(address, fields))
    };
    if let Some(pid) = against.pids.iter().find(|pid| !process::is_readable(**pid)) {
        return Err(format!("the memory of process {pid} cannot be read"));
    }
    let subscribe = endpoint(&against.subscribe)?;
    subscribe.check_subscription(&against.subscribe.path)?;
    Ok(Site {
        subscribe,
        publish: endpoint(&against.publish)?,
        path: against.subscribe.path.clone(),
        form: against.form.clone(),
        pids: against.pids.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::CommandLine;

    fn selected(names: &[&str]) -> Vec<&'static str> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        select(&CASES, &names).unwrap_or_default().iter().map(|case| case.name).collect()
    }

    #[test]
    fn a_case_is_chosen_by_its_name_or_the_beginning_of_it() {
        assert_eq!(selected(&["delivery-8k"]), ["delivery-8k"]);
        assert_eq!(selected(&["delivery"]).len(), 5);
        assert_eq!(selected(&["storm", "memory"]), ["memory", "storm"]);
        assert_eq!(selected(&[]).len(), CASES.len());
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        for name in ["deliver", "delivery-", "nothing"] {
            assert!(select(&CASES, &[name.to_owned()]).is_err(), "{name}");
        }
        assert!(select(&CLUSTER_CASES, &["storm".to_owned()]).is_err());
    }

    #[test]
    fn another_server_has_only_delivery_and_memory() {
        let of = |text: &str| {
            let words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            match CommandLine::parse(&words) {
                Ok(CommandLine::Measure(options)) => names(&options),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of("--against http://h"), Ok(vec!["delivery".to_owned()]));
        assert_eq!(of("--against http://h --pid 1").map(|names| names.len()), Ok(2));
        assert_eq!(of("--against http://h delivery-8k"), Ok(vec!["delivery-8k".to_owned()]));
        assert!(of("--against http://h storm").is_err());
        assert!(of("--against http://h delivery-gathered").is_err());
        assert!(of("--against http://h memory").is_err());
    }
}
