//! Formats of times.

use waterclock::timestamp::Timestamp;

/// A format of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum TimeFormat {
    /// The time of day in UTC. The server renders this format.
    #[default]
    Utc,
    /// The reader's local time of day.
    Local,
    /// Seconds since 1970-01-01T00:00:00Z.
    Unix,
    /// The time since then, such as `5 s ago`.
    Relative,
}

impl TimeFormat {
    pub(crate) const ALL: [Self; 4] = [Self::Utc, Self::Local, Self::Unix, Self::Relative];

    /// Returns the name in addresses and in storage.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Utc => "utc",
            Self::Local => "local",
            Self::Unix => "epoch",
            Self::Relative => "ago",
        }
    }

    pub(crate) fn from_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.key() == key)
    }

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Utc => "UTC",
            Self::Local => "Local time",
            Self::Unix => "Unix time",
            Self::Relative => "Relative time",
        }
    }

    /// Returns the next format, and the first one after the last.
    pub(crate) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|format| *format == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// Writes the time of day, to the millisecond, at an offset from UTC in minutes.
pub(crate) fn time_of_day(time: Timestamp, offset: i32) -> String {
    let text = shift(time, offset).to_string();
    text.split_once('T').map_or(String::new(), |(_, time)| time.trim_end_matches('Z').to_owned())
}

/// Writes the date and the time of day, at an offset from UTC in minutes, and the offset (RFC
/// 3339).
pub(crate) fn date_and_time(time: Timestamp, offset: i32) -> String {
    let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs());
    let text = shift(time, offset).to_string();
    format!("{}{sign}{:02}:{:02}", text.trim_end_matches('Z'), minutes / 60, minutes % 60)
}

/// Writes the seconds since 1970-01-01T00:00:00Z, with three decimals.
pub(crate) fn unix_time(time: Timestamp) -> String {
    let millis = time.as_millis();
    format!("{}.{:03}", millis / 1000, millis % 1000)
}

/// Writes the time since then.
pub(crate) fn relative_time(time: Timestamp, now: Timestamp) -> String {
    match now.since(time).as_secs() {
        seconds @ 0..60 => format!("{seconds} s ago"),
        seconds @ 60..3600 => format!("{} min ago", seconds / 60),
        seconds @ 3600..86400 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86400),
    }
}

fn shift(time: Timestamp, offset: i32) -> Timestamp {
    let millis = u64::from(offset.unsigned_abs()) * 60_000;
    let now = time.as_millis();
    Timestamp::from_millis(if offset < 0 { now.saturating_sub(millis) } else { now + millis })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_writes_its_own_text() {
        let time: Timestamp = "2026-11-22T23:00:01.5Z".parse().unwrap();
        assert_eq!(time_of_day(time, 0), "23:00:01.500");
        assert_eq!(time_of_day(time, 330), "04:30:01.500");
        assert_eq!(date_and_time(time, 330), "2026-11-23T04:30:01.500+05:30");
        assert_eq!(date_and_time(time, -210), "2026-11-22T19:30:01.500-03:30");
        assert_eq!(unix_time(time), "1795388401.500");
        for (later, expected) in [
            (0, "0 s ago"),
            (59_999, "59 s ago"),
            (60_000, "1 min ago"),
            (7_200_000, "2 h ago"),
            (200_000_000, "2 d ago"),
        ] {
            assert_eq!(
                relative_time(time, Timestamp::from_millis(time.as_millis() + later)),
                expected
            );
        }
        assert_eq!(
            relative_time(time, Timestamp::from_millis(0)),
            "0 s ago",
            "the clock is behind"
        );
    }

    #[test]
    fn the_next_format_leads_through_all_of_them() {
        let mut format = TimeFormat::default();
        for _ in TimeFormat::ALL {
            assert_eq!(TimeFormat::from_key(format.key()), Some(format));
            format = format.next();
        }
        assert_eq!(format, TimeFormat::default());
    }
}
