//! All that was found of a path: as text, fit for a ticket, and as JSON.

use std::fmt;

use serde::{Serialize, Serializer};

use waterclock::timestamp::Timestamp;

use crate::{Fault, Finding, Intermediary, Mend, Protocol, Recognised, Verdict, mends};

/// What is known of the path itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// What the client speaks to whom it reaches.
    pub client: Option<Protocol>,
    /// What the server was asked in.
    pub server: Option<Protocol>,
    /// Those recognised.
    pub intermediaries: Vec<Recognised>,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was asked for.
    pub url: String,
    /// What was measured.
    pub stream: String,
    /// When.
    pub time: Timestamp,
    /// Whether the server helped, by its probe.
    pub is_probe: bool,
    /// What is on the way.
    pub path: Path,
    /// What each check has told.
    pub findings: Vec<Finding>,
}

impl Path {
    /// What it leads through, in words.
    pub fn words(&self) -> String {
        if self.intermediaries.is_empty() {
            return "no proxy recognised (HAProxy never is: it adds no header)".to_owned();
        }
        let words = |one: &Recognised| format!("{} (by {})", one.intermediary.title(), one.by);
        self.intermediaries.iter().map(words).collect::<Vec<_>>().join(", ")
    }
}

impl Report {
    /// The worst verdict; that one could not tell counts for nothing unless it is all there is.
    pub fn outcome(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Unknown)
    }

    /// What the program exits with: 1 if something is bad, or there is a warning with a mend; else 0.
    pub fn exit_code(&self) -> u8 {
        let is_found = |finding: &Finding| match finding.verdict {
            Verdict::Bad => true,
            Verdict::Warning => !finding.faults.is_empty(),
            Verdict::Good | Verdict::Unknown => false,
        };
        u8::from(self.findings.iter().any(is_found))
    }

    /// What mends a fault on this path.
    pub fn mends(&self, fault: Fault) -> Vec<Mend> {
        mends(fault, &self.path.intermediaries)
    }

    /// What all of it comes to, in a sentence.
    pub fn summary(&self) -> String {
        let count =
            |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        match (count(Verdict::Bad), count(Verdict::Warning), count(Verdict::Unknown)) {
            (0, 0, 0) => "Nothing was found: streams work here.".to_owned(),
            (0, 0, unknown) => format!("Nothing was found; {unknown} could not be told."),
            (0, 1, _) => "Found: 1 warning.".to_owned(),
            (0, warnings, _) => format!("Found: {warnings} warnings."),
            (bad, 0, _) => format!("Found: {bad} bad."),
            (bad, 1, _) => format!("Found: {bad} bad, 1 warning."),
            (bad, warnings, _) => format!("Found: {bad} bad, {warnings} warnings."),
        }
    }
}

/// A finding on one line, in columns.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, verdict, measured, .. } = self;
        write!(f, "{:<24}{:<16}{measured}", check.title(), verdict.title())
    }
}

/// Text for a ticket: what was measured, when, what is on the way, a line for each check, and beneath it what mends
/// what is wrong.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Head(self))?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(f, "\n{}", Tail(self))
    }
}

impl Report {
    /// The text's beginning, for who tells the findings as they come: what was measured, and when.
    pub fn head(&self) -> impl fmt::Display + '_ {
        Head(self)
    }

    /// The text's end, for who has told the findings already: what is on the way, what is wrong and what mends it,
    /// and what all comes to.
    pub fn tail(&self) -> impl fmt::Display + '_ {
        Tail(self)
    }
}

struct Head<'a>(&'a Report);

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { url, stream, time, is_probe, .. } = self.0;
        let by = if *is_probe { "Waterclock's probe" } else { "the stream itself: no probe there" };
        writeln!(f, "URL       {url}")?;
        writeln!(f, "Measured  {stream} ({by})")?;
        writeln!(f, "Time      {time}")
    }
}

struct Tail<'a>(&'a Report);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        writeln!(f, "Path      {}", report.path.words())?;
        // A fault that two checks have found is mended once.
        let mut told = Vec::new();
        for fault in report.findings.iter().flat_map(|finding| &finding.faults) {
            if told.contains(fault) {
                continue;
            }
            told.push(*fault);
            writeln!(f, "\n{fault}: {}", fault.title())?;
            for Mend { intermediary, text } in report.mends(*fault) {
                match intermediary {
                    Some(intermediary) => writeln!(f, "  {}: {text}", intermediary.title())?,
                    None => writeln!(f, "  {text}")?,
                }
            }
        }
        writeln!(f, "\n{}", report.summary())
    }
}

/// The report as JSON has it; docs/diagnose.md has the names.
#[derive(Serialize)]
struct View<'a> {
    url: &'a str,
    stream: &'a str,
    time: Timestamp,
    probe: bool,
    path: ViewOfPath<'a>,
    outcome: Verdict,
    findings: Vec<ViewOfFinding<'a>>,
}

#[derive(Serialize)]
struct ViewOfPath<'a> {
    client: Option<Protocol>,
    server: Option<Protocol>,
    intermediaries: Vec<ViewOfIntermediary<'a>>,
}

#[derive(Serialize)]
struct ViewOfIntermediary<'a> {
    name: Intermediary,
    title: &'static str,
    by: &'a str,
}

#[derive(Serialize)]
struct ViewOfFinding<'a> {
    check: crate::Check,
    title: &'static str,
    verdict: Verdict,
    measured: &'a str,
    faults: Vec<ViewOfFault>,
}

#[derive(Serialize)]
struct ViewOfFault {
    name: Fault,
    title: &'static str,
    mends: Vec<Mend>,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let intermediaries = self.path.intermediaries.iter().map(|one| ViewOfIntermediary {
            name: one.intermediary,
            title: one.intermediary.title(),
            by: &one.by,
        });
        let fault = |fault: &Fault| ViewOfFault {
            name: *fault,
            title: fault.title(),
            mends: self.mends(*fault),
        };
        let findings = self.findings.iter().map(|finding| ViewOfFinding {
            check: finding.check,
            title: finding.check.title(),
            verdict: finding.verdict,
            measured: &finding.measured,
            faults: finding.faults.iter().map(fault).collect(),
        });
        let view = View {
            url: &self.url,
            stream: &self.stream,
            time: self.time,
            probe: self.is_probe,
            path: ViewOfPath {
                client: self.path.client,
                server: self.path.server,
                intermediaries: intermediaries.collect(),
            },
            outcome: self.outcome(),
            findings: findings.collect(),
        };
        view.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Check, recognise};

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            url: "https://clock.example/".to_owned(),
            stream: "https://clock.example/diagnose/stream".to_owned(),
            time: Timestamp::from_millis(1_795_330_841_217),
            is_probe: true,
            path: Path {
                client: Some(Protocol::Http2),
                server: None,
                intermediaries: recognise([("server", "nginx/1.22.1")], []),
            },
            findings,
        }
    }

    fn held() -> Vec<Finding> {
        let held = "something holds back about 4.0 kB";
        vec![
            Finding::good(Check::Protocol, "HTTP/1.1 at both ends"),
            Finding::wrong(Check::FirstEvent, Verdict::Bad, "only after 2 s", [Fault::Buffering]),
            Finding::wrong(Check::Delivery, Verdict::Bad, held, [Fault::Buffering]),
        ]
    }

    #[test]
    fn as_text() {
        let text = report(held()).to_string();
        let expected = "\
URL       https://clock.example/
Measured  https://clock.example/diagnose/stream (Waterclock's probe)
Time      2026-11-22T07:00:41.217Z

Protocol                good            HTTP/1.1 at both ends
First event             bad             only after 2 s
Delivery                bad             something holds back about 4.0 kB

Path      nginx (by `server: nginx/1.22.1` in the answer)

buffering: events are held back in a buffer
  nginx: `proxy_buffering off;` in the location";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("\n\nFound: 2 bad.\n"), "{text}");
        assert_eq!(text.matches("proxy_buffering off").count(), 1, "{text}");
    }

    #[test]
    fn as_json() {
        let mut value = serde_json::to_value(report(held())).unwrap();
        let mends = value["findings"][2]["faults"][0]["mends"].take();
        assert_eq!(mends[0]["intermediary"], "nginx");
        assert_eq!(
            value["findings"][2],
            json!({
                "check": "delivery",
                "title": "Delivery",
                "verdict": "bad",
                "measured": "something holds back about 4.0 kB",
                "faults": [
                    {"name": "buffering", "title": "events are held back in a buffer", "mends": null},
                ],
            })
        );
        value["findings"].take();
        assert_eq!(
            value,
            json!({
                "url": "https://clock.example/",
                "stream": "https://clock.example/diagnose/stream",
                "time": "2026-11-22T07:00:41.217Z",
                "probe": true,
                "path": {
                    "client": "HTTP/2",
                    "server": null,
                    "intermediaries": [
                        {"name": "nginx", "title": "nginx", "by": "`server: nginx/1.22.1` in the answer"},
                    ],
                },
                "outcome": "bad",
                "findings": null,
            })
        );
    }

    #[test]
    fn outcomes_and_exit_codes() {
        let check = Check::RoundTrip;
        let good = Finding::good(check, "");
        let unknown = Finding::unknown(check, "");
        let warning = Finding::wrong(check, Verdict::Warning, "", []);
        let mendable = Finding::wrong(check, Verdict::Warning, "", [Fault::ClockOff]);
        let bad = Finding::wrong(check, Verdict::Bad, "", [Fault::Cached]);
        for (findings, outcome, code) in [
            (vec![], Verdict::Unknown, 0),
            (vec![unknown.clone()], Verdict::Unknown, 0),
            (vec![unknown.clone(), good.clone()], Verdict::Good, 0),
            (vec![warning, good.clone()], Verdict::Warning, 0),
            (vec![mendable, good], Verdict::Warning, 1),
            (vec![bad, unknown], Verdict::Bad, 1),
        ] {
            let report = report(findings);
            assert_eq!((report.outcome(), report.exit_code()), (outcome, code));
        }
    }
}
