//! Problems of a configuration, each with its place, so that all of them can be reported at once.

use std::{fmt, path::Path, sync::Arc};

/// A problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    place: Place,
    text: String,
    is_warning: bool,
}

/// The place of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// A line of the file, counted from 1.
    Line(Arc<Path>, usize),
    /// The file as a whole.
    File(Arc<Path>),
    /// An environment variable.
    Variable(String),
    /// The options as a whole.
    Options,
}

impl ConfigProblem {
    /// Returns `true` for a warning, which does not keep the configuration from being used.
    pub fn is_warning(&self) -> bool {
        self.is_warning
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line(file, line) => write!(f, "{}:{line}: ", file.display())?,
            Place::File(file) => write!(f, "{}: ", file.display())?,
            Place::Variable(name) => write!(f, "{name}: ")?,
            Place::Options => {}
        }
        let kind = if self.is_warning { "warning: " } else { "" };
        write!(f, "{kind}{}", self.text)
    }
}

/// The problems of a configuration, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigProblems {
    file: Option<Arc<Path>>,
    list: Vec<ConfigProblem>,
}

impl ConfigProblems {
    /// Creates an empty list for the configuration in a file.
    pub fn of_file(file: &Path) -> Self {
        Self { file: Some(file.into()), list: Vec::new() }
    }

    /// Adds an error in a line of the file.
    pub fn error(&mut self, line: usize, text: impl Into<String>) {
        let place = self.file.clone().map_or(Place::Options, |file| Place::Line(file, line));
        self.add(place, text, false);
    }

    /// Adds an error of the whole file.
    pub fn error_of_file(&mut self, text: impl Into<String>) {
        let place = self.file.clone().map_or(Place::Options, Place::File);
        self.add(place, text, false);
    }

    /// Adds an error in an environment variable.
    pub fn error_in_variable(&mut self, name: &str, text: impl Into<String>) {
        self.add(Place::Variable(name.to_owned()), text, false);
    }

    /// Adds an error of the option that a line of the file sets, or another source.
    pub fn error_of_option(&mut self, line: Option<usize>, text: impl Into<String>) {
        match line {
            Some(line) => self.error(line, text),
            None => self.add(Place::Options, text, false),
        }
    }

    /// Adds a warning about the option that a line of the file sets, or another source.
    pub fn warning(&mut self, line: Option<usize>, text: impl Into<String>) {
        let file = self.file.clone();
        let place = file.zip(line).map_or(Place::Options, |(file, line)| Place::Line(file, line));
        self.add(place, text, true);
    }

    fn add(&mut self, place: Place, text: impl Into<String>, is_warning: bool) {
        // A value may have line ends, and a report has a line for each problem.
        let text = text.into().split(['\n', '\r']).map(str::trim).collect::<Vec<_>>().join(" ");
        self.list.push(ConfigProblem { place, text, is_warning });
    }

    /// Returns `true` if one of the problems is an error.
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| !problem.is_warning)
    }

    /// Sorts the problems by their lines, and iterates over them. Those without a line come first.
    pub fn sorted(&self) -> impl Iterator<Item = &ConfigProblem> {
        let mut sorted: Vec<_> = self.list.iter().collect();
        sorted.sort_by_key(|problem| match problem.place {
            Place::Line(_, line) => line,
            Place::File(_) | Place::Variable(_) | Place::Options => 0,
        });
        sorted.into_iter()
    }

    /// Number of problems.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }
}
