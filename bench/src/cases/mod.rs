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
//! | `setup` | the servers of the cases, the runs, and their medians |

mod delivery;
mod growth;
mod memory;
mod neighbours;
mod publishing;
mod replaying;
mod setup;

use std::{
    net::{TcpStream, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use crate::{
    load::Endpoint,
    options::{Against, BenchOptions, Url},
    process::{self, ServerKind},
    table::BenchTable,
};
use setup::{RUNS, Setup, Site};

/// The longest time until another server accepts the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A case by name.
struct Case {
    name: &'static str,
    about: &'static str,
    measure: fn(&Setup, &mut BenchTable),
}

/// The delivery case that only Waterclock has.
const GATHERED: &str = "delivery-gathered";

const fn case(
    name: &'static str,
    about: &'static str,
    measure: fn(&Setup, &mut BenchTable),
) -> Case {
    Case { name, about, measure }
}

const CASES: [Case; 20] = [
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

/// Prints the names of the cases.
pub fn list() {
    for Case { name, about, .. } in &CASES {
        println!("{name:<20} {about}");
    }
}

/// Runs the chosen cases, and prints their table. Returns `true` if no target is missed by more
/// than a tenth, or an error if the options name something that does not exist.
pub fn measure(options: &BenchOptions) -> Result<bool, String> {
    let cases = select(&names(options)?)?;
    let program = options.program.clone();
    let other = options.against.as_deref().map(site).transpose()?;
    let servers = match other {
        Some(_) => vec!["raw loop", "measured"],
        None if !Path::new(&program).is_file() => {
            return Err(format!("{program} is not a file; --program names the server's program"));
        }
        None => vec!["raw loop", "axum", "Waterclock"],
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
fn select(names: &[String]) -> Result<Vec<&'static Case>, String> {
    for name in names {
        if !CASES.iter().any(|case| is_named(name, case.name)) {
            return Err(format!("there is no case {name}; --list names them"));
        }
    }
    let is_chosen = |case: &&Case| names.iter().any(|name| is_named(name, case.name));
    Ok(CASES.iter().filter(|case| names.is_empty() || is_chosen(case)).collect())
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
        select(&names).unwrap_or_default().iter().map(|case| case.name).collect()
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
            assert!(select(&[name.to_owned()]).is_err(), "{name}");
        }
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
