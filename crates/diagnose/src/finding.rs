//! The result of a check.

use serde::Serialize;
use strum::{Display, IntoStaticStr, VariantArray};

use crate::{check::Check, fault::Fault};

/// The rating of a finding, from the least to the most serious. The names in kebab case are stable.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Display,
    IntoStaticStr,
    VariantArray,
    Serialize,
)]
#[strum(serialize_all = "kebab-case")]
#[serde(into = "&'static str")]
pub enum Verdict {
    /// The check was inconclusive.
    Unknown,
    /// The path does what it should.
    Good,
    /// Streams work, but not as well as they could.
    Warning,
    /// Streams do not work, or not well.
    Bad,
}

impl Verdict {
    /// All verdicts, from the least to the most serious.
    pub const ALL: &[Self] = Self::VARIANTS;

    /// Returns the name in kebab case.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check that was made.
    pub check: Check,
    /// The rating.
    pub verdict: Verdict,
    /// The measurement in words, with units; for [`Verdict::Unknown`], the reason.
    pub measured: String,
    /// The faults found. See [`remedies`](crate::remedies) for how to fix them.
    pub faults: Vec<Fault>,
}

impl Finding {
    /// Creates a finding from all its parts.
    pub fn new(
        check: Check,
        verdict: Verdict,
        measured: impl Into<String>,
        faults: impl Into<Vec<Fault>>,
    ) -> Self {
        Self { check, verdict, measured: measured.into(), faults: faults.into() }
    }

    /// Creates a finding without faults.
    pub fn good(check: Check, measured: impl Into<String>) -> Self {
        Self::new(check, Verdict::Good, measured, [])
    }

    /// Creates an inconclusive finding with its reason.
    pub fn unknown(check: Check, reason: impl Into<String>) -> Self {
        Self::new(check, Verdict::Unknown, reason, [])
    }
}
