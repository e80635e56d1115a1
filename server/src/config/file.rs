//! The configuration file: TOML, as names, values and the lines on which they stand.

use std::{fs::File, io::Read as _, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::problem::ConfigProblems;

/// Maximum size of the file, in bytes. A larger one is another file by mistake.
const MAX_FILE: u64 = 1 << 20;
/// Similarity from which on a known name is proposed for an unknown one.
const MIN_SIMILARITY: f64 = 0.7;

/// The content of a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// The settings outside of tables, in the order of their lines.
    pub entries: Vec<ConfigEntry>,
    /// The tables that are written `[[kind]]`, in the order of their lines.
    pub tables: Vec<ConfigTable>,
}

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The name, such as `retain-age`.
    pub name: String,
    /// The line of the name, counted from 1.
    pub line: usize,
    /// The value.
    pub value: ConfigValue,
}

/// A value. Numbers are texts, since options parse texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    /// `true` or `false`.
    Flag(bool),
    /// A text or a number.
    Text(String),
    /// A list of texts and numbers.
    List(Vec<String>),
}

/// A table that may be repeated, such as `[[rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigTable {
    /// The name between the brackets.
    pub kind: String,
    /// The line of the name, counted from 1.
    pub line: usize,
    /// The settings, in the order of their lines.
    pub entries: Vec<ConfigEntry>,
}

impl ConfigFile {
    /// Reads a file. What is wrong with it is added to the problems, and left out of the result.
    pub fn read(path: &Path, problems: &mut ConfigProblems) -> Self {
        let mut bytes = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
        if let Err(why) = read {
            problems.error_of_file(format!("the file cannot be read: {why}"));
            return Self::default();
        }
        if bytes.len() as u64 > MAX_FILE {
            problems.error_of_file("the file is larger than 1 MiB: it is no configuration");
            return Self::default();
        }
        match str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, problems),
            Err(why) => {
                let line = line_of(&bytes, why.valid_up_to());
                problems.error(line, "the file must be text in UTF-8");
                Self::default()
            }
        }
    }

    /// Parses the text of a file, like [`read`](Self::read).
    pub fn parse(text: &str, problems: &mut ConfigProblems) -> Self {
        // Some editors on Windows write this mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let at = error.span().map_or(text.len(), |span| span.start);
            problems.error(line_of(text.as_bytes(), at), format!("not TOML: {}", error.message()));
        }
        if !errors.is_empty() {
            // After a syntax error, the parser only guesses the rest.
            return Self::default();
        }
        let mut file = Self::default();
        for (name, value) in in_order(table.get_ref()) {
            let line = line_of(text.as_bytes(), name.span().start);
            let name = name.get_ref().as_ref();
            match tables(value.get_ref()) {
                Some(tables) => file.tables.extend(tables.map(|(span, table)| ConfigTable {
                    kind: name.to_owned(),
                    line: line_of(text.as_bytes(), span.start),
                    entries: entries(table, text, problems),
                })),
                None => file.entries.extend(entry(name, line, value.get_ref(), problems)),
            }
        }
        file
    }

    /// The tables of a kind.
    pub fn tables_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a ConfigTable> {
        self.tables.iter().filter(move |table| table.kind == kind)
    }

    /// The line of a setting outside of tables.
    pub fn line_of(&self, name: &str) -> Option<usize> {
        self.entries.iter().find(|entry| entry.name == name).map(|entry| entry.line)
    }
}

impl ConfigTable {
    /// The entry of a name.
    pub fn entry(&self, name: &str) -> Option<&ConfigEntry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Reports the names that the table cannot have.
    pub fn check_names(&self, known: &[&str], problems: &mut ConfigProblems) {
        for entry in self.entries.iter().filter(|entry| !known.contains(&&*entry.name)) {
            problems.error(entry.line, unknown(&entry.name, known));
        }
    }
}

impl ConfigEntry {
    /// Parses a single text or number. A problem is reported with the line and the name.
    pub fn parse<T, E: ToString>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
        problems: &mut ConfigProblems,
    ) -> Option<T> {
        let parsed = match &self.value {
            ConfigValue::Text(text) => parse(text).map_err(|why| why.to_string()),
            ConfigValue::Flag(_) => Err("expected a text or a number".to_owned()),
            ConfigValue::List(_) => Err("expected one value, not a list".to_owned()),
        };
        parsed.map_err(|why| problems.error(self.line, format!("{}: {why}", self.name))).ok()
    }

    /// Parses a text or a list of texts, like [`parse`](Self::parse).
    pub fn parse_list<T, E: ToString>(
        &self,
        parse: impl Fn(&str) -> Result<T, E>,
        problems: &mut ConfigProblems,
    ) -> Vec<T> {
        let texts = match &self.value {
            ConfigValue::Text(text) => std::slice::from_ref(text),
            ConfigValue::List(texts) => texts,
            ConfigValue::Flag(_) => {
                problems.error(self.line, format!("{}: expected a text or a list", self.name));
                &[]
            }
        };
        let parse = |text: &String| {
            let parsed = parse(text).map_err(|why| match self.name.as_str() {
                // It may have a password.
                name @ "jwks" => format!("{name}: {}", why.to_string()),
                name => format!("{name}: {text:?}: {}", why.to_string()),
            });
            parsed.map_err(|why| problems.error(self.line, why)).ok()
        };
        texts.iter().filter_map(parse).collect()
    }
}

/// Returns the message for an unknown name, with the known one that is most similar.
pub(super) fn unknown(name: &str, known: &[&str]) -> String {
    let of = |known: &str| strsim::jaro_winkler(&name.replace('_', "-").to_lowercase(), known);
    let similar = known.iter().map(|known| (of(known), known));
    let nearest = similar.max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest.filter(|(similarity, _)| *similarity >= MIN_SIMILARITY) {
        Some((_, nearest)) => format!("{name}: unknown; did you mean {nearest}?"),
        None => format!("{name}: unknown; `waterclock --help` lists the names"),
    }
}

/// Returns the number of the line at a byte, counted from 1.
fn line_of(text: &[u8], at: usize) -> usize {
    text.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

fn in_order<'a, 'i>(
    table: &'a DeTable<'i>,
) -> Vec<(&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// Returns the tables of an array that has nothing else, or `None` for another value.
fn tables<'a, 'i>(
    value: &'a DeValue<'i>,
) -> Option<impl Iterator<Item = (Range<usize>, &'a DeTable<'i>)>> {
    let array = value.as_array().filter(|array| !array.is_empty())?;
    let is_table = |element: &Spanned<DeValue<'_>>| element.get_ref().is_table();
    array.iter().all(is_table).then(|| {
        let table = |element: &'a Spanned<DeValue<'i>>| {
            Some((element.span(), element.get_ref().as_table()?))
        };
        array.iter().filter_map(table)
    })
}

fn entries(table: &DeTable<'_>, text: &str, problems: &mut ConfigProblems) -> Vec<ConfigEntry> {
    let entries = in_order(table).into_iter().filter_map(|(name, value)| {
        let line = line_of(text.as_bytes(), name.span().start);
        entry(name.get_ref(), line, value.get_ref(), problems)
    });
    entries.collect()
}

fn entry(
    name: &str,
    line: usize,
    value: &DeValue<'_>,
    problems: &mut ConfigProblems,
) -> Option<ConfigEntry> {
    let value = match value {
        DeValue::Boolean(flag) => Ok(ConfigValue::Flag(*flag)),
        DeValue::Array(values) => {
            let texts = values.iter().map(|value| text_of(value.get_ref()));
            texts.collect::<Option<_>>().map(ConfigValue::List).ok_or("expected a list of texts")
        }
        DeValue::Table(_) => Err("a table of this name is unknown, or is written [[name]]"),
        value => text_of(value).map(ConfigValue::Text).ok_or("expected a text, a number or a list"),
    };
    let value = value.map_err(|why| problems.error(line, format!("{name}: {why}"))).ok()?;
    Some(ConfigEntry { name: name.to_owned(), line, value })
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i128::from_str_radix(number.as_str(), number.radix());
            parsed.ok().map(|number| number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (ConfigFile, Vec<String>) {
        let mut problems = ConfigProblems::of_file(Path::new("c.toml"));
        let file = ConfigFile::parse(text, &mut problems);
        (file, problems.sorted().map(ToString::to_string).collect())
    }

    #[test]
    fn names_and_values_have_their_lines() {
        let (file, problems) = parse(
            "\u{feff}# a comment\r\nretain-age = \"7days\"\nmax-streams = 1_000\n\nlisten = [\n  \
             \"127.0.0.1:1\",\n]\nrequire-token = true\nmax-topics = 0x10\n\n[[rule]]\ntopics = \
             'a.>'\n[[rule]]\n\n[[other]]\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let text = |text: &str| ConfigValue::Text(text.to_owned());
        let expected = [
            ("retain-age", 2, text("7days")),
            ("max-streams", 3, text("1000")),
            ("listen", 5, ConfigValue::List(vec!["127.0.0.1:1".to_owned()])),
            ("require-token", 8, ConfigValue::Flag(true)),
            ("max-topics", 9, text("16")),
        ];
        let entry = |(name, line, value): (&str, usize, ConfigValue)| ConfigEntry {
            name: name.to_owned(),
            line,
            value,
        };
        assert_eq!(file.entries, expected.map(entry));
        let rules = file.tables_of("rule").map(|rule| (rule.line, rule.entries.len()));
        assert_eq!(rules.collect::<Vec<_>>(), [(11, 1), (13, 0)]);
        assert_eq!(file.tables_of("other").count(), 1);
    }

    #[test]
    fn all_errors_of_the_syntax_are_reported_by_line() {
        let (file, problems) = parse("a = 1\na = 2\nb = \nc = \"x\nd = 1979-05-27\n");
        assert_eq!(file, ConfigFile::default());
        let lines = problems.iter().map(|problem| problem.split(": ").next().unwrap());
        assert_eq!(lines.collect::<Vec<_>>(), ["c.toml:2", "c.toml:3", "c.toml:4"]);
        let (_, problems) = parse("[rule]\nx=1\n[tls]\ncert=1");
        assert_eq!(problems.len(), 2, "{problems:?}");
        let (_, problems) = parse("d = 1979-05-27\ne = [[1]]\nf = [{}, 1]");
        assert_eq!(problems.len(), 3, "{problems:?}");
    }

    #[test]
    fn a_file_that_is_none_is_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let read = |path: &Path| {
            let mut problems = ConfigProblems::of_file(Path::new("c.toml"));
            assert_eq!(ConfigFile::read(path, &mut problems), ConfigFile::default());
            problems.sorted().map(ToString::to_string).collect::<Vec<_>>()
        };
        let file = folder.path().join("c.toml");
        assert!(read(&file)[0].starts_with("c.toml: the file cannot be read: "));
        assert!(read(folder.path())[0].starts_with("c.toml: the file cannot be read: "));
        std::fs::write(&file, b"# fine\n# \xff\n").unwrap();
        assert_eq!(read(&file), ["c.toml:2: the file must be text in UTF-8"]);
        std::fs::write(&file, vec![b'#'; 1 << 21]).unwrap();
        assert_eq!(read(&file), ["c.toml: the file is larger than 1 MiB: it is no configuration"]);
        std::fs::write(&file, b"").unwrap();
        assert_eq!(read(&file), Vec::<String>::new());
    }
}
