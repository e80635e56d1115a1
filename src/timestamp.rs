//! Points in time, as events carry them: UTC, to the millisecond, in RFC 3339.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

/// A point in time in UTC, to the millisecond, in the years 1970 to 9999.
///
/// Written as RFC 3339 with exactly three decimals; read with any number of them, and `Z`.
///
/// ```
/// # use waterclock::timestamp::Timestamp;
/// let time: Timestamp = "2026-11-22T07:00:01.5Z".parse()?;
/// assert_eq!(time.to_string(), "2026-11-22T07:00:01.500Z");
/// # Ok::<_, waterclock::timestamp::ParseTimestampError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Timestamp {
    /// Since 1970-01-01T00:00:00Z; at most [`LATEST`].
    millis: u64,
}

/// 9999-12-31T23:59:59.999Z, the last time that RFC 3339 can write.
const LATEST: u64 = 253_402_300_799_999;

/// A text that is not a time in RFC 3339.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a time in RFC 3339 and UTC, such as 2026-11-22T07:00:01.000Z")]
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
        Self::from(SystemTime::now())
    }

    /// So many milliseconds after 1970-01-01T00:00:00Z; the last of the year 9999 if that is later.
    pub const fn from_millis(millis: u64) -> Self {
        Self { millis: if millis < LATEST { millis } else { LATEST } }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn as_millis(self) -> u64 {
        self.millis
    }

    /// How long this is after `earlier`; zero if it is before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.millis.saturating_sub(earlier.millis))
    }
}

impl From<SystemTime> for Timestamp {
    /// What is before 1970 becomes its first moment.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::from_millis(u64::try_from(since.as_millis()).unwrap_or(LATEST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.millis);
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match humantime::parse_rfc3339(text) {
            Ok(time) => Ok(time.into()),
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
    fn what_is_too_late_to_write_becomes_the_latest_time() {
        assert_eq!(Timestamp::from_millis(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn other_texts_are_refused_with_an_example() {
        for text in ["", "now", "2026-11-22", "2026-13-01T00:00:00Z", "2026-11-22T07:00:01+01:00"] {
            let error = text.parse::<Timestamp>().unwrap_err().to_string();
            assert!(error.contains("2026-11-22T07:00:01.000Z"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..=LATEST) {
            let time = Timestamp::from_millis(millis);
            prop_assert_eq!(time.to_string().parse::<Timestamp>().unwrap(), time);
        }
    }
}
