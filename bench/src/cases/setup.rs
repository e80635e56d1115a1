//! The servers of a case, its runs, and their medians.

use super::ServerKind;
use crate::{
    load::{Endpoint, HttpVersion, LoadPublisher, PublishForm, SubscriberPool},
    process::{self, ServerProcess},
    table::median,
};

/// Runs of each measurement. The table has their medians.
pub const RUNS: usize = 3;
/// The path that subscribers read.
pub const EVENTS: &str = "/events?topic=t";

/// The servers that the cases measure.
pub struct Setup {
    /// The file of Waterclock's program.
    pub program: String,
    /// The running server to measure instead of Waterclock.
    pub other: Option<Site>,
}

/// The addresses, requests and processes of a server.
#[derive(Clone)]
pub struct Site {
    pub subscribe: Endpoint,
    pub publish: Endpoint,
    /// The path for subscribers.
    pub path: String,
    pub form: PublishForm,
    /// The processes whose CPU time and memory count. Empty if they are not known.
    pub pids: Vec<u32>,
}

/// A server during one run. Dropping it stops the server if it was started for that run.
pub struct Subject {
    pub site: Site,
    /// `true` if this program has started the server, and knows that it is exact.
    pub is_own: bool,
    process: Option<ServerProcess>,
}

impl Setup {
    /// Starts Waterclock.
    pub fn waterclock(&self, options: &[&str]) -> Subject {
        self.start(ServerKind::Waterclock, options)
    }

    /// Starts a server that this program knows. `options` are for Waterclock.
    pub fn start(&self, kind: ServerKind, options: &[&str]) -> Subject {
        let process = ServerProcess::start(kind, &self.program, options);
        let mut subject = Subject::running(&process);
        subject.process = Some(process);
        subject
    }

    /// Measures each of the compared servers [`RUNS`] times, in turn, and returns the results of
    /// each, with those of the measured server last.
    pub fn results<T>(&self, measure: impl Fn(&Subject) -> T) -> Vec<Vec<T>> {
        let kinds = match self.other {
            None => vec![ServerKind::Raw, ServerKind::Rival, ServerKind::Waterclock],
            Some(_) => vec![ServerKind::Raw],
        };
        let mut results: Vec<Vec<T>> = Vec::new();
        results.resize_with(kinds.len() + usize::from(self.other.is_some()), Vec::new);
        for _ in 0..RUNS {
            let own = kinds.iter().map(|kind| self.start(*kind, &[]));
            let other =
                self.other.clone().map(|site| Subject { site, is_own: false, process: None });
            for (server, results) in own.chain(other).zip(&mut results) {
                results.push(measure(&server));
            }
        }
        results
    }
}

impl Subject {
    /// Describes a server that this program has started for several runs.
    pub fn running(process: &ServerProcess) -> Self {
        let site = Site {
            subscribe: process.endpoint.clone(),
            publish: process.endpoint.clone(),
            path: EVENTS.to_owned(),
            form: PublishForm::default(),
            pids: vec![process.id()],
        };
        Self { site, is_own: true, process: None }
    }

    /// Returns the CPU time that the server has used so far, in microseconds. NaN if its processes
    /// are not known.
    pub fn cpu_time(&self) -> f64 {
        if self.site.pids.is_empty() {
            return f64::NAN;
        }
        let times = self.site.pids.iter().map(|pid| process::cpu_time(*pid).as_secs_f64());
        times.sum::<f64>() * 1e6
    }

    /// Returns the CPU time that the server needs for each of `count` steps, in microseconds.
    pub fn cost(&self, count: usize, step: impl FnMut(usize)) -> f64 {
        let before = self.cpu_time();
        (0..count).for_each(step);
        (self.cpu_time() - before) / count as f64
    }

    /// Returns the memory of the server's processes in kB (PSS).
    pub fn memory(&self) -> f64 {
        self.site.pids.iter().map(|pid| process::memory(*pid)).sum()
    }

    /// Connects a publisher.
    pub fn publisher(&self) -> LoadPublisher {
        LoadPublisher::new(&self.site.publish)
    }

    /// Creates a pool of subscribers to the usual path over HTTP/1.1.
    pub fn subscribers(&self) -> SubscriberPool {
        self.subscribers_over(HttpVersion::Http1)
    }

    /// Creates a pool of subscribers to the usual path.
    pub fn subscribers_over(&self, version: HttpVersion) -> SubscriberPool {
        SubscriberPool::new(&self.site.subscribe, version, &self.site.path)
    }

    /// Creates a pool of subscribers to another path over HTTP/1.1.
    pub fn subscribers_to(&self, path: &str) -> SubscriberPool {
        SubscriberPool::new(&self.site.subscribe, HttpVersion::Http1, path)
    }

    /// Returns the id that Waterclock gives to the event with a sequence number.
    pub fn event_id(&self, sequence: usize) -> String {
        let text = String::from_utf8(self.publisher().get("/poll")).unwrap();
        let cursor = text.split_once("\"cursor\":\"").unwrap().1;
        format!("{}-{sequence}", cursor.split_once('-').unwrap().0)
    }
}

/// Returns the median of a figure of several runs.
pub fn median_of<T>(runs: &[T], figure: impl Fn(&T) -> f64) -> f64 {
    median(runs.iter().map(figure).collect())
}

/// Measures [`RUNS`] times, and returns the median.
pub fn repeated(measure: impl FnMut() -> f64) -> f64 {
    median(std::iter::repeat_with(measure).take(RUNS).collect())
}
