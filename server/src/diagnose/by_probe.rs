//! The checks where the server helps, by its probe.

use std::{cell::RefCell, time::Duration};

use reqwest::{Method, Url};
use waterclock_diagnose::{
    Answer, Check, Client, Finding, NoAnswer, PATIENCE, Plan, Probe, Question, Reader, Report, Seen,
};

use super::{
    Diagnose, Progress,
    ask::{Asker, Failure},
};

/// Makes them all. The report, and why the server was not there until the end, if it was not.
pub(super) async fn measure(
    asker: &Asker,
    probe: Url,
    first: &Answer,
    options: &Diagnose,
    progress: Progress,
) -> (Report, Result<(), String>) {
    let plan = Plan {
        protocol: progress.report.path.client,
        silence: options.idle,
        streams: usize::from(options.streams),
    };
    let terminal = Terminal { asker, probe, progress: RefCell::new(progress) };
    let was_there = waterclock_diagnose::run(&terminal, first, plan).await;
    (terminal.progress.into_inner().end(), was_there)
}

struct Terminal<'a> {
    asker: &'a Asker,
    probe: Url,
    progress: RefCell<Progress>,
}

impl Client for Terminal<'_> {
    const IS_BROWSER: bool = false;

    async fn ask(&self, question: Question, note: impl Fn(&Reader)) -> Result<Answer, NoAnswer> {
        let mut url = self.probe.clone();
        url.set_query(Some(&question.query()));
        let method = match question.method {
            waterclock_diagnose::Method::Get => Method::GET,
            waterclock_diagnose::Method::Post => Method::POST,
        };
        let request = if question.accepts_compression {
            self.asker.as_browsers_do(method, &url)
        } else {
            self.asker.request(method, &url)
        };
        let is_enough = |reader: &Reader| {
            note(reader);
            false
        };
        match self.asker.read(request, question.within(), is_enough).await {
            Ok(read) => Ok(read.answer),
            Err(Failure::NotReached(error, _)) if error.is_connect() => Err(NoAnswer::NotReached),
            Err(Failure::NotReached(_, after)) => Err(NoAnswer::Cut(after)),
            Err(Failure::NoAnswer) => Err(NoAnswer::TimedOut),
        }
    }

    async fn resume(&self) -> Option<Seen> {
        let request = self.asker.get(&self.probe).header("last-event-id", Probe::id(1));
        self.asker.read(request, PATIENCE, |_| false).await.ok()?.answer.reader.seen
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Only what was found is told here.
    fn begin(&self, _: &[Check]) {}

    fn tell(&self, finding: Finding) {
        self.progress.borrow_mut().tell(finding);
    }
}
