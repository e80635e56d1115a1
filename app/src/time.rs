//! How the page writes times.

use waterclock::timestamp::Timestamp;

/// The reader's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum TimeFormat {
    /// The time of day in UTC: what the server renders, too.
    #[default]
    Utc,
    /// The time of day where the reader is.
    Local,
    /// Seconds since 1970-01-01T00:00:00Z.
    Epoch,
    /// How long ago it was.
    Ago,
}

impl TimeFormat {
    pub(crate) const ALL: [Self; 4] = [Self::Utc, Self::Local, Self::Epoch, Self::Ago];

    /// As addresses and settings have it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Utc => "utc",
            Self::Local => "local",
            Self::Epoch => "epoch",
            Self::Ago => "ago",
        }
    }

    pub(crate) fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.key() == key)
    }

    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Utc => "UTC",
            Self::Local => "Local time",
            Self::Epoch => "Unix time",
            Self::Ago => "How long ago",
        }
    }

    /// The one after it.
    pub(crate) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|format| *format == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// The time of day, to the millisecond; `ahead` of UTC by so many minutes.
pub(crate) fn time_of_day(time: Timestamp, ahead: i32) -> String {
    let text = shift(time, ahead).to_string();
    text.split_once('T').map_or(String::new(), |(_, time)| time.trim_end_matches('Z').to_owned())
}

/// The day and the time of day, with the offset from UTC (RFC 3339).
pub(crate) fn date_and_time(time: Timestamp, ahead: i32) -> String {
    let (sign, minutes) = (if ahead < 0 { '-' } else { '+' }, ahead.unsigned_abs());
    let text = shift(time, ahead).to_string();
    format!("{}{sign}{:02}:{:02}", text.trim_end_matches('Z'), minutes / 60, minutes % 60)
}

/// Seconds since 1970-01-01T00:00:00Z, with three decimals.
pub(crate) fn epoch(time: Timestamp) -> String {
    let millis = time.as_millis();
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// How long ago that was.
pub(crate) fn ago(time: Timestamp, now: Timestamp) -> String {
    match now.since(time).as_secs() {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..86400 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86400),
    }
}

fn shift(time: Timestamp, ahead: i32) -> Timestamp {
    let millis = u64::from(ahead.unsigned_abs()) * 60_000;
    let now = time.as_millis();
    Timestamp::from_millis(if ahead < 0 { now.saturating_sub(millis) } else { now + millis })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_chosen() {
        let time: Timestamp = "2026-11-22T23:00:01.5Z".parse().unwrap();
        assert_eq!(time_of_day(time, 0), "23:00:01.500");
        assert_eq!(time_of_day(time, 330), "04:30:01.500");
        assert_eq!(date_and_time(time, 330), "2026-11-23T04:30:01.500+05:30");
        assert_eq!(date_and_time(time, -210), "2026-11-22T19:30:01.500-03:30");
        assert_eq!(epoch(time), "1795388401.500");
        for (later, expected) in [
            (0, "0 s ago"),
            (59_999, "59 s ago"),
            (60_000, "1 min ago"),
            (7_200_000, "2 h ago"),
            (200_000_000, "2 d ago"),
        ] {
            assert_eq!(ago(time, Timestamp::from_millis(time.as_millis() + later)), expected);
        }
        assert_eq!(ago(time, Timestamp::from_millis(0)), "0 s ago", "by a clock that is behind");
    }

    #[test]
    fn every_format_has_a_key_and_a_next() {
        let mut format = TimeFormat::default();
        for _ in TimeFormat::ALL {
            assert_eq!(TimeFormat::from_key(format.key()), Some(format));
            format = format.next();
        }
        assert_eq!(format, TimeFormat::default());
    }
}
