//! The figures of the table: medians, percentiles, targets, and their format.

use std::fmt::Write as _;

/// Width of the first column, in characters.
const NAME_WIDTH: usize = 62;
/// Width of a column with figures.
const FIGURE_WIDTH: usize = 11;
/// The part of a target by which a figure may miss it before the program fails.
const TOLERANCE: f64 = 0.1;

/// Returns the middle one of the values; of two, the larger one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns the value that the given part of the sorted values do not exceed (nearest rank), or 0 if
/// there are none. `part` is between 0 and 1.
pub fn percentile(sorted: &[u64], part: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns a figure with its unit. One that is not known, NaN, is empty.
fn figure(value: f64, unit: &str) -> String {
    if value.is_nan() {
        return String::new();
    }
    let value = match value.abs() {
        large if large >= 1e6 => format!("{:.2} M", value / 1e6),
        large if large >= 1000.0 => {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "below a million"
            )]
            let digits = separated(large.round() as usize);
            if value < 0.0 { format!("-{digits}") } else { digits }
        }
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    let space = if unit.starts_with('/') || unit.is_empty() { "" } else { " " };
    format!("{}{space}{unit}", value.trim_end())
}

/// A bound for a figure. `base` is the figure that it is compared with, and `of` is its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// No bound.
    None,
    /// No bound, but a comparison.
    Compared {
        base: f64,
        of: &'static str,
    },
    AtMost(f64),
    AtLeast(f64),
    TimesAtMost {
        factor: f64,
        base: f64,
        of: &'static str,
    },
    TimesAtLeast {
        factor: f64,
        base: f64,
        of: &'static str,
    },
    /// At most `extra` more than the base.
    PlusAtMost {
        extra: f64,
        base: f64,
        of: &'static str,
    },
}

/// The result of a comparison with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetVerdict {
    /// There is no target.
    Free,
    Met,
    /// Missed, by at most a tenth of the target.
    Close,
    /// Missed by more than a tenth.
    Missed,
}

impl Target {
    /// Compares a figure with the target.
    pub fn verdict(self, value: f64) -> TargetVerdict {
        let (limit, is_maximum) = match self {
            Self::None | Self::Compared { .. } => return TargetVerdict::Free,
            Self::AtMost(limit) => (limit, true),
            Self::AtLeast(limit) => (limit, false),
            Self::TimesAtMost { factor, base, .. } => (factor * base, true),
            Self::TimesAtLeast { factor, base, .. } => (factor * base, false),
            Self::PlusAtMost { extra, base, .. } => (base + extra, true),
        };
        let (is_met, is_close) = if is_maximum {
            (value <= limit, value <= limit * (1.0 + TOLERANCE))
        } else {
            (value >= limit, value >= limit * (1.0 - TOLERANCE))
        };
        match (is_met, is_close) {
            (true, _) => TargetVerdict::Met,
            (false, true) => TargetVerdict::Close,
            // Also if the figure is not a number.
            (false, false) => TargetVerdict::Missed,
        }
    }

    fn description(self, unit: &str) -> String {
        match self {
            Self::None | Self::Compared { .. } => String::new(),
            Self::AtMost(limit) => format!("at most {}", figure(limit, unit)),
            Self::AtLeast(limit) => format!("at least {}", figure(limit, unit)),
            Self::TimesAtMost { factor, of, .. } => format!("at most {factor} times {of}"),
            Self::TimesAtLeast { factor, of, .. } => format!("at least {factor} times {of}"),
            Self::PlusAtMost { extra, of, .. } => {
                format!("at most {} more than {of}", figure(extra, unit))
            }
        }
    }

    fn comparison(self, value: f64, unit: &str) -> String {
        match self {
            Self::None | Self::AtMost(_) | Self::AtLeast(_) => String::new(),
            Self::Compared { base, of } => {
                format!("{:.2} times {of} ({})", value / base, figure(base, unit))
            }
            Self::TimesAtMost { base, .. } | Self::TimesAtLeast { base, .. } => {
                format!("{:.2} times {}", value / base, figure(base, unit))
            }
            Self::PlusAtMost { base, .. } => {
                format!("{} more than {}", figure(value - base, unit), figure(base, unit))
            }
        }
    }
}

impl TargetVerdict {
    fn text(self) -> &'static str {
        match self {
            Self::Free => "",
            Self::Met => "met",
            Self::Close => "missed by at most a tenth",
            Self::Missed => "**missed**",
        }
    }
}

/// The table of the figures and their targets. Its lines are printed as they come, in Markdown.
pub struct BenchTable {
    /// The names of the servers, the measured one last.
    servers: Vec<String>,
    /// The names of the figures that missed their target by more than a tenth.
    missed: Vec<String>,
    /// `true` if the last line belongs to the main table, whose head need not be printed again.
    has_head: bool,
}

impl BenchTable {
    /// Creates a table with a column for each server. The figures of the last one have targets.
    pub fn new(servers: &[&str]) -> Self {
        let servers = servers.iter().map(|name| (*name).to_owned()).collect();
        Self { servers, missed: Vec::new(), has_head: false }
    }

    /// Prints a line with a figure for each server, the measured one last. A figure that is not
    /// known is NaN.
    pub fn line(&mut self, name: &str, unit: &str, values: &[f64], target: Target) {
        if !self.has_head {
            self.has_head = true;
            let mut cells = vec![String::new()];
            cells.extend(self.servers.iter().cloned());
            println!("\n{}", row(&cells, "target", "measured"));
            println!("|---|{}---|---|", "--:|".repeat(self.servers.len()));
        }
        let mut cells = vec![name.to_owned()];
        cells.extend(values.iter().map(|value| figure(*value, unit)));
        let value = values.last().copied().unwrap_or(f64::NAN);
        let verdict = target.verdict(value);
        self.note(name, verdict);
        let measured = [target.comparison(value, unit), verdict.text().to_owned()];
        let measured: Vec<_> = measured.into_iter().filter(|text| !text.is_empty()).collect();
        println!("{}", row(&cells, &target.description(unit), &measured.join(": ")));
    }

    /// Prints a line with a figure of the measured server alone.
    pub fn own(&mut self, name: &str, unit: &str, value: f64, target: Target) {
        let mut values = vec![f64::NAN; self.servers.len()];
        values[self.servers.len() - 1] = value;
        self.line(name, unit, &values, target);
    }

    /// Prints a table of costs. Its last column with figures is the cost against that in the first
    /// row, which must be at most `limit`.
    pub fn growth(&mut self, growth: &Growth, limit: Option<f64>) {
        self.has_head = false;
        let target = limit.map_or_else(String::new, |limit| {
            format!(". Target: at most {limit} times the first row")
        });
        println!("\n{}{target}.\n", growth.title);
        println!("{}", row(&growth.head(), "against the first row", ""));
        println!("|---|{}--:|---|", "--:|".repeat(growth.columns.len()));
        let base = growth.rows[0].1[0];
        for (size, values) in &growth.rows {
            let verdict = limit.map_or(TargetVerdict::Free, |factor| {
                Target::TimesAtMost { factor, base, of: "" }.verdict(values[0])
            });
            self.note(&format!("{}: {}", growth.title, separated(*size)), verdict);
            let against = format!("{:.2}", values[0] / base);
            println!("{}", row(&growth.cells(*size, values), &against, verdict.text()));
        }
    }

    /// Adds a figure to those that missed their target, if it did.
    fn note(&mut self, name: &str, verdict: TargetVerdict) {
        if verdict == TargetVerdict::Missed {
            self.missed.push(name.trim().to_owned());
        }
    }

    /// Prints the figures that missed their target by more than a tenth. Returns `true` if there
    /// are none.
    pub fn finish(self) -> bool {
        if self.missed.is_empty() {
            println!("\nNo target is missed by more than a tenth.");
        } else {
            println!("\nMissed by more than a tenth:\n\n- {}", self.missed.join("\n- "));
        }
        self.missed.is_empty()
    }
}

/// Costs by size.
pub struct Growth {
    pub title: &'static str,
    /// The thing that grows.
    pub of: &'static str,
    /// Names and units of the figures. The first one is the cost.
    pub columns: Vec<(&'static str, &'static str)>,
    pub rows: Vec<(usize, Vec<f64>)>,
}

impl Growth {
    fn head(&self) -> Vec<String> {
        let names = self.columns.iter().map(|(name, _)| *name);
        [self.of].into_iter().chain(names).map(str::to_owned).collect()
    }

    fn cells(&self, size: usize, values: &[f64]) -> Vec<String> {
        let figures = self.columns.iter().zip(values);
        let figures = figures.map(|((_, unit), value)| figure(*value, unit));
        [separated(size)].into_iter().chain(figures).collect()
    }
}

/// Returns a row of a Markdown table, padded so that it can be read as text, too.
fn row(cells: &[String], target: &str, measured: &str) -> String {
    let mut text = format!("| {:<NAME_WIDTH$} |", cells[0]);
    for cell in &cells[1..] {
        let _ = write!(text, " {cell:>FIGURE_WIDTH$} |");
    }
    let _ = write!(text, " {target} | {measured} |");
    text
}

/// Returns a number with a comma after each three digits.
pub fn separated(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_value() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![7.0]) - 7.0).abs() < f64::EPSILON);
        assert!((median(vec![2.0, 1.0]) - 2.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!([0.5, 0.99, 0.999].map(|part| percentile(&hundred, part)), [50, 99, 100]);
        assert_eq!(percentile(&[5], 0.5), 5);
        assert_eq!(percentile(&[5, 6], 0.0), 5);
        assert_eq!(percentile(&[], 0.5), 0);
    }

    #[test]
    fn a_figure_has_about_three_digits() {
        let of = |value| figure(value, "us");
        assert_eq!([1.234, 12.34, 123.4].map(of), ["1.23 us", "12.3 us", "123 us"]);
        assert_eq!(figure(45_678.0, "/s"), "45,678/s");
        assert_eq!(figure(2_345_678.0, "/s"), "2.35 M/s");
        assert_eq!([2.0, f64::NAN].map(|value| figure(value, "")), ["2.00", ""]);
        assert_eq!(figure(-1234.5, "kB"), "-1,235 kB");
    }

    #[test]
    fn a_maximum_is_missed_beyond_a_tenth_of_it() {
        let verdicts = [10.0, 10.9, 11.1].map(|value| Target::AtMost(10.0).verdict(value));
        assert_eq!(verdicts, [TargetVerdict::Met, TargetVerdict::Close, TargetVerdict::Missed]);
        let of_raw = Target::TimesAtMost { factor: 1.15, base: 4.0, of: "raw" };
        assert_eq!(
            [4.6, 5.0, 5.1].map(|value| of_raw.verdict(value)),
            [TargetVerdict::Met, TargetVerdict::Close, TargetVerdict::Missed]
        );
        let plus = Target::PlusAtMost { extra: 0.2, base: 0.8, of: "raw" };
        assert_eq!(
            [0.99, 1.05, 1.2].map(|value| plus.verdict(value)),
            [TargetVerdict::Met, TargetVerdict::Close, TargetVerdict::Missed]
        );
    }

    #[test]
    fn a_minimum_is_missed_beyond_a_tenth_of_it() {
        let verdicts = [10.0, 9.1, 8.9].map(|value| Target::AtLeast(10.0).verdict(value));
        assert_eq!(verdicts, [TargetVerdict::Met, TargetVerdict::Close, TargetVerdict::Missed]);
        let half = Target::TimesAtLeast { factor: 0.5, base: 100.0, of: "alone" };
        assert_eq!(
            [50.0, 46.0, 44.0].map(|value| half.verdict(value)),
            [TargetVerdict::Met, TargetVerdict::Close, TargetVerdict::Missed]
        );
    }

    #[test]
    fn a_figure_that_is_not_a_number_misses_its_target() {
        assert_eq!(Target::AtMost(1.0).verdict(f64::NAN), TargetVerdict::Missed);
        assert_eq!(Target::AtLeast(1.0).verdict(f64::NAN), TargetVerdict::Missed);
        assert_eq!(Target::None.verdict(f64::NAN), TargetVerdict::Free);
    }

    #[test]
    fn only_figures_that_missed_by_more_than_a_tenth_make_a_table_fail() {
        let mut table = BenchTable::new(&["raw loop", "ours"]);
        table.line("a", "us", &[1.0, 1.05], Target::AtMost(1.0));
        table.own("b", "us", 7.0, Target::None);
        assert!(table.missed.is_empty());
        table.own("  c", "us", 1.2, Target::AtMost(1.0));
        assert_eq!(table.missed, ["c"]);
        assert!(!table.finish());
    }

    #[test]
    fn a_growth_table_compares_the_first_figure_with_the_first_row() {
        let rows = vec![(1, vec![2.0, 9.0]), (64_000, vec![5.0, 1.0])];
        let columns = vec![("CPU", "us"), ("p99", "ms")];
        let growth = Growth { title: "Growth", of: "patterns", columns, rows };
        assert_eq!(growth.head(), ["patterns", "CPU", "p99"]);
        assert_eq!(growth.cells(64_000, &[5.0, 1.0]), ["64,000", "5.00 us", "1.00 ms"]);
        let mut table = BenchTable::new(&["ours"]);
        table.growth(&growth, Some(2.0));
        assert_eq!(table.missed, ["Growth: 64,000"]);
    }

    #[test]
    fn a_row_is_markdown() {
        let text = row(&["a".to_owned(), "1 us".to_owned()], "at most 2", "met");
        let cells: Vec<_> = text.split('|').map(str::trim).collect();
        assert_eq!(cells, ["", "a", "1 us", "at most 2", "met", ""]);
        assert_eq!([0, 999, 1000, 1_234_567].map(separated), ["0", "999", "1,000", "1,234,567"]);
    }
}
