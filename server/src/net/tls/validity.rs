//! The time for which a certificate is valid (RFC 5280, 4.1.2.5), and the warnings before its end.

use std::time::{Duration, Instant, SystemTime};

use humantime::{format_duration, format_rfc3339_seconds};
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

/// Time between two warnings about the same certificate.
const WARN_AGAIN: Duration = Duration::from_hours(24);
/// Time before the end at which warnings begin, unless the certificate is a short-lived one.
const WARN_BEFORE: Duration = Duration::from_hours(24);

/// The first and the last moment at which clients accept a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
}

/// A certificate that clients refuse, or soon will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It becomes valid later, or the clock is wrong.
    NotYetValid,
    ExpiresSoon,
    Expired,
}

impl Validity {
    /// Returns `None` if the certificate's times cannot be read.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        Some(Self {
            from: system_time(validity.not_before),
            until: system_time(validity.not_after),
        })
    }

    /// Returns the time at which to renew the certificate: two thirds of its life. That is a month
    /// before its end for 90 days, and two days for six.
    pub(super) fn renewal(self) -> SystemTime {
        self.until - self.lifetime() / 3
    }

    fn lifetime(self) -> Duration {
        self.until.duration_since(self.from).unwrap_or_default()
    }

    fn trouble(self, now: SystemTime) -> Option<Trouble> {
        // A certificate for a day, say, is renewed in its last hours.
        let warn_before = WARN_BEFORE.min(self.lifetime() / 4);
        if now < self.from {
            Some(Trouble::NotYetValid)
        } else if now >= self.until {
            Some(Trouble::Expired)
        } else {
            (now >= self.until - warn_before).then_some(Trouble::ExpiresSoon)
        }
    }
}

fn system_time(time: ASN1Time) -> SystemTime {
    // Before 1970, a certificate has expired in any case.
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Warns of a certificate that is about to expire: at once, and then once a day.
#[derive(Debug, Default)]
pub(super) struct ExpiryWatch {
    /// The last warning.
    warned: Option<(Validity, Trouble, Instant)>,
}

impl ExpiryWatch {
    /// Prints a line if one is due.
    pub(super) fn report(&mut self, of: Validity, now: SystemTime, at: Instant, advice: &str) {
        let Some(trouble) = self.due(of, now, at) else { return };
        let (from, until) = (format_rfc3339_seconds(of.from), format_rfc3339_seconds(of.until));
        match trouble {
            Trouble::NotYetValid => tracing::warn!(
                "clients refuse the certificate: it is valid from {from} on; is the clock right?"
            ),
            Trouble::ExpiresSoon => {
                let left = of.until.duration_since(now).unwrap_or_default().as_secs();
                let left = format_duration(Duration::from_secs(left));
                tracing::warn!("the certificate expires at {until}, in {left}; {advice}");
            }
            Trouble::Expired => tracing::error!(
                "clients refuse the certificate: it has expired at {until}; {advice}"
            ),
        }
    }

    fn due(&mut self, of: Validity, now: SystemTime, at: Instant) -> Option<Trouble> {
        let trouble = of.trouble(now);
        let Some(trouble) = trouble else {
            self.warned = None;
            return None;
        };
        let is_new = self.warned.is_none_or(|(validity, last, last_at)| {
            (validity, last) != (of, trouble) || at.duration_since(last_at) >= WARN_AGAIN
        });
        is_new.then(|| {
            self.warned = Some((of, trouble, at));
            trouble
        })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const SECOND: Duration = Duration::from_secs(1);

    fn validity(lifetime: Duration) -> Validity {
        let from = SystemTime::UNIX_EPOCH + 20_000 * DAY;
        Validity { from, until: from + lifetime }
    }

    #[test]
    fn the_times_of_a_certificate_are_read() {
        let expected = validity(90 * DAY);
        let mut params = CertificateParams::default();
        params.not_before = expected.from.into();
        params.not_after = expected.until.into();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(Validity::of(certificate.der()), Some(expected));
        let damaged = &certificate.der()[..100];
        assert_eq!(Validity::of(&damaged.to_vec().into()), None);
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let of = validity(90 * DAY);
        assert_eq!(of.renewal(), of.from + 60 * DAY);
        // Times that contradict each other are in the past.
        let reversed = Validity { from: of.until, until: of.from };
        assert_eq!(reversed.renewal(), of.from);
    }

    #[test]
    fn warnings_come_in_the_last_day_once_a_day_and_at_the_end() {
        let (of, at) = (validity(90 * DAY), Instant::now());
        let mut watch = ExpiryWatch::default();
        let mut due = |now, at| watch.due(of, now, at);
        assert_eq!(due(of.from - SECOND, at), Some(Trouble::NotYetValid));
        assert_eq!(due(of.from, at), None);
        assert_eq!(due(of.until - DAY - SECOND, at), None);
        assert_eq!(due(of.until - DAY, at), Some(Trouble::ExpiresSoon));
        assert_eq!(due(of.until - SECOND, at + DAY / 2), None);
        assert_eq!(due(of.until - SECOND, at + DAY), Some(Trouble::ExpiresSoon));
        assert_eq!(due(of.until, at + DAY), Some(Trouble::Expired));
        assert_eq!(due(of.until + DAY, at + 2 * DAY), Some(Trouble::Expired));
        // Another certificate in the same state has a warning of its own.
        let other = validity(89 * DAY);
        assert_eq!(watch.due(other, other.until, at + 2 * DAY), Some(Trouble::Expired));
    }

    #[test]
    fn a_short_lived_certificate_has_its_warning_after_its_renewal_is_due() {
        let of = validity(DAY);
        assert_eq!(of.trouble(of.renewal()), None);
        assert_eq!(of.trouble(of.until - DAY / 4), Some(Trouble::ExpiresSoon));
    }
}
