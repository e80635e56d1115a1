//! The reload of the configuration file at SIGHUP: all of it, or nothing if anything is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    mem,
};

use crate::{
    config::ConfigProblems,
    ops::output::Output,
    options::{LoadedOptions, Options, OptionsError},
    routes::AccessReload,
};

/// The options that a reload applies. Changes of the others count at the next start. The files of
/// the certificate are watched, so their content is always reloaded.
pub const RELOADED: [&str; 12] = [
    "public-topic",
    "cors-origin",
    "allowed-host",
    "trusted-proxy",
    "jwt-secret-file",
    "jwt-public-key-file",
    "jwt-audience",
    "require-token",
    "max-publishes",
    "max-streams",
    "max-streams-per-address",
    "log-level",
];

/// Reloads the configuration of a running server.
pub struct ConfigReload {
    /// The command line.
    arguments: Vec<OsString>,
    /// The options that apply, with those of the last start that no reload changes.
    loaded: LoadedOptions,
    access: AccessReload,
    output: Output,
}

/// The result of a reload that was applied.
#[derive(Debug, PartialEq, Eq)]
pub struct AppliedReload {
    /// Names of options whose change counts at the next start.
    pub at_next_start: Vec<String>,
}

impl ConfigReload {
    /// Creates the reload of a server that was started with these options.
    pub fn new(
        arguments: Vec<OsString>,
        loaded: LoadedOptions,
        access: AccessReload,
        output: Output,
    ) -> Self {
        Self { arguments, loaded, access, output }
    }

    /// Reloads the configuration, and reports the result in the output. Blocks while it reads
    /// files.
    pub fn run(&mut self) {
        match self.apply() {
            Ok(AppliedReload { at_next_start }) => {
                for option in &at_next_start {
                    tracing::warn!(option, "the change of this option counts at the next start");
                }
                tracing::info!("the configuration was reloaded");
            }
            Err(OptionsError::Usage(error)) => {
                tracing::error!("the configuration was not reloaded, nothing has changed: {error}");
            }
            Err(OptionsError::Config(problems)) => {
                print(&problems);
                tracing::error!("the configuration was not reloaded, nothing has changed");
            }
        }
    }

    /// Applies the configuration, if it is valid.
    ///
    /// # Errors
    ///
    /// All problems. Nothing has changed then.
    pub fn apply(&mut self) -> Result<AppliedReload, OptionsError> {
        let mut loaded = Options::load(self.arguments.clone())?;
        loaded.check();
        if loaded.problems.has_errors() {
            return Err(OptionsError::Config(loaded.problems));
        }
        let access = loaded.options.access().map_err(|why| {
            let mut problems = mem::take(&mut loaded.problems);
            problems.error_of_option(None, why);
            OptionsError::Config(problems)
        })?;
        print(&loaded.problems);
        let at_next_start = changed(&self.loaded.arguments, &loaded.arguments);
        let at_next_start =
            at_next_start.into_iter().filter(|name| !RELOADED.contains(&&**name)).collect();
        self.access.apply(access, loaded.options.settings().streams);
        self.output.set_level(loaded.options.log_level.as_ref());
        // The next reload compares with what applies, so such a change is reported again.
        self.loaded.options = loaded.options;
        Ok(AppliedReload { at_next_start })
    }
}

fn print(problems: &ConfigProblems) {
    for problem in problems.sorted() {
        if problem.is_warning() {
            tracing::warn!("{problem}");
        } else {
            tracing::error!("{problem}");
        }
    }
}

/// Returns the names of the options that differ between two command lines.
fn changed(before: &[OsString], now: &[OsString]) -> BTreeSet<String> {
    let (before, now) = (by_name(before), by_name(now));
    let names = before.keys().chain(now.keys());
    names.filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
}

fn by_name(arguments: &[OsString]) -> BTreeMap<String, Vec<&OsString>> {
    let mut by_name = BTreeMap::<_, Vec<_>>::new();
    for argument in arguments {
        let text = argument.to_string_lossy();
        if let Some(option) = text.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default().to_owned();
            by_name.entry(name).or_default().push(argument);
        }
    }
    by_name
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn only_known_options_are_reloaded() {
        let command = Options::command();
        for name in RELOADED {
            assert!(
                command.get_arguments().any(|option| option.get_long() == Some(name)),
                "{name}"
            );
        }
    }

    #[test]
    fn changed_options_are_found() {
        let arguments = |list: &[&str]| list.iter().map(OsString::from).collect::<Vec<_>>();
        let before = arguments(&["waterclock", "--a=1", "--b=1", "--b=2", "--c", "--config", "x"]);
        let now = arguments(&["waterclock", "--a=1", "--b=2", "--d=1", "--config", "x"]);
        assert_eq!(changed(&before, &now).into_iter().collect::<Vec<_>>(), ["b", "c", "d"]);
        assert!(changed(&now, &now).is_empty());
    }
}
