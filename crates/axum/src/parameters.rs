//! Names of query parameters that a route does not have. Most are ignored: proxies and caches have
//! their own, and polyfills add one against caches (`_`, `t`, `r`). One that resembles a parameter
//! of the route is refused, since its client would lose events in silence.

use std::borrow::Cow;

use axum::http::StatusCode;

use crate::{limits::MAX_PARAMETERS, problem::Problem};

/// The parameters of a route.
pub(crate) struct KnownParameters {
    /// Their names, each with its plain form.
    pub(crate) names: &'static [(&'static str, &'static str)],
    /// Names that other servers give to the same, in lower case without `_` and `-`, each with what
    /// it is called here.
    pub(crate) synonyms: &'static [(&'static str, &'static str)],
}

/// A query that no client sends on purpose.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidParameters {
    /// A parameter that the route does not have, and that was probably meant to be another one.
    #[error("There is no parameter {name:?} here. Use {meant}.")]
    Unknown { name: String, meant: String },
    #[error("A query may have at most {MAX_PARAMETERS} parameters.")]
    TooMany,
}

impl From<InvalidParameters> for Problem {
    fn from(error: InvalidParameters) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error.to_string())
    }
}

/// Splits a query into its parameters. Their checks take time, which the limit bounds.
///
/// # Errors
///
/// If there are too many.
pub(crate) fn split_query(
    query: &str,
) -> Result<impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)>, InvalidParameters> {
    if query.split('&').count() > MAX_PARAMETERS {
        return Err(InvalidParameters::TooMany);
    }
    Ok(form_urlencoded::parse(query.as_bytes()))
}

impl KnownParameters {
    /// Checks the name of a parameter that the route does not have.
    ///
    /// # Errors
    ///
    /// If it is probably meant to be one of the route's.
    pub(crate) fn check(&self, name: &str) -> Result<(), InvalidParameters> {
        self.check_plain(name, &plain(name))
    }

    /// Checks such a name whose plain form is known.
    ///
    /// # Errors
    ///
    /// If it is probably meant to be one of the route's.
    pub(crate) fn check_plain(&self, name: &str, plain: &str) -> Result<(), InvalidParameters> {
        let synonym = self.synonyms.iter().find(|(synonym, _)| *synonym == plain);
        let meant = synonym.map(|(_, meant)| (*meant).to_owned()).or_else(|| {
            let similar = self.names.iter().find(|(_, known)| is_similar(plain, known));
            similar.map(|(known, _)| format!("`{known}`"))
        });
        match meant {
            Some(meant) => Err(InvalidParameters::Unknown { name: name.to_owned(), meant }),
            None => Ok(()),
        }
    }
}

/// Returns the plain form of a name: in lower case, without anything else than letters and digits.
pub(crate) fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Returns `true` for another spelling (`Limit`), for a longer form (`topics`, `topic[0]`), and for
/// one or two wrong letters. Both names are plain.
fn is_similar(name: &str, known: &str) -> bool {
    // A short one could begin another word by chance.
    let is_longer_form = known.len() > 4 && name.starts_with(known);
    let mistakes = if name.len().min(known.len()) < 6 { 1 } else { 2 };
    // Each mistake changes the length by one at most. The comparison takes longer than this one.
    let may_be_meant = name.len().abs_diff(known.len()) <= mistakes;
    is_longer_form || (may_be_meant && strsim::osa_distance(name, known) <= mistakes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: KnownParameters = KnownParameters {
        names: &[
            ("topic", "topic"),
            ("last_event_id", "lasteventid"),
            ("limit", "limit"),
            ("wait", "wait"),
        ],
        synonyms: &[("since", "`last_event_id`"), ("key", "the header `Idempotency-Key`")],
    };

    #[test]
    fn a_name_that_resembles_a_parameter_is_refused_with_the_right_one() {
        for (name, meant) in [
            ("last_event_idd", "`last_event_id`"),
            ("last-evnet-id", "`last_event_id`"),
            ("Since", "`last_event_id`"),
            ("topics", "`topic`"),
            ("topic[]", "`topic`"),
            ("topic[10]", "`topic`"),
            ("topc", "`topic`"),
            ("TOPIC", "`topic`"),
            (" topic", "`topic`"),
            ("Limit", "`limit`"),
            ("wai", "`wait`"),
            ("key", "the header `Idempotency-Key`"),
        ] {
            let error = KNOWN.check(name).unwrap_err().to_string();
            assert!(error.ends_with(&format!("Use {meant}.")), "{name}: {error}");
        }
    }

    #[test]
    fn other_names_are_ignored() {
        for name in [
            "",
            "_",
            "t",
            "r",
            "ts",
            "v",
            "w",
            "wt",
            "rnd",
            "nocache",
            "cachebust",
            "token",
            "utm_source",
            "time",
            "mode",
            "username",
            "id",
            "ü",
            "[]",
            "access_token",
            "fbclid",
        ] {
            assert!(KNOWN.check(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_query_has_a_limited_number_of_parameters() {
        let query = |count| vec!["a"; count].join("&");
        assert_eq!(split_query(&query(MAX_PARAMETERS)).unwrap().count(), MAX_PARAMETERS);
        assert!(split_query(&query(MAX_PARAMETERS + 1)).is_err());
    }
}
