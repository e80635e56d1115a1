//! The offset between a client's clock and the server's.

use crate::timestamp::Timestamp;

/// One request for the server's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Time of the request by the client's clock, in milliseconds since 1970.
    pub sent: f64,
    /// The server's time in the response.
    pub server: Timestamp,
    /// Time of the response by the client's clock, in milliseconds since 1970.
    pub received: f64,
}

/// The server's clock minus the client's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offset {
    /// Estimate in milliseconds; negative if the server's clock is behind.
    pub millis: f64,
    /// Maximum error of the estimate in milliseconds, for any asymmetry of the path.
    pub uncertainty: f64,
}

impl Offset {
    /// Returns the shortest round-trip time of the samples, in milliseconds.
    pub fn round_trip(&self) -> f64 {
        // The inverse of the uncertainty in `of`.
        (self.uncertainty - 0.5).max(0.0) * 2.0
    }

    /// Estimates the offset as NTP does (RFC 5905, sections 8 and 10), or returns `None` without
    /// samples.
    ///
    /// Only the sample with the shortest round-trip time counts. Its server time is taken as that
    /// of the middle of the round trip.
    pub fn of(samples: &[Sample]) -> Option<Self> {
        let round_trip = |sample: &Sample| sample.received - sample.sent;
        let best = samples.iter().min_by(|a, b| round_trip(a).total_cmp(&round_trip(b)))?;
        #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
        // The server rounds down to whole milliseconds.
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
        fn the_true_offset_is_within_the_uncertainty(
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
            // Adjacent floating point numbers of that size differ by 0.0003.
            prop_assert!((offset.millis - ahead).abs() <= offset.uncertainty + 0.01);
            let shortest = ways.iter().map(|(there, back)| there + back).fold(f64::MAX, f64::min);
            prop_assert!((offset.uncertainty - shortest / 2.0 - 0.5).abs() < 0.01);
        }
    }

    #[test]
    fn without_samples_the_offset_is_unknown() {
        assert_eq!(Offset::of(&[]), None);
    }
}
