//! Points in time, as events carry them: UTC, to the millisecond, in RFC 3339.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// A point in time in UTC, to the millisecond.
///
/// Written and read as RFC 3339 with exactly three decimals.
///
/// ```
/// # use waterclock::timestamp::Timestamp;
/// let time: Timestamp = "2026-11-22T07:00:01.5+01:00".parse()?;
/// assert_eq!(time.to_string(), "2026-11-22T06:00:01.500Z");
/// # Ok::<_, waterclock::timestamp::ParseTimestampError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp(jiff::Timestamp);

/// A text that is not a time in RFC 3339.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a time in RFC 3339, such as 2026-11-22T07:00:01.000Z")]
pub struct ParseTimestampError {
    text: String,
}

impl Timestamp {
    /// The system's time.
    ///
    /// # Panics
    ///
    /// In WebAssembly, which has no system clock.
    pub fn now() -> Self {
        Self::from_millis(jiff::Timestamp::now().as_millisecond())
    }

    /// So many milliseconds after (or, if negative, before) 1970-01-01T00:00:00Z. What is outside
    /// the years -9999 to 9999 becomes the earliest or the latest time within.
    pub fn from_millis(millis: i64) -> Self {
        let outside = if millis < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Self(jiff::Timestamp::from_millisecond(millis).unwrap_or(outside))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn as_millis(self) -> i64 {
        self.0.as_millisecond()
    }

    /// How long this is after `earlier`; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        let millis = self.as_millis().saturating_sub(earlier.as_millis());
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => Ok(Self::from_millis(time.as_millisecond())),
            Err(_) => Err(ParseTimestampError { text: text.to_owned() }),
        }
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = ParseTimestampError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_seconds_keep_their_three_decimals() {
        assert_eq!(Timestamp::from_millis(0).to_string(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_is_out_of_range_becomes_the_nearest_time() {
        assert!(Timestamp::from_millis(i64::MAX).to_string().starts_with("9999-"));
        assert!(Timestamp::from_millis(i64::MIN).to_string().starts_with("-009999-"));
    }

    #[test]
    fn other_texts_are_refused_with_an_example() {
        for text in ["", "now", "2026-11-22", "2026-13-01T00:00:00Z"] {
            let error = text.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains("2026-11-22T07:00:01.000Z"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in -62_135_596_800_000_i64..253_402_300_799_000) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}
