//! The reload of the configuration file at SIGHUP: all of it, or nothing if anything is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    mem,
};

use tokio::task;
use waterclock::event_log::{EventLogError, Retention};

use crate::{
    auth::TokenVerifier,
    config::ConfigProblems,
    ops::output::Output,
    options::{LoadedOptions, LogPlace, Options, OptionsError},
    routes::AccessReload,
};

/// The options that a reload applies. Changes of the others count at the next start. The files of
/// the certificate are watched, so their content is always reloaded.
pub const RELOADED: [&str; 18] = [
    "public-topic",
    "cors-origin",
    "allowed-host",
    "trusted-proxy",
    "jwt-secret-file",
    "jwt-public-key-file",
    "jwt-jwks",
    "jwt-issuer",
    "jwt-audience",
    "require-token",
    "max-publishes",
    "max-streams",
    "max-streams-per-address",
    "retain-count",
    "retain-age",
    "retain-bytes",
    "max-topics",
    "log-level",
];

/// Reloads the configuration of a running server.
pub struct ConfigReload {
    /// The command line.
    arguments: Vec<OsString>,
    /// The options that apply, with those of the last start that no reload changes.
    loaded: LoadedOptions,
    /// The retention that this server has set, unless the last attempt has failed: then it is
    /// unknown which one the log has.
    retention: Option<Retention>,
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
        let options = &loaded.options;
        // The start has printed warnings.
        let volume = options.volume(&options.data_dir).unwrap_or(u64::MAX);
        let retention = Some(options.retention(volume));
        Self { arguments, loaded, retention, access, output }
    }

    /// Reloads the configuration, and reports the result in the output.
    pub async fn run(&mut self) {
        match self.apply().await {
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
                let kept = match self.retention {
                    Some(_) => "nothing has changed",
                    None => "the one before applies",
                };
                tracing::error!("the configuration was not reloaded, {kept}");
            }
        }
    }

    /// Applies the configuration, if it is valid.
    ///
    /// # Errors
    ///
    /// All problems. Nothing has changed then, except that a cluster that does not answer may still
    /// change what it keeps.
    pub async fn apply(&mut self) -> Result<AppliedReload, OptionsError> {
        let (arguments, place) = (self.arguments.clone(), self.loaded.options.place());
        let read = task::spawn_blocking(move || read(arguments, place)).await;
        let ReadConfig { mut loaded, tokens, retention } =
            read.unwrap_or_else(|error| Err(failure(None, error.to_string())))?;
        // The only step that can fail from here on.
        if self.retention.as_ref() != Some(&retention) {
            // The next reload sets it again, whatever it is.
            self.retention = None;
            let changed = self.access.hub().set_retention(retention.clone()).await;
            changed.map_err(|why| {
                let why = match why {
                    EventLogError::Unanswered(_) | EventLogError::Unconfirmed(_) => {
                        "it is unknown if the event log has changed what it keeps: reload once more"
                            .to_owned()
                    }
                    why => format!("the event log has not changed what it keeps: {why}"),
                };
                failure(Some(mem::take(&mut loaded.problems)), why)
            })?;
            self.retention = Some(retention);
        }
        let tokens = tokens.map(|tokens| self.access.continue_tokens(tokens));
        let access = loaded.options.access_with(tokens);
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

/// A valid configuration that does not apply yet.
struct ReadConfig {
    loaded: LoadedOptions,
    tokens: Option<TokenVerifier>,
    retention: Retention,
}

/// Reads and checks the configuration of a server whose event log is in this place. Blocks.
fn read(arguments: Vec<OsString>, place: LogPlace) -> Result<ReadConfig, OptionsError> {
    let mut loaded = Options::load(arguments)?;
    loaded.check();
    if loaded.problems.has_errors() {
        return Err(OptionsError::Config(loaded.problems));
    }
    // The log stays where it is until the next start.
    loaded.options.set_place(place);
    let tokens = loaded.options.tokens();
    let tokens = tokens.map_err(|why| failure(Some(mem::take(&mut loaded.problems)), why))?;
    let retention = loaded.options.retention_in(&loaded.options.data_dir);
    Ok(ReadConfig { loaded, tokens, retention })
}

/// Adds an error to the problems of a configuration.
fn failure(problems: Option<ConfigProblems>, why: String) -> OptionsError {
    let mut problems = problems.unwrap_or_default();
    problems.error_of_option(None, why);
    OptionsError::Config(problems)
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
    use crate::options::Store;

    #[test]
    fn the_log_stays_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let load = |text: &str| {
            let file = folder.path().join("c.toml");
            std::fs::write(&file, text).unwrap();
            let config = format!("--config={}", file.display());
            vec![OsString::from("waterclock"), config.into()]
        };
        let before = format!("data-dir = '{}'\n", folder.path().display());
        let place = Options::load(load(&before)).unwrap().options.place();
        let other = format!("data-dir = '{}/other'\nstore = 'memory'\n", folder.path().display());
        let options = read(load(&other), place).unwrap().loaded.options;
        assert_eq!((options.data_dir.as_path(), options.store), (folder.path(), Store::File));
    }

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
