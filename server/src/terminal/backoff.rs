//! The delay before another attempt.

use std::time::Duration;

/// Longest delay that is not the server's own wish.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// Returns the delay after so many failures in a row, which doubles with each of them. `random`,
/// from 0 to 1, takes up to half of it away, so that many clients do not come back at once.
pub(super) fn delay(base: Duration, failures: u32, random: f64) -> Duration {
    let longest = MAX_DELAY.max(base);
    let doubled = base.checked_mul(1 << failures.min(16)).unwrap_or(longest).min(longest);
    let kept = doubled.as_secs_f64() * (1.0 - random.clamp(0.0, 1.0) / 2.0);
    // The longest time is more as a number with a fraction.
    Duration::try_from_secs_f64(kept).unwrap_or(doubled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_doubles_up_to_a_limit() {
        let seconds = |failures, random| delay(Duration::from_secs(2), failures, random).as_secs();
        assert_eq!(
            [0, 1, 2, 3, 4, 99].map(|failures| seconds(failures, 0.0)),
            [2, 4, 8, 16, 30, 30]
        );
        assert_eq!(seconds(2, 1.0), 4);
        assert_eq!(delay(Duration::from_mins(1), 5, 0.0), Duration::from_mins(1));
        assert_eq!(delay(Duration::MAX, 5, 0.0), Duration::MAX);
    }
}
