//! The configuration file: the names of the flags, in TOML. A setting of the file becomes an
//! argument for the command line's parser, unless a flag or a variable sets the same option. So all
//! three have the same values and rules.
//!
//! # Layout
//!
//! | module | content |
//! |---|---|
//! | `file` | names, values and their lines |
//! | `arguments` | the arguments that a file stands for, and the checks of each |
//! | `rules` | the tables `[[rule]]` |
//! | `issuers` | the tables `[[issuer]]` |
//! | `values` | values that both options and rules have |
//! | `problem` | problems with their places |

mod arguments;
mod file;
mod issuers;
mod problem;
mod rules;
mod values;

pub(crate) use arguments::find_argument;
pub use arguments::{ConfigSources, TABLES};
pub use file::{ConfigEntry, ConfigFile, ConfigTable, ConfigValue};
pub use issuers::{ConfigIssuer, ISSUER_NAMES, issuers};
pub use problem::{ConfigProblem, ConfigProblems};
pub use rules::{ConfigRule, RULE_NAMES, RuleRetention, rules};
pub(crate) use values::{age, bytes};
