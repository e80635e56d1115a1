//! The report of a diagnosis: as text for a ticket, and as JSON.

use std::fmt;

use serde::{Serialize, Serializer};
use waterclock::timestamp::Timestamp;

use crate::{
    check::Check,
    fault::Fault,
    finding::{Finding, Verdict},
    intermediary::{Detection, Intermediary},
    protocol::Protocol,
    remedy::{Remedy, remedies},
};

/// The participants of a path, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathInfo {
    /// The version of HTTP in which the client received the response.
    pub client: Option<Protocol>,
    /// The version of HTTP in which the server received the request.
    pub server: Option<Protocol>,
    /// The intermediaries that were detected.
    pub intermediaries: Vec<Detection>,
}

/// A report on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The URL that the user entered.
    pub url: String,
    /// The URL of the stream that was measured.
    pub stream: String,
    /// Time of the diagnosis.
    pub time: Timestamp,
    /// `true` if the server has a probe, `false` if an ordinary stream was measured.
    pub is_probe: bool,
    /// The participants.
    pub path: PathInfo,
    /// The findings, in the order of [`Check::ALL`].
    pub findings: Vec<Finding>,
}

impl PathInfo {
    /// Describes the intermediaries in words.
    pub fn describe(&self) -> String {
        if self.intermediaries.is_empty() {
            return "no proxy detected (HAProxy adds no header, so it never is)".to_owned();
        }
        let describe = |detection: &Detection| {
            format!("{} (by {})", detection.intermediary.title(), detection.evidence)
        };
        self.intermediaries.iter().map(describe).collect::<Vec<_>>().join(", ")
    }
}

impl Report {
    /// Returns the most serious verdict. [`Verdict::Unknown`] is the least serious one.
    pub fn outcome(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.verdict);
        verdicts.max().unwrap_or(Verdict::Unknown)
    }

    /// Returns the exit code of the program: 1 if a finding is bad, or is a warning with a fault;
    /// otherwise 0.
    pub fn exit_code(&self) -> u8 {
        let is_problem = |finding: &Finding| match finding.verdict {
            Verdict::Bad => true,
            Verdict::Warning => !finding.faults.is_empty(),
            Verdict::Good | Verdict::Unknown => false,
        };
        u8::from(self.findings.iter().any(is_problem))
    }

    /// Summarizes the report in one sentence.
    pub fn summary(&self) -> String {
        let count =
            |verdict| self.findings.iter().filter(|finding| finding.verdict == verdict).count();
        match (count(Verdict::Bad), count(Verdict::Warning), count(Verdict::Unknown)) {
            (0, 0, 0) => "No problems found: streams work here.".to_owned(),
            (0, 0, 1) => "No problems found; 1 check was inconclusive.".to_owned(),
            (0, 0, unknown) => format!("No problems found; {unknown} checks were inconclusive."),
            (0, 1, _) => "Problems found: 1 warning.".to_owned(),
            (0, warnings, _) => format!("Problems found: {warnings} warnings."),
            (bad, 0, _) => format!("Problems found: {bad} bad."),
            (bad, 1, _) => format!("Problems found: {bad} bad, 1 warning."),
            (bad, warnings, _) => format!("Problems found: {bad} bad, {warnings} warnings."),
        }
    }

    /// Returns the beginning of the text: the URL and the time. It is for programs that print each
    /// finding as soon as it is known.
    pub fn head(&self) -> impl fmt::Display + '_ {
        ReportHead(self)
    }

    /// Returns the end of the text: the path, the faults with their remedies, and the summary. It
    /// is for programs that have already printed the findings.
    pub fn tail(&self) -> impl fmt::Display + '_ {
        ReportTail(self)
    }
}

/// Formats a finding as one line with columns.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { check, verdict, measured, .. } = self;
        write!(f, "{:<24}{verdict:<16}{measured}", check.title())
    }
}

/// Formats the report as text: the URL and the time, a line for each finding, the path, the faults
/// with their remedies, and the summary.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", ReportHead(self))?;
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        write!(f, "\n{}", ReportTail(self))
    }
}

struct ReportHead<'a>(&'a Report);

impl fmt::Display for ReportHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { url, stream, time, is_probe, .. } = self.0;
        let source = if *is_probe { "Waterclock's probe" } else { "no probe, the stream itself" };
        writeln!(f, "URL       {url}")?;
        writeln!(f, "Measured  {stream} ({source})")?;
        writeln!(f, "Time      {time}")
    }
}

struct ReportTail<'a>(&'a Report);

impl fmt::Display for ReportTail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { path, findings, .. } = self.0;
        writeln!(f, "Path      {}", path.describe())?;
        // A fault of several findings is described only once.
        let mut described = Vec::new();
        for fault in findings.iter().flat_map(|finding| &finding.faults) {
            if described.contains(fault) {
                continue;
            }
            described.push(*fault);
            writeln!(f, "\n{fault}: {}", fault.title())?;
            for Remedy { intermediary, text } in remedies(*fault, &path.intermediaries) {
                match intermediary {
                    Some(intermediary) => writeln!(f, "  {}: {text}", intermediary.title())?,
                    None => writeln!(f, "  {text}")?,
                }
            }
        }
        writeln!(f, "\n{}", self.0.summary())
    }
}

/// The JSON form of a report. The keys are stable; `docs/diagnose.md` in the repository lists them.
#[derive(Serialize)]
struct ReportJson<'a> {
    url: &'a str,
    stream: &'a str,
    time: Timestamp,
    probe: bool,
    path: PathJson<'a>,
    outcome: Verdict,
    findings: Vec<FindingJson<'a>>,
}

#[derive(Serialize)]
struct PathJson<'a> {
    client: Option<Protocol>,
    server: Option<Protocol>,
    intermediaries: Vec<DetectionJson<'a>>,
}

#[derive(Serialize)]
struct DetectionJson<'a> {
    name: Intermediary,
    title: &'static str,
    by: &'a str,
}

#[derive(Serialize)]
struct FindingJson<'a> {
    check: Check,
    title: &'static str,
    verdict: Verdict,
    measured: &'a str,
    faults: Vec<FaultJson>,
}

#[derive(Serialize)]
struct FaultJson {
    name: Fault,
    title: &'static str,
    #[serde(rename = "mends")]
    remedies: Vec<Remedy>,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let detections = &self.path.intermediaries;
        let intermediaries = detections.iter().map(|detection| DetectionJson {
            name: detection.intermediary,
            title: detection.intermediary.title(),
            by: &detection.evidence,
        });
        let fault = |fault: &Fault| FaultJson {
            name: *fault,
            title: fault.title(),
            remedies: remedies(*fault, detections),
        };
        let findings = self.findings.iter().map(|finding| FindingJson {
            check: finding.check,
            title: finding.check.title(),
            verdict: finding.verdict,
            measured: &finding.measured,
            faults: finding.faults.iter().map(fault).collect(),
        });
        let json = ReportJson {
            url: &self.url,
            stream: &self.stream,
            time: self.time,
            probe: self.is_probe,
            path: PathJson {
                client: self.path.client,
                server: self.path.server,
                intermediaries: intermediaries.collect(),
            },
            outcome: self.outcome(),
            findings: findings.collect(),
        };
        json.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::intermediary::detect_intermediaries;

    fn report(findings: Vec<Finding>) -> Report {
        Report {
            url: "https://clock.example/".to_owned(),
            stream: "https://clock.example/diagnose/stream".to_owned(),
            time: Timestamp::from_millis(1_795_330_841_217),
            is_probe: true,
            path: PathInfo {
                client: Some(Protocol::Http2),
                server: None,
                intermediaries: detect_intermediaries([("server", "nginx/1.22.1")], []),
            },
            findings,
        }
    }

    fn held_back() -> Vec<Finding> {
        let measured = "a buffer holds back about 4.0 kB";
        vec![
            Finding::good(Check::Protocol, "HTTP/1.1 at both ends"),
            Finding::new(Check::FirstEvent, Verdict::Bad, "only after 2 s", [Fault::Buffering]),
            Finding::new(Check::Delivery, Verdict::Bad, measured, [Fault::Buffering]),
        ]
    }

    #[test]
    fn the_text_lists_each_fault_once() {
        let text = report(held_back()).to_string();
        let expected = "\
URL       https://clock.example/
Measured  https://clock.example/diagnose/stream (Waterclock's probe)
Time      2026-11-22T07:00:41.217Z

Protocol                good            HTTP/1.1 at both ends
First event             bad             only after 2 s
Delivery                bad             a buffer holds back about 4.0 kB

Path      nginx (by `server: nginx/1.22.1` in the response)

buffering: events are held back in a buffer
  nginx: Set `proxy_buffering off;`";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("\n\nProblems found: 2 bad.\n"), "{text}");
        assert_eq!(text.matches("proxy_buffering off").count(), 1, "{text}");
    }

    #[test]
    fn the_json_has_the_documented_keys() {
        let mut value = serde_json::to_value(report(held_back())).unwrap();
        let remedies = value["findings"][2]["faults"][0]["mends"].take();
        assert_eq!(remedies[0]["intermediary"], "nginx");
        assert_eq!(
            value["findings"][2],
            json!({
                "check": "delivery",
                "title": "Delivery",
                "verdict": "bad",
                "measured": "a buffer holds back about 4.0 kB",
                "faults": [
                    {
                        "name": "buffering",
                        "title": "events are held back in a buffer",
                        "mends": null,
                    },
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
                        {
                            "name": "nginx",
                            "title": "nginx",
                            "by": "`server: nginx/1.22.1` in the response",
                        },
                    ],
                },
                "outcome": "bad",
                "findings": null,
            })
        );
    }

    #[test]
    fn the_outcome_is_the_most_serious_verdict() {
        let check = Check::RoundTrip;
        let good = Finding::good(check, "");
        let unknown = Finding::unknown(check, "");
        let warning = Finding::new(check, Verdict::Warning, "", []);
        let fixable = Finding::new(check, Verdict::Warning, "", [Fault::ClockOff]);
        let bad = Finding::new(check, Verdict::Bad, "", [Fault::Cached]);
        for (findings, outcome, code) in [
            (vec![], Verdict::Unknown, 0),
            (vec![unknown.clone()], Verdict::Unknown, 0),
            (vec![unknown.clone(), good.clone()], Verdict::Good, 0),
            (vec![warning, good.clone()], Verdict::Warning, 0),
            (vec![fixable, good], Verdict::Warning, 1),
            (vec![bad, unknown], Verdict::Bad, 1),
        ] {
            let report = report(findings);
            assert_eq!((report.outcome(), report.exit_code()), (outcome, code));
        }
    }
}
