//! The output of `waterclock diagnose` while it runs.

use std::{
    fmt::Display,
    io::{self, Write},
};

use waterclock_diagnose::{Finding, Report};

/// Collects the findings of a report, and prints each of them at once.
pub(super) struct ReportPrinter {
    pub(super) report: Report,
    /// `true` if standard output must have nothing but the JSON.
    is_json: bool,
}

impl ReportPrinter {
    /// Prints the head of a report without findings.
    pub(super) fn start(report: Report, is_json: bool) -> Self {
        let printer = Self { report, is_json };
        printer.print(printer.report.head());
        printer.print("");
        printer
    }

    /// Prints a finding and adds it to the report.
    pub(super) fn add(&mut self, finding: Finding) {
        self.print(&finding);
        self.report.findings.push(finding);
    }

    fn print(&self, line: impl Display) {
        if self.is_json {
            print_line(&mut io::stderr(), line);
        } else {
            print_line(&mut io::stdout(), line);
        }
    }

    /// Returns the report, with its findings in order.
    pub(super) fn finish(mut self) -> Report {
        self.report.findings.sort_by_key(|finding| finding.check);
        self.report
    }
}

/// Prints a line. Errors are ignored: a reader that closes the pipe wants no more.
pub(super) fn print_line(output: &mut impl Write, line: impl Display) {
    let _ = writeln!(output, "{}", line.to_string().trim_end());
    let _ = output.flush();
}
