//! Traces of the rules for `client/`, which has the same rules in TypeScript: each input with the
//! effects and the state that follow it. The client's tests must reproduce every one of them.

use std::{
    env, fmt,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use proptest::{
    prelude::Rng as _,
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use serde::Serialize;

use crate::connection::PageTime;

/// A file of traces, one line of JSON for each. It gets its name when it is complete.
pub(crate) struct Traces {
    runner: TestRunner,
    path: PathBuf,
    file: BufWriter<File>,
}

impl Traces {
    pub(crate) fn create(rules: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let folder = root.join(target).join("client-traces");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(rules).with_extension("jsonl");
        let file = BufWriter::new(File::create(path.with_extension("part")).unwrap());
        // The same inputs each time, so a difference can be looked at again.
        Self { runner: TestRunner::deterministic(), path, file }
    }

    /// Draws a few thousand values, from which [`Traces::pick`] takes. That is much quicker than to
    /// draw each by itself.
    pub(crate) fn pool<T: fmt::Debug>(&mut self, strategy: impl Strategy<Value = T>) -> Vec<T> {
        let pool = proptest::collection::vec(strategy, 5_000);
        pool.new_tree(&mut self.runner).unwrap().current()
    }

    /// Picks up to `most` values of a pool.
    pub(crate) fn pick<T: Clone>(&mut self, pool: &[T], most: usize) -> Vec<T> {
        let mut below = |bound| self.runner.rng().next_u32() as usize % bound;
        (0..=below(most)).map(|_| pool[below(pool.len())].clone()).collect()
    }

    /// Writes a trace that is over, with the whole state at its end.
    pub(crate) fn write(&mut self, trace: &Trace, end: &impl Serialize) {
        let Trace { start, steps, .. } = trace;
        writeln!(self.file, "[{start},[{}],{}]", steps.join(","), json(end)).unwrap();
    }

    pub(crate) fn finish(mut self) {
        self.file.flush().unwrap();
        fs::rename(self.path.with_extension("part"), &self.path).unwrap();
    }
}

/// One life of a state machine, as JSON: `[start, steps, end]`. A step is
/// `[now, random, input, effects, seen]`. `seen` is the state that its users see, and 0 if that is
/// as before.
pub(crate) struct Trace {
    start: String,
    steps: Vec<String>,
    seen: String,
}

impl Trace {
    pub(crate) fn new(start: impl Serialize) -> Self {
        Self { start: json(&start), steps: Vec::new(), seen: String::new() }
    }

    pub(crate) fn step(
        &mut self,
        now: PageTime,
        random: f64,
        input: &impl Serialize,
        effects: &impl Serialize,
        seen: &impl Serialize,
    ) {
        let seen = json(seen);
        let news = if seen == self.seen { "0" } else { &seen };
        let now = now.as_millis();
        self.steps.push(format!("[{now},{random},{},{},{news}]", json(input), json(effects)));
        self.seen = seen;
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

/// Returns one of nine numbers from 0 to 1. Multiples of an eighth make times that are whole
/// milliseconds, so both languages compute the same.
pub(crate) fn random(step: usize) -> f64 {
    f64::from(u8::try_from(step % 9).unwrap()) / 8.0
}
