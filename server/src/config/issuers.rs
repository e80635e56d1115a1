//! The tables `[[issuer]]`: issuers of tokens, in addition to the one of the options.

use std::{convert::Infallible, path::PathBuf};

use waterclock::pattern::Pattern;

use super::{
    file::{ConfigFile, ConfigTable},
    problem::ConfigProblems,
};
use crate::auth::{IssuerSettings, MAX_BOUNDS};

/// The names in a table of an issuer.
pub const ISSUER_NAMES: [&str; 7] =
    ["issuer", "jwks", "secret-file", "public-key-file", "audience", "publish", "subscribe"];

/// Maximum number of issuers. A token is compared with each name.
const MAX_ISSUERS: usize = 100;

/// An issuer of the file.
#[derive(Clone, Debug)]
pub struct ConfigIssuer {
    /// The line of its table.
    pub line: usize,
    /// The settings.
    pub settings: IssuerSettings,
}

/// Returns the issuers of a file, in their order. Reports what is wrong with them.
pub fn issuers(file: &ConfigFile, problems: &mut ConfigProblems) -> Vec<ConfigIssuer> {
    if let Some(table) = file.tables_of("issuer").nth(MAX_ISSUERS) {
        let why = format!("issuer: a file may have {MAX_ISSUERS} issuers; leave out some");
        problems.error(table.line, why);
    }
    let mut issuers: Vec<ConfigIssuer> = Vec::new();
    for table in file.tables_of("issuer").take(MAX_ISSUERS) {
        let settings = issuer(table, problems);
        let twin = issuers.iter().find(|other| other.settings.issuer == settings.issuer);
        if let (Some(name), Some(twin)) = (&settings.issuer, twin) {
            let line = table.entry("issuer").map_or(table.line, |entry| entry.line);
            let why = format!(
                "issuer: {name:?} is the name of the issuer on line {}, too: join them into one table",
                twin.line
            );
            problems.error(line, why);
        }
        issuers.push(ConfigIssuer { line: table.line, settings });
    }
    issuers
}

fn issuer(table: &ConfigTable, problems: &mut ConfigProblems) -> IssuerSettings {
    table.check_names(&ISSUER_NAMES, problems);
    let text = |name: &str, problems: &mut ConfigProblems| {
        let text = |text: &str| match text {
            "" => Err("expected a text that is not empty"),
            text => Ok(text.to_owned()),
        };
        table.entry(name)?.parse(text, problems)
    };
    let files = |name: &str, problems: &mut ConfigProblems| {
        let file = |text: &str| Ok::<_, Infallible>(PathBuf::from(text));
        table.entry(name).map(|entry| entry.parse_list(file, problems)).unwrap_or_default()
    };
    let bound = |name: &str, problems: &mut ConfigProblems| {
        let entry = table.entry(name)?;
        let patterns = entry.parse_list(str::parse::<Pattern>, problems);
        if patterns.len() > MAX_BOUNDS {
            let why = format!("{name}: expected at most {MAX_BOUNDS} patterns");
            problems.error(entry.line, why);
        }
        Some(patterns)
    };
    let jwks = table.entry("jwks").map(|entry| entry.parse_list(str::parse, problems));
    let settings = IssuerSettings {
        issuer: text("issuer", problems),
        jwks: jwks.unwrap_or_default(),
        secret_file: files("secret-file", problems),
        public_key_file: files("public-key-file", problems),
        audience: text("audience", problems),
        publish: bound("publish", problems),
        subscribe: bound("subscribe", problems),
    };
    if table.entry("issuer").is_none() {
        let why = "issuer: needs issuer, the `iss` of its tokens, such as issuer = \"shop\"";
        problems.error(table.line, why);
    }
    // A place that is not valid has been reported.
    let places = ["jwks", "secret-file", "public-key-file"];
    let has_valid_places = settings.has_keys();
    let has_other_text = places.iter().filter_map(|name| table.entry(name)).any(
        |entry| !matches!(&entry.value, super::file::ConfigValue::List(texts) if texts.is_empty()),
    );
    if !has_valid_places && !has_other_text {
        let why = "issuer: has no keys; give it jwks, public-key-file or secret-file";
        problems.error(table.line, why);
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn parse(text: &str) -> (Vec<IssuerSettings>, Vec<String>) {
        let mut problems = ConfigProblems::of_file(Path::new("c.toml"));
        let file = ConfigFile::parse(text, &mut problems);
        let issuers = issuers(&file, &mut problems);
        let settings = issuers.into_iter().map(|issuer| issuer.settings).collect();
        (settings, problems.sorted().map(ToString::to_string).collect())
    }

    #[test]
    fn an_issuer_has_the_settings_of_its_table() {
        let (issuers, problems) = parse(
            "[[issuer]]\nissuer = 'a'\njwks = ['https://login.example/keys', 'keys.json']\naudience = \
             'events'\nsubscribe = ['orders.>', 'clock']\npublish = []\n[[issuer]]\nissuer = \
             'b'\npublic-key-file = 'b.pem'\nsecret-file = ['x', 'y']\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let [first, second] = &issuers[..] else { panic!("{issuers:?}") };
        let expected = IssuerSettings {
            issuer: Some("a".to_owned()),
            jwks: ["https://login.example/keys", "keys.json"]
                .map(|text| text.parse().unwrap())
                .into(),
            audience: Some("events".to_owned()),
            subscribe: Some(["orders.>", "clock"].map(|text| text.parse().unwrap()).into()),
            publish: Some(Vec::new()),
            ..IssuerSettings::default()
        };
        assert_eq!(*first, expected);
        let expected = IssuerSettings {
            issuer: Some("b".to_owned()),
            public_key_file: vec!["b.pem".into()],
            secret_file: vec!["x".into(), "y".into()],
            ..IssuerSettings::default()
        };
        assert_eq!(*second, expected);
    }

    #[test]
    fn each_problem_of_an_issuer_has_its_line() {
        let many = vec!["'a'"; MAX_BOUNDS + 1].join(",");
        let (_, problems) = parse(&format!(
            "[[issuer]]\nissuer = 'a'\njwks = 'http://login.example/keys'\n[[issuer]]\nissuer = \
             'a'\njwks = []\n[[issuer]]\nsecret_file = 'x'\nsecret-file = 'y'\n[[issuer]]\nissuer = \
             ['b']\nsecret-file = true\npublish = 'a..b'\nsubscribe = [{many}]\naudience = ''\n"
        ));
        let starts = [
            "c.toml:3: jwks: expected a file or an https URL",
            "c.toml:4: issuer: has no keys; give it jwks,",
            "c.toml:5: issuer: \"a\" is the name of the issuer on line 1, too",
            "c.toml:7: issuer: needs issuer, the `iss` of its tokens",
            "c.toml:8: secret_file: unknown; did you mean secret-file?",
            "c.toml:11: issuer: expected one value, not a list",
            "c.toml:12: secret-file: expected a text or a list",
            "c.toml:13: publish: \"a..b\": not a pattern",
            "c.toml:14: subscribe: expected at most 100 patterns",
            "c.toml:15: audience: expected a text that is not empty",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
        let table = |number| format!("[[issuer]]\nissuer = '{number}'\nsecret-file = 'x'\n");
        let (issuers, problems) = parse(&(0..105).map(table).collect::<Vec<_>>().concat());
        assert_eq!(issuers.len(), MAX_ISSUERS);
        assert_eq!(problems, ["c.toml:301: issuer: a file may have 100 issuers; leave out some"]);
    }
}
