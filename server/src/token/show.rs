//! `waterclock token show`: the explanation of a token.

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    time::Duration,
};

use serde_json::Value;
use waterclock::{pattern::Pattern, timestamp::Timestamp};

use super::{TokenToolError, args::ShowToken};
use crate::auth::{InvalidToken, IssuerSettings, Token, TokenVerifier, claimed_permissions};

/// Maximum length of a token on standard input, in bytes. The head of a request is shorter.
const MAX_INPUT: u64 = 1 << 20;

/// Returns the explanation and the exit code: 1 if the server would refuse the token.
pub(super) async fn run(
    options: &ShowToken,
    now: Timestamp,
) -> Result<(String, u8), TokenToolError> {
    let text = match &*options.token {
        "-" => read_input(io::stdin()).map_err(TokenToolError::Input)?,
        token => token.to_owned(),
    };
    let token = text.trim();
    let token = token.strip_prefix("Bearer ").unwrap_or(token).trim();
    let settings = IssuerSettings {
        issuer: options.issuer.clone(),
        jwks: options.jwks.clone(),
        secret_file: options.secret_file.clone(),
        public_key_file: options.public_key_file.clone(),
        audience: options.audience.clone(),
        ..IssuerSettings::default()
    };
    let is_checked = settings.has_keys();
    let mut failures = Vec::new();
    let verdict = if is_checked {
        let tokens = TokenVerifier::open(&[settings], None)?;
        let verdict = verify(&tokens, token, now).await;
        failures = tokens.failed_refreshes();
        verdict
    } else {
        claimed_permissions(token, now)
    };
    let code = u8::from(verdict.is_err());
    let mut explanation = explain(token, &verdict, is_checked, now);
    for (url, why) in failures {
        let _ = write!(explanation, "\nThe keys of {url} cannot be fetched: {why}.");
    }
    Ok((explanation, code))
}

fn read_input(input: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    input.take(MAX_INPUT).read_to_string(&mut text)?;
    Ok(text)
}

async fn verify(
    tokens: &TokenVerifier,
    token: &str,
    now: Timestamp,
) -> Result<Token, InvalidToken> {
    tokens.start();
    match tokens.verify(token, now) {
        Err(InvalidToken::UnknownKey(unknown)) => {
            tokens.wait_for_keys(&unknown).await;
            tokens.verify(token, now)
        }
        verdict => verdict,
    }
}

fn explain(
    token: &str,
    verdict: &Result<Token, InvalidToken>,
    is_checked: bool,
    now: Timestamp,
) -> String {
    let mut lines = Vec::new();
    if let Ok(decoded) = jsonwebtoken::dangerous::insecure_decode::<Value>(token) {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
        let header = serde_json::to_value(&decoded.header).unwrap_or_default();
        lines.push(format!("Header: {}", pretty(&header)));
        lines.push(format!("Claims: {}", pretty(&decoded.claims)));
        for (claim, words) in [("iat", "Issued"), ("nbf", "Valid from"), ("exp", "Expires")] {
            if let Some(seconds) = decoded.claims.get(claim).and_then(Value::as_f64) {
                lines.push(format!("{words}: {}", time_in_words(seconds, now)));
            }
        }
    }
    match verdict {
        Ok(token) => {
            lines.push(format!("May publish to: {}", list(&token.publish)));
            lines.push(format!("May read: {}", list(&token.subscribe)));
            lines.push(if is_checked {
                "The server would accept this token.".to_owned()
            } else {
                "The signature was not checked: give --secret-file, --public-key-file or --jwks."
                    .to_owned()
            });
        }
        Err(why) => lines.push(format!("The server would refuse this token: {why}.")),
    }
    lines.join("\n")
}

/// Returns a numeric date (RFC 7519, 2) and its distance from now.
fn time_in_words(seconds: f64, now: Timestamp) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "values out of range are clamped"
    )]
    let time = Timestamp::from_millis((seconds * 1000.0) as u64);
    let distance = Duration::from_secs(time.as_millis().abs_diff(now.as_millis()) / 1000);
    let distance = humantime::format_duration(distance);
    if time >= now { format!("{time}, in {distance}") } else { format!("{time}, {distance} ago") }
}

fn list(patterns: &[Pattern]) -> String {
    let list: Vec<_> = patterns.iter().map(ToString::to_string).collect();
    if list.is_empty() { "nothing".to_owned() } else { list.join(", ") }
}
