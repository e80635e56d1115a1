//! The arguments that a configuration file stands for. Each setting is checked by itself, so that
//! all problems are found, and each with its line.

use std::{
    env,
    error::Error as _,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use clap::{
    Arg, ArgAction, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    file::{ConfigEntry, ConfigFile, ConfigValue, unknown},
    problem::ConfigProblems,
};

/// The kinds of tables that a file may have. A further kind needs its name here, and code that
/// reads [`ConfigFile::tables_of`] it.
pub const TABLES: [&str; 2] = ["rule", "issuer"];

/// Options that a file cannot set.
const NOT_IN_FILE: [&str; 3] = ["config", "help", "version"];

/// The sources of options: the command line, the environment, and a file. Earlier ones take
/// precedence.
pub struct ConfigSources<'a> {
    /// The options and their variables. A variable that does not count must have been removed.
    pub command: &'a Command,
    /// The command line, with the name of the program.
    pub arguments: &'a [OsString],
    /// The file.
    pub file: &'a ConfigFile,
}

impl ConfigSources<'_> {
    /// Returns the arguments of the file and the command line. Settings of the file with a problem
    /// are left out.
    pub fn merge(&self, problems: &mut ConfigProblems) -> Vec<OsString> {
        let known: Vec<_> = self.options().filter_map(Arg::get_long).collect();
        let names: Vec<_> = known.iter().copied().chain(TABLES).collect();
        for table in self.file.tables.iter().filter(|table| !TABLES.contains(&&*table.kind)) {
            problems.error(table.line, unknown(&table.kind, &TABLES));
        }
        let mut of_file = Vec::new();
        for entry in &self.file.entries {
            let Some(option) = self.option(&entry.name) else {
                let why = if TABLES.contains(&&*entry.name) {
                    format!("{0}: a table of this name is written [[{0}]]", entry.name)
                } else {
                    unknown(&entry.name, &names)
                };
                problems.error(entry.line, why);
                continue;
            };
            // A value that does not count must be valid, too: it may count at the next start.
            match self.arguments_of(option, entry) {
                Err(reasons) => {
                    for why in reasons {
                        problems.error(entry.line, format!("{}: {why}", entry.name));
                    }
                }
                Ok(_) if self.is_set_elsewhere(option) => {}
                Ok(arguments) if arguments.is_empty() => {}
                Ok(arguments) => of_file.push((entry, option, arguments)),
            }
        }
        self.check_variables(problems);
        self.check_relations(&of_file, problems);
        let (program, rest) = self.arguments.split_at(self.arguments.len().min(1));
        let of_file = of_file.into_iter().flat_map(|(_, _, arguments)| arguments);
        program.iter().cloned().chain(of_file).chain(rest.iter().cloned()).collect()
    }

    /// The options that a file can set.
    fn options(&self) -> impl Iterator<Item = &Arg> {
        let is_for_file =
            |arg: &&Arg| arg.get_long().is_some_and(|name| !NOT_IN_FILE.contains(&name));
        self.command.get_arguments().filter(is_for_file)
    }

    fn option(&self, name: &str) -> Option<&Arg> {
        self.options().find(|arg| arg.get_long() == Some(name))
    }

    fn is_in_arguments(&self, option: &Arg) -> bool {
        option.get_long().is_some_and(|name| find_argument(self.arguments, name).is_some())
    }

    fn is_set_elsewhere(&self, option: &Arg) -> bool {
        self.is_in_arguments(option) || variable(option).is_some()
    }

    /// Returns the arguments that an entry stands for.
    ///
    /// # Errors
    ///
    /// If the value is not valid, or some values of a list are not.
    fn arguments_of(
        &self,
        option: &Arg,
        entry: &ConfigEntry,
    ) -> Result<Vec<OsString>, Vec<String>> {
        let refuse = |why: &str| Err(vec![why.to_owned()]);
        let values = match (&entry.value, option.get_action()) {
            (ConfigValue::Flag(is_set), ArgAction::SetTrue) => {
                let flag = is_set.then(|| format!("--{}", entry.name).into());
                return Ok(flag.into_iter().collect());
            }
            (_, ArgAction::SetTrue) => return refuse("expected true or false"),
            (ConfigValue::Flag(_), _) => {
                return refuse("expected a text or a number, not true or false");
            }
            (ConfigValue::Text(text), _) => std::slice::from_ref(text),
            (ConfigValue::List(list), ArgAction::Append) => list,
            (ConfigValue::List(_), _) => return refuse("expected one value, not a list"),
        };
        let argument = |value: &String| OsString::from(format!("--{}={value}", entry.name));
        let check = |value: &String| {
            let why = self.parse(without_variables(self.command), &[argument(value)]).err()?;
            // The line alone does not tell which one of several it is.
            Some(if values.len() > 1 { format!("{value:?}: {why}") } else { why })
        };
        let reasons: Vec<_> = values.iter().filter_map(check).collect();
        if reasons.is_empty() { Ok(values.iter().map(argument).collect()) } else { Err(reasons) }
    }

    /// Parses arguments without regard to their relations to others.
    fn parse(&self, mut command: Command, arguments: &[OsString]) -> Result<(), String> {
        let program = self.arguments.first().cloned().unwrap_or_default();
        let parsed = command.try_get_matches_from_mut([program].iter().chain(arguments));
        match parsed {
            Err(error) if !is_relation(error.kind()) => Err(reason(&error)),
            _ => Ok(()),
        }
    }

    /// Checks the environment, one variable after the other.
    fn check_variables(&self, problems: &mut ConfigProblems) {
        for option in self.options().filter(|option| !self.is_in_arguments(option)) {
            let (Some(name), Some(flag)) = (variable(option), option.get_long()) else { continue };
            if matches!(option.get_action(), ArgAction::SetTrue) {
                // An empty one counts as not set.
                let text = env::var_os(&name).unwrap_or_default();
                if !["", "true", "false"].iter().any(|known| text == **known) {
                    problems.error_in_variable(&name, "expected true or false");
                }
                continue;
            }
            let mut argument = OsString::from(format!("--{flag}="));
            argument.push(env::var_os(&name).unwrap_or_default());
            if let Err(why) = self.parse(without_variables(self.command), &[argument]) {
                problems.error_in_variable(&name, why);
            }
        }
    }

    /// Checks that the settings of the file go together, also with those from elsewhere.
    fn check_relations(
        &self,
        of_file: &[(&ConfigEntry, &Arg, Vec<OsString>)],
        problems: &mut ConfigProblems,
    ) {
        let is_in_file = |name: &str| of_file.iter().any(|(entry, ..)| entry.name == name);
        for (index, (entry, option, arguments)) in of_file.iter().enumerate() {
            let mut command = without_variables(self.command);
            let program = self.arguments.first().cloned().unwrap_or_default();
            let parsed = command.try_get_matches_from_mut([program].iter().chain(arguments));
            for needed in parsed.err().iter().flat_map(missing) {
                let is_set = is_in_file(&needed)
                    || self.option(&needed).is_some_and(|option| self.is_set_elsewhere(option));
                if !is_set {
                    problems.error(entry.line, format!("{}: needs {needed}, too", entry.name));
                }
            }
            for other in self.conflicting(option) {
                let Some(name) = other.get_long() else { continue };
                let is_before = of_file[..index].iter().any(|(entry, ..)| entry.name == name);
                let source = if is_before {
                    String::new()
                } else if self.is_in_arguments(other) {
                    " of the command line".to_owned()
                } else if let Some(variable) = variable(other) {
                    format!(", which {variable} sets")
                } else {
                    continue;
                };
                let why = format!("{}: cannot be used together with {name}{source}", entry.name);
                problems.error(entry.line, why);
            }
        }
    }

    fn conflicting<'a>(&'a self, option: &'a Arg) -> impl Iterator<Item = &'a Arg> {
        let names = |one: &Arg, other: &Arg| {
            let conflicts = self.command.get_arg_conflicts_with(one);
            conflicts.iter().any(|arg| arg.get_id() == other.get_id())
        };
        self.options().filter(move |other| names(option, other) || names(other, option))
    }
}

/// Returns the value of an option in a command line, or `""` if it has none. Like the parser, it
/// takes only `--name=VALUE`, `--name VALUE` and `--name`.
pub(crate) fn find_argument(arguments: &[OsString], name: &str) -> Option<OsString> {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    let flag = format!("--{name}");
    while let Some(argument) = arguments.next() {
        if *argument == *flag {
            return Some(arguments.next().cloned().unwrap_or_default());
        }
        let text = argument.as_encoded_bytes();
        if let Some([b'=', ..]) = text.strip_prefix(flag.as_bytes()) {
            return Some(OsStr::from_bytes(&text[flag.len() + 1..]).to_owned());
        }
    }
    None
}

/// Returns the name of the variable that sets an option.
fn variable(option: &Arg) -> Option<String> {
    let name = option.get_env()?;
    env::var_os(name)?;
    Some(name.to_string_lossy().into_owned())
}

fn without_variables(command: &Command) -> Command {
    command.clone().mut_args(|arg| arg.env(None))
}

/// Returns `true` for an error about options that do not go together.
fn is_relation(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict)
}

/// Returns the reason for which a value is refused, without the name of the option.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return match source.downcast_ref::<std::num::ParseIntError>() {
            Some(why) => format!("expected a whole number: {why}"),
            None => source.to_string(),
        };
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("expected one of {}", valid.join(", "))
        }
        _ if error.kind() == ErrorKind::InvalidValue => "expected a value".to_owned(),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    }
}

/// Returns the names of the options that an option needs.
fn missing(error: &clap::Error) -> Vec<String> {
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(options))) => {
            let name = |option: &String| {
                let name = option.strip_prefix("--")?.split([' ', '=']).next()?;
                Some(name.to_owned())
            };
            options.iter().filter_map(name).collect()
        }
        _ => Vec::new(),
    }
}
