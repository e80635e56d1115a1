//! How far two clocks are apart: a client's and the server's.

use crate::timestamp::Timestamp;

/// What one question for the server's time has told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When it was asked, by the client's clock: milliseconds since 1970.
    pub sent: f64,
    /// The server's time.
    pub server: Timestamp,
    /// When the answer was there, by the client's clock: milliseconds since 1970.
    pub received: f64,
}

/// How far the server's clock is ahead of the client's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offset {
    /// By so many milliseconds; negative if it is behind.
    pub millis: f64,
    /// It may be so many milliseconds more or less, however much longer one way takes than the other.
    pub uncertainty: f64,
}

impl Offset {
    /// The shortest round trip of the samples, in milliseconds.
    pub fn round_trip(&self) -> f64 {
        // Half of it is what is uncertain, and half of the server's whole milliseconds.
        (self.uncertainty - 0.5).max(0.0) * 2.0
    }

    /// The best that some samples can tell, as NTP does it (RFC 5905, sections 8 and 10): of the one with
    /// the shortest round trip, the server's time is that of half the way. None if there are none.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let round_trip = |sample: &Sample| sample.received - sample.sent;
        let best = samples.iter().min_by(|a, b| round_trip(a).total_cmp(&round_trip(b)))?;
        #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
        // The server tells whole milliseconds, rounded down.
        let server = best.server.as_millis() as f64 + 0.5;
        Some(Self {
            millis: server - f64::midpoint(best.sent, best.received),
            uncertainty: round_trip(best) / 2.0 + 0.5,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_truth_is_within_the_uncertainty(
            ahead in -1e7..1e7_f64,
            ways in proptest::collection::vec((0.0..2e3_f64, 0.0..2e3_f64), 1..20),
        ) {
            let mut now = 1.7e12_f64;
            let mut samples = Vec::new();
            for (there, back) in &ways {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let server = Timestamp::from_millis((now + there + ahead) as u64);
                samples.push(Sample { sent: now, server, received: now + there + back });
                now += 10_000.0;
            }
            let offset = Offset::of(&samples).unwrap();
            // Floating point numbers of that size have 0.0003 between them.
            prop_assert!((offset.millis - ahead).abs() <= offset.uncertainty + 0.01);
            let shortest = ways.iter().map(|(there, back)| there + back).fold(f64::MAX, f64::min);
            prop_assert!((offset.uncertainty - shortest / 2.0 - 0.5).abs() < 0.01);
        }
    }

    #[test]
    fn without_samples_nothing_is_known() {
        assert_eq!(Offset::of(&[]), None);
    }
}
