//! The command line.

use crate::load::PublishForm;

/// The text for `--help`.
pub const HELP: &str = "\
Usage: bench [OPTIONS] [CASE]...

Measures Waterclock next to a raw loop. CASE is the name of a case (delivery-8k) or its first words
(delivery). By default, all cases run. Servers run on core 0, so start this program on another one:
`taskset --cpu-list 1 bench`.

Options:
  --program FILE          Waterclock's program [default: target/dist/waterclock]
  --list                  List the cases
  --cluster               Measure three nodes on three servers of NATS, next to a single process.
                          The cases are others. NATS_SERVER names the program of NATS
                          [default: nats-server]
  --short                 With --cluster: a short run of each measurement, to see that it works
  --against URL           Measure another server of Server-Sent Events, which runs already: the
                          delivery cases, and memory if --pid is given. Each subscriber sends GET
                          with this URL, which begins with http://, and must get the head of the
                          response at once
  --publish URL           URL for publishing by POST to it, on the same server or another one
                          [default: that of --against]
  --publish-type TYPE     Content type of the body [default: text/plain]
  --publish-body BODY     Body of the request. {} stands for the event's data, which needs no
                          escaping: A-Z, a-z, 0-9 and - [default: {}]
  --header 'NAME: VALUE'  Field of every request to that server. May be repeated
  --pid PID               Process of that server, for its CPU time and memory. May be repeated

Exit codes:
  0    No figure misses its target by more than a tenth
  1    A figure misses its target by more than a tenth
  2    The command line is wrong, or names a file, server or process that cannot be used
  101  A measurement failed, for example because Waterclock lost, doubled or reordered an event
";

/// The command line.
#[derive(Debug, PartialEq)]
pub enum CommandLine {
    /// A server of the comparison: the raw loop.
    Raw,
    /// A server of the comparison: axum's `Sse`.
    Rival,
    /// Writes to a file, `size` bytes at a time, without a server.
    Bare {
        per_second: f64,
        size: usize,
        seconds: f64,
    },
    Help,
    List,
    Measure(BenchOptions),
}

/// The measurements to make.
#[derive(Debug, PartialEq)]
pub struct BenchOptions {
    pub program: String,
    /// Names of the cases, or their first words. Empty for all cases.
    pub cases: Vec<String>,
    /// The server to measure instead of Waterclock.
    pub against: Option<Box<Against>>,
    /// The length of the run, if a cluster is to be measured.
    pub cluster: Option<RunLength>,
}

/// The length of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunLength {
    Full,
    /// As short as possible. The figures mean nothing.
    Short,
}

/// Another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Against {
    pub subscribe: Url,
    pub publish: Url,
    pub form: PublishForm,
    /// Fields of every request, such as `Authorization: Bearer …`.
    pub headers: Vec<String>,
    pub pids: Vec<u32>,
}

/// An `http` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The host and the port.
    pub authority: String,
    /// The path, and perhaps a query.
    pub path: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("http://").ok_or_else(|| {
            format!(
                "{text} is not a URL that begins with http://, such as http://127.0.0.1:3000/sse"
            )
        })?;
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        if authority.is_empty() {
            return Err(format!("{text} has no host"));
        }
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { authority.to_owned() } else { format!("{authority}:80") };
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self { authority, path: format!("{slash}{path}") })
    }
}

impl CommandLine {
    /// Parses the arguments after the program's name.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let words: Vec<_> = arguments.iter().map(String::as_str).collect();
        match words[..] {
            ["raw"] => Ok(Self::Raw),
            ["rival"] => Ok(Self::Rival),
            ["bare", per_second, size, seconds] => Ok(Self::Bare {
                per_second: number(per_second)?,
                size: number(size)?,
                seconds: number(seconds)?,
            }),
            _ if words.iter().any(|word| ["--help", "-h"].contains(word)) => Ok(Self::Help),
            _ if words.contains(&"--list") => Ok(Self::List),
            _ => Ok(Self::Measure(options(&words)?)),
        }
    }
}

fn options(words: &[&str]) -> Result<BenchOptions, String> {
    let mut program = "target/dist/waterclock".to_owned();
    let (mut cases, mut pids, mut headers) = (Vec::new(), Vec::new(), Vec::new());
    let (mut subscribe, mut publish, mut form) = (None, None, PublishForm::default());
    let (mut only_against, mut is_cluster, mut length) = (None, false, RunLength::Full);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            cases.push((*word).to_owned());
            continue;
        }
        // `--name value` or `--name=value`.
        let (name, value) =
            word.split_once('=').map_or((*word, None), |(name, value)| (name, Some(value)));
        let mut value = || {
            value.or_else(|| words.next().copied()).ok_or_else(|| format!("{name} needs a value"))
        };
        if !["--program", "--against", "--cluster", "--short"].contains(&name) {
            only_against = Some(name);
        }
        match name {
            "--program" => value()?.clone_into(&mut program),
            "--cluster" => is_cluster = true,
            "--short" => length = RunLength::Short,
            "--against" => subscribe = Some(Url::parse(value()?)?),
            "--publish" => publish = Some(Url::parse(value()?)?),
            "--publish-type" => value()?.clone_into(&mut form.media_type),
            "--publish-body" => value()?.clone_into(&mut form.body),
            "--header" => headers.push(header(value()?)?),
            "--pid" => pids.push(number(value()?)?),
            _ => return Err(format!("{name} is not an option")),
        }
    }
    if !form.body.contains("{}") {
        return Err("--publish-body needs {} for the event's data".to_owned());
    }
    if length == RunLength::Short && !is_cluster {
        return Err("--short needs --cluster".to_owned());
    }
    let cluster = is_cluster.then_some(length);
    let Some(subscribe) = subscribe else {
        return match only_against {
            Some(name) => Err(format!("{name} needs --against")),
            None => Ok(BenchOptions { program, cases, against: None, cluster }),
        };
    };
    if is_cluster {
        return Err("--cluster cannot be used with --against".to_owned());
    }
    let publish = publish.unwrap_or_else(|| subscribe.clone());
    form.path.clone_from(&publish.path);
    let against = Against { subscribe, publish, form, headers, pids };
    let against = Some(Box::new(against));
    Ok(BenchOptions { program, cases, against, cluster: None })
}

fn header(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((name, _)) if !name.trim().is_empty() && !text.contains(['\r', '\n']) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("{text:?} is not a field such as 'Authorization: Bearer x'")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CommandLine, String> {
        CommandLine::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn measured(text: &str) -> BenchOptions {
        match parse(text) {
            Ok(CommandLine::Measure(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_arguments_all_cases_run() {
        let program = "target/dist/waterclock".to_owned();
        let cases = Vec::new();
        assert_eq!(measured(""), BenchOptions { program, cases, against: None, cluster: None });
    }

    #[test]
    fn cases_and_the_program_can_be_named() {
        let options = measured("delivery --program /bin/w memory");
        assert_eq!((options.program.as_str(), options.cases.len()), ("/bin/w", 2));
        assert_eq!(measured("--program=/bin/w").program, "/bin/w");
    }

    #[test]
    fn a_cluster_can_be_measured_at_length_or_shortly() {
        let options = measured("--cluster delivery");
        assert_eq!((options.cluster, options.cases.len()), (Some(RunLength::Full), 1));
        assert_eq!(measured("--short --cluster").cluster, Some(RunLength::Short));
    }

    #[test]
    fn another_server_is_published_to_where_it_is_read_by_default() {
        let against = measured("--against http://localhost:80/sub/t?x=1").against.unwrap();
        let url = Url { authority: "localhost:80".to_owned(), path: "/sub/t?x=1".to_owned() };
        assert_eq!((&against.subscribe, &against.publish), (&url, &url));
        assert_eq!(against.form.path, "/sub/t?x=1");
        assert!(against.pids.is_empty());
    }

    #[test]
    fn the_publishing_of_another_server_can_be_set() {
        let against = measured(
            "--against http://a:1/sub --publish http://b:2/pub --publish-type application/json \
             --publish-body {\"data\":\"{}\"} --header A:b --pid 7 --pid 8",
        );
        let against = against.against.unwrap();
        assert_eq!((against.publish.authority.as_str(), against.pids), ("b:2", vec![7, 8]));
        assert_eq!(against.form.path, "/pub");
        assert_eq!(against.form.media_type, "application/json");
        assert_eq!(against.form.body, "{\"data\":\"{}\"}");
        assert_eq!(against.headers, ["A:b"]);
    }

    #[test]
    fn a_url_without_a_path_or_port_gets_the_default() {
        let url = |text| Url::parse(text).map(|url| (url.authority, url.path));
        let root = |authority: &str| Ok((authority.to_owned(), "/".to_owned()));
        assert_eq!(url("http://host"), root("host:80"));
        assert_eq!(url("http://[::1]:9/"), root("[::1]:9"));
        assert_eq!(url("http://h:1?a=b"), Ok(("h:1".to_owned(), "/?a=b".to_owned())));
        assert!(url("https://host/").is_err());
        assert!(url("http:///x").is_err());
    }

    #[test]
    fn mistakes_are_reported() {
        for wrong in [
            "--colour",
            "--against",
            "--against host",
            "--pid 1",
            "--against http://h --pid x",
            "--against http://h --publish-body x",
            "--against http://h --header x",
            "--short",
            "--cluster --against http://h",
            "bare 1 2 x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_servers_of_the_comparison_have_commands_of_their_own() {
        assert_eq!(parse("raw"), Ok(CommandLine::Raw));
        assert_eq!(parse("rival"), Ok(CommandLine::Rival));
        let bare = CommandLine::Bare { per_second: 20.0, size: 200, seconds: 1.5 };
        assert_eq!(parse("bare 20 200 1.5"), Ok(bare));
        assert_eq!(
            (parse("--help"), parse("x --list")),
            (Ok(CommandLine::Help), Ok(CommandLine::List))
        );
    }
}
