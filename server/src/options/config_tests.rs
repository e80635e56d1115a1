//! Tests of options from a configuration file, together with the command line.

use std::{ffi::OsString, fs, time::Duration};

use clap::CommandFactory as _;
use tempfile::TempDir;

use super::{LoadedOptions, Options, OptionsError};

struct TestFile(TempDir);

impl TestFile {
    fn with(text: &str) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        fs::write(file.path(), text).unwrap();
        file
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("c.toml")
    }

    /// Loads the file with further arguments.
    fn load(&self, arguments: &[&str]) -> Result<LoadedOptions, OptionsError> {
        let config = format!("--config={}", self.path().display());
        let arguments = ["waterclock", &config].into_iter().chain(arguments.iter().copied());
        Options::load(arguments.map(OsString::from).collect())
    }

    /// Loads the file, which has problems, and returns them without its folder.
    fn problems(&self, arguments: &[&str]) -> Vec<String> {
        let Err(OptionsError::Config(problems)) = self.load(arguments) else {
            panic!("no problems with {arguments:?}")
        };
        let folder = format!("{}/", self.0.path().display());
        problems.sorted().map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

#[test]
fn a_file_sets_each_option_that_the_command_line_does_not() {
    let file = TestFile::with(
        "listen = ['127.0.0.1:1', '127.0.0.1:2']\nretain-age = '7days'\nrequire-token = \
         true\ntls-self-signed = false\nmax-streams = 5\njwt-secret-file = 'x'\npublic-topic = 'a.>'",
    );
    let options = file.load(&[]).unwrap().options;
    assert_eq!(options.listen("[::1]:3".parse().unwrap()).len(), 2);
    assert_eq!(options.retention(0).age, Duration::from_hours(7 * 24));
    assert_eq!(options.settings().streams.total, 5);
    assert!(options.require_token && !options.tls_self_signed);
    let options = file.load(&["--listen", "127.0.0.1:9", "--retain-age=1h"]).unwrap().options;
    assert_eq!(options.listen("[::1]:3".parse().unwrap()), ["127.0.0.1:9".parse().unwrap()]);
    assert_eq!(options.retention(0).age, Duration::from_hours(1));
}

#[test]
fn each_problem_of_a_file_is_reported_by_its_line() {
    let file = TestFile::with(
        "retain_age = '7days'\nretain-age = '0s'\nmax-streams = -1\nrequire-token = 'yes'\n\
         log = 'xml'\ndrain = ['1s', '2s']\nlisten = ['127.0.0.1:1', 'here', '1']\nqwxyz = 1\n\
         store = true\nhelp = true\nlog-level = 'warning'\n[[rules]]\n",
    );
    assert_eq!(
        file.problems(&["--retain-age=1h"]),
        [
            "c.toml:1: retain_age: unknown; did you mean retain-age?",
            "c.toml:2: retain-age: expected a time of at least one second, such as 90s, 24h or \
             30days",
            "c.toml:3: max-streams: expected a whole number: invalid digit found in string",
            "c.toml:4: require-token: expected true or false",
            "c.toml:5: log: expected one of text, json",
            "c.toml:6: drain: expected one value, not a list",
            "c.toml:7: listen: \"here\": expected an address and a port, such as 127.0.0.1:3000 \
             or [::1]:3000",
            "c.toml:7: listen: \"1\": expected an address and a port, such as 127.0.0.1:3000 or \
             [::1]:3000",
            "c.toml:8: qwxyz: unknown; `waterclock --help` lists the names",
            "c.toml:9: store: expected a text or a number, not true or false",
            "c.toml:10: help: unknown; `waterclock --help` lists the names",
            "c.toml:11: log-level: `warning` is no level: expected error, warn, info, debug, trace \
             or off, or MODULE=LEVEL for one module",
            "c.toml:12: rules: unknown; did you mean rule?",
        ]
    );
}

#[test]
fn settings_that_do_not_go_together_are_reported_by_their_line() {
    let file = TestFile::with("tls-cert = 'c'\n\ntls-self-signed = true\nnode = 'a'\n");
    assert_eq!(
        file.problems(&[]),
        [
            "c.toml:1: tls-cert: needs tls-key, too",
            "c.toml:3: tls-self-signed: cannot be used together with tls-cert",
            "c.toml:4: node: needs cluster, too",
        ]
    );
    let file = TestFile::with("tls-cert = 'c'\n");
    file.load(&["--tls-key=k"]).unwrap();
    assert_eq!(
        file.problems(&["--tls-self-signed"]),
        [
            "c.toml:1: tls-cert: needs tls-key, too",
            "c.toml:1: tls-cert: cannot be used together with tls-self-signed of the command line",
        ]
    );
}

#[test]
fn errors_of_the_command_line_come_first() {
    let file = TestFile::with("nonsense");
    for argument in ["--listen=x", "--help", "--version", "--unknown"] {
        let error = file.load(&[argument]).unwrap_err();
        assert!(matches!(error, OptionsError::Usage(_)), "{argument}: {error:?}");
    }
}

/// The example of the documentation.
const EXAMPLE: &str = include_str!("../../../docs/config.toml");

/// The options of the command line that a file can set.
fn names() -> Vec<String> {
    let command = Options::command();
    let names = command.get_arguments().filter_map(|option| option.get_long());
    names.filter(|name| !["config", "help", "version"].contains(name)).map(str::to_owned).collect()
}

#[test]
fn the_example_of_the_documentation_is_valid_and_names_every_option() {
    let file = TestFile::with(EXAMPLE);
    assert_eq!(file.load(&[]).unwrap().options.topic_retention().count(), 4);
    let is_named = |name: &String| {
        EXAMPLE.lines().any(|line| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            line.strip_prefix(&**name).is_some_and(|rest| rest.starts_with(" = "))
        })
    };
    for name in names() {
        assert!(is_named(&name), "docs/config.toml lacks {name}");
    }
    for name in crate::config::RULE_NAMES.map(str::to_owned) {
        assert!(is_named(&name), "docs/config.toml lacks {name} in a rule");
    }
    for name in crate::config::ISSUER_NAMES.map(str::to_owned) {
        assert!(is_named(&name), "docs/config.toml lacks {name} in an issuer");
    }
    // So are the issuers that are shown.
    let (_, issuers) = EXAMPLE.split_once("# --- Issuers of tokens").unwrap();
    let (issuers, _) = issuers.split_once("# --- Rules").unwrap();
    let (_, issuers) = issuers.split_once("[reload]").unwrap();
    let issuers = TestFile::with(&issuers.replace("\n# ", "\n")).load(&[]).unwrap();
    assert_eq!(issuers.file.tables_of("issuer").count(), 2);
    // Options that are shown without being set are valid, too.
    let shown = EXAMPLE.lines().filter_map(|line| {
        let line = line.strip_prefix("# ")?;
        let (name, value) = line.split_once(" = ")?;
        names().contains(&name.to_owned()).then(|| format!("{name} = {value}\n"))
    });
    for line in shown {
        let alone = TestFile::with(&line);
        let problems = match alone.load(&[]) {
            Ok(_) => continue,
            Err(OptionsError::Config(problems)) => problems,
            Err(OptionsError::Usage(error)) => panic!("{line}: {error}"),
        };
        let are_relations =
            problems.sorted().all(|problem| problem.to_string().contains(": needs "));
        assert!(are_relations, "{line}: {problems:?}");
    }
}
