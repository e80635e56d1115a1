//! `waterclock token`: makes keys and tokens, and explains tokens. Tokens and keys are printed only
//! where the command is to print them.
//!
//! | module | content |
//! |---|---|
//! | `args` | the command line |
//! | `create` | a signed token |
//! | `show` | the explanation of a token |
//! | `make_key` | new keys |

mod args;
mod create;
mod make_key;
mod show;

use std::{
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
};

pub use args::TokenTool;

use args::TokenCommand;
use waterclock::timestamp::Timestamp;

use crate::auth::{InvalidKey, IssuerError};

/// Exit code if the command could not run.
const FAILED: u8 = 2;

/// The reason why a command could not run.
#[derive(Debug, thiserror::Error)]
enum TokenToolError {
    #[error("{} cannot be read: {why}", file.display())]
    Read { file: PathBuf, why: io::Error },
    #[error("{} cannot be written: {why}", file.display())]
    Write { file: PathBuf, why: io::Error },
    #[error("{} exists, and is never overwritten: move it, or name others with --output", .0.display())]
    Exists(PathBuf),
    #[error("the token cannot be read from standard input: {0}")]
    Input(io::Error),
    #[error("the token would permit nothing: name topics with --publish or --subscribe")]
    PermitsNothing,
    #[error("{} cannot be used: {why}", file.display())]
    Secret { file: PathBuf, why: InvalidKey },
    #[error(
        "{} cannot be used: expected an Ed25519, P-256, P-384 or RSA private key in PEM (PKCS #8), as \
         `openssl pkcs8 -topk8 -nodes -in FILE` writes it",
        .0.display()
    )]
    NotPrivate(PathBuf),
    #[error("the key could not be made: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("the token could not be signed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
    #[error("{0}")]
    Issuer(#[from] IssuerError),
}

/// Runs the command. Returns the exit code.
pub async fn run(tool: &TokenTool) -> u8 {
    let now = Timestamp::now();
    let done = match &tool.command {
        TokenCommand::Create(options) => create::run(options, now).map(|token| (token, 0)),
        TokenCommand::Show(options) => show::run(options, now).await,
        TokenCommand::Key(options) => make_key::run(options).map(|report| (report, 0)),
    };
    match done {
        Ok((text, code)) => match print(&mut io::stdout(), text) {
            // A reader that closes the pipe wants no more.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                fail(format_args!("standard output cannot be written: {error}"))
            }
            _ => code,
        },
        Err(error) => fail(error),
    }
}

/// Prints an error. Returns the exit code.
fn fail(error: impl Display) -> u8 {
    // An error here can be told nobody.
    let _ = print(&mut io::stderr(), format_args!("error: {error}"));
    FAILED
}

/// Prints a text and a line end.
fn print(output: &mut impl io::Write, text: impl Display) -> io::Result<()> {
    writeln!(output, "{text}")?;
    output.flush()
}

fn read(file: &Path) -> Result<Vec<u8>, TokenToolError> {
    fs::read(file).map_err(|why| TokenToolError::Read { file: file.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        tool: TokenTool,
    }

    const NOW: Timestamp = Timestamp::from_millis(1_795_388_400_000);

    /// Runs a command, and returns its output and its exit code.
    async fn run_line(line: &[&str]) -> Result<(String, u8), String> {
        let line = Line::try_parse_from([&["token"], line].concat());
        match line.map_err(|error| error.to_string())?.tool.command {
            TokenCommand::Create(options) => create::run(&options, NOW).map(|token| (token, 0)),
            TokenCommand::Show(options) => show::run(&options, NOW).await,
            TokenCommand::Key(options) => make_key::run(&options).map(|report| (report, 0)),
        }
        .map_err(|error| error.to_string())
    }

    fn mode(file: &str) -> u32 {
        fs::metadata(file).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn keys_make_tokens_that_are_accepted() {
        let folder = tempfile::tempdir().unwrap();
        for algorithm in ["hs256", "es256", "eddsa"] {
            let output = folder.path().join(algorithm).display().to_string();
            let make = ["key", "--algorithm", algorithm, "--output", &output];
            let (report, _) = run_line(&make).await.unwrap();
            let file = |end: &str| format!("{output}{end}");
            let [secret, private, public, jwks] =
                [".secret", ".private.pem", ".public.pem", ".jwks.json"].map(file);
            let with_id = report.split_once("has the id ").map(|(_, rest)| rest[..16].to_owned());
            let (sign, checks) = if algorithm == "hs256" {
                (vec!["--secret-file", &secret], vec![["--secret-file", &secret]])
            } else {
                let id = with_id.as_deref().unwrap();
                let checks = vec![["--public-key-file", &*public], ["--jwks", &*jwks]];
                (vec!["--private-key", &private, "--kid", id], checks)
            };
            let key = sign[1];
            assert_eq!(mode(key), 0o600, "{key}");
            let before = fs::read(key).unwrap();
            let error = run_line(&make).await.unwrap_err();
            assert!(error.contains("exists, and is never overwritten"), "{error}");
            assert_eq!(fs::read(key).unwrap(), before);

            let claims = ["--subject=shop", "--publish=orders.>", "--expires=1h"];
            let (token, _) = run_line(&[&["create"], &*sign, &claims].concat()).await.unwrap();
            for check in checks {
                let (text, code) =
                    run_line(&[&["show", &token], &check[..]].concat()).await.unwrap();
                assert_eq!(code, 0, "{text}");
                for expected in [
                    "Expires: 2026-11-23T00:00:00.000Z, in 1h",
                    "May publish to: orders.>",
                    "May read: nothing",
                    "The server would accept this token.",
                ] {
                    assert!(text.contains(expected), "{expected}: {text}");
                }
                let other = [&["show", &token], &check[..], &["--audience=clock"]].concat();
                let (text, code) = run_line(&other).await.unwrap();
                let expected = "would refuse this token: its `aud` is not this server's audience.";
                assert!(code == 1 && text.contains(expected), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_key_pair_is_made_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("key").display().to_string();
        fs::write(format!("{output}.jwks.json"), "mine").unwrap();
        let error = run_line(&["key", "--output", &output]).await.unwrap_err();
        assert!(error.contains("key.jwks.json exists"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read(format!("{output}.jwks.json")).unwrap(), b"mine");
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file").display().to_string();
        fs::write(&file, "too short").unwrap();
        for (line, expected) in [
            (&["create", "--secret-file", &file][..], "name topics with --publish"),
            (&["create", "--publish=t"], "required arguments were not provided"),
            (&["create", "--secret-file", &file, "--publish=t"], "`waterclock token key"),
            (&["create", "--private-key", &file, "--publish=t"], "private key in PEM (PKCS #8)"),
            (&["create", "--private-key=/nowhere", "--publish=t"], "/nowhere cannot be read"),
            (&["create", "--secret-file", &file, "--publish=a..b"], "a..b"),
            (&["create", "--secret-file", &file, "--publish=t", "--expires=0s"], "from 1s to"),
            (&["show", "x", "--public-key-file", &file], "public key in PEM"),
            (&["show", "x", "--audience=a"], "required arguments were not provided"),
            (&["key", "--output=/nowhere/key"], "/nowhere/key.private.pem cannot be written"),
        ] {
            let error = run_line(line).await.unwrap_err();
            assert!(error.contains(expected), "{line:?}: {error}");
        }
        for (token, expected) in [
            ("nonsense", "The server would refuse this token: it is not a JSON Web Token."),
            ("eyJhbGciOiJIUzI1NiJ9.e30.x", "its claims cannot be read: missing field `exp`"),
            // {"exp":5}
            ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjV9.x", "it expired at 1970-01-01T00:00:05"),
        ] {
            let (text, code) = run_line(&["show", token]).await.unwrap();
            assert!(code == 1 && text.contains(expected), "{token}: {text}");
        }
    }

    #[tokio::test]
    async fn an_issuer_that_does_not_answer_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key").display().to_string();
        run_line(&["key", "--output", &key]).await.unwrap();
        let private = format!("{key}.private.pem");
        let create = ["create", "--private-key", &private, "--kid=a", "--publish=t"];
        let (token, _) = run_line(&create).await.unwrap();
        let show = ["show", &*token, "--jwks=http://127.0.0.1:1/keys?secret=1"];
        let (text, code) = run_line(&show).await.unwrap();
        assert_eq!(code, 1, "{text}");
        let (_, reason) = text.split_once("The server would refuse this token: ").unwrap();
        assert!(reason.contains("which cannot be asked for newer ones at present."), "{text}");
        let expected = "\nThe keys of http://127.0.0.1:1/keys cannot be fetched: ";
        assert!(reason.contains(expected) && reason.contains("Connection refused"), "{text}");
    }
}
