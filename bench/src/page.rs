//! The page in a browser, as a process that reports the events in its list.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use crate::{
    cluster::runs,
    load::{DEADLINE, Endpoint, nanos},
};

/// The program that opens the page.
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shown.mjs");
/// The module that finds Chromium, and prints its path.
const CHROMIUM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../end2end/chromium.js");

/// An event in the list of the page. Times are in nanoseconds, as in the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownEvent {
    pub number: usize,
    /// The time of the request that has published it.
    pub sent: u64,
    /// The time at which it was in the list.
    pub shown: u64,
}

/// A running browser with the page. Dropping it ends the browser.
pub struct PageProcess {
    child: Child,
    events: Receiver<ShownEvent>,
}

/// Returns `true` if there is a browser.
pub fn has_browser() -> bool {
    runs(Path::new("node"), CHROMIUM)
}

impl PageProcess {
    /// Opens a page of a server.
    pub fn open(endpoint: &Endpoint, path: &str) -> Self {
        // It ends with this program, since its standard input then ends.
        let mut command = Command::new("node");
        command.arg(PROGRAM).arg(format!("http://{}{path}", endpoint.address));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("Node.js");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            let events = lines.map_while(Result::ok).filter_map(|line| parse(&line, nanos()));
            // The receiver is gone once nobody waits any more.
            let _ = events.map(|event| sender.send(event)).find(Result::is_err);
        });
        Self { child, events }
    }

    /// Waits for an event in the list.
    pub fn wait_for(&self, condition: impl Fn(&ShownEvent) -> bool) -> ShownEvent {
        let wait = || self.events.recv_timeout(DEADLINE).expect("the page shows no event");
        std::iter::repeat_with(wait).find(condition).unwrap()
    }
}

impl Drop for PageProcess {
    fn drop(&mut self) {
        // The program ends the browser, and then itself.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Parses a line of the program: the number of an event, and the time in it.
fn parse(line: &str, shown: u64) -> Option<ShownEvent> {
    let (number, sent) = line.split_once(' ')?;
    Some(ShownEvent { number: number.parse().ok()?, sent: sent.parse().ok()?, shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_page_has_the_number_and_the_time_of_an_event() {
        assert_eq!(parse("7 12", 20), Some(ShownEvent { number: 7, sent: 12, shown: 20 }));
        assert_eq!(["", "7", "7 x"].map(|line| parse(line, 20)), [None; 3]);
    }
}
