//! The command line of `waterclock token`.

use std::{path::PathBuf, time::Duration};

use waterclock::pattern::Pattern;

use crate::auth::JwksPlace;

/// The options of `waterclock token`.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    after_help = "\
Examples:
  waterclock token key                       make a key pair, and the public key as a JWK Set
  waterclock token create --private-key waterclock.private.pem --subject shop --publish 'orders.>'
                                             print a token for an hour
  waterclock token show - --public-key-file waterclock.public.pem < token
                                             explain a token, and check its signature"
)]
pub struct TokenTool {
    #[command(subcommand)]
    pub(super) command: TokenCommand,
}

/// The parts of `waterclock token`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Print a signed token
    Create(CreateToken),
    /// Explain a token, and say why the server would refuse it
    Show(ShowToken),
    /// Make a key: a key pair with a JWK Set, or a secret
    Key(MakeKey),
}

/// The options of `waterclock token create`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 printed; 2 the key or an option cannot be used.")]
#[command(group(clap::ArgGroup::new("key").required(true).args(["secret_file", "private_key"])))]
pub(super) struct CreateToken {
    /// File with the secret that signs it, by HS256
    #[arg(long, value_name = "FILE")]
    pub(super) secret_file: Option<PathBuf>,

    /// File with the private key that signs it, in PEM: Ed25519, P-256, P-384 or RSA
    #[arg(long, value_name = "FILE")]
    pub(super) private_key: Option<PathBuf>,

    /// Id of the key, for a server that knows several keys
    #[arg(long, value_name = "ID")]
    pub(super) kid: Option<String>,

    /// Name of the bearer. It separates the idempotency keys of one publisher from those of another
    #[arg(long, value_name = "NAME")]
    pub(super) subject: Option<String>,

    /// Topic or pattern that the bearer may publish to. May be repeated
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(super) publish: Vec<Pattern>,

    /// Topic or pattern that the bearer may read. May be repeated
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub(super) subscribe: Vec<Pattern>,

    /// Time for which it is valid, such as 15m, 8h or 30days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = validity)]
    pub(super) expires: Duration,

    /// Audience, which the server must have as --jwt-audience
    #[arg(long, value_name = "AUDIENCE")]
    pub(super) audience: Option<String>,

    /// Issuer, for a server with several of them or with --jwt-issuer
    #[arg(long, value_name = "ISSUER")]
    pub(super) issuer: Option<String>,
}

/// The options of `waterclock token show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With a secret, a public key or a JWK Set, the signature is checked, too. The other options are those \
of the server.
Exit codes: 0 the server would accept it, as far as that was checked; 1 it would refuse it; 2 the \
input or a key cannot be read.")]
#[command(group(clap::ArgGroup::new("keys").multiple(true)))]
pub(super) struct ShowToken {
    /// The token; `-` reads it from standard input, which keeps it out of the shell's history
    #[arg(value_name = "TOKEN")]
    pub(super) token: String,

    /// File with a secret of the server. May be repeated
    #[arg(long, value_name = "FILE", value_delimiter = ',', group = "keys")]
    pub(super) secret_file: Vec<PathBuf>,

    /// File with public keys of the server, in PEM. May be repeated
    #[arg(long, value_name = "FILE", value_delimiter = ',', group = "keys")]
    pub(super) public_key_file: Vec<PathBuf>,

    /// JSON Web Key Set: a file, or the https URL of the issuer's. May be repeated
    #[arg(long, value_name = "URL_OR_FILE", value_delimiter = ',', group = "keys")]
    pub(super) jwks: Vec<JwksPlace>,

    /// Issuer that the server expects in `iss`
    #[arg(long, value_name = "ISSUER", requires = "keys")]
    pub(super) issuer: Option<String>,

    /// Audience that the server expects in `aud`
    #[arg(long, value_name = "AUDIENCE", requires = "keys")]
    pub(super) audience: Option<String>,
}

/// The options of `waterclock token key`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are never overwritten. Only this user may read the private key or the secret.
Exit codes: 0 made; 2 a file exists or cannot be written.")]
pub(super) struct MakeKey {
    /// Algorithm of the signatures
    #[arg(long, value_name = "ALGORITHM", default_value = "eddsa")]
    pub(super) algorithm: KeyKind,

    /// Folder and first part of the names of the files
    #[arg(long, value_name = "PATH", default_value = "waterclock")]
    pub(super) output: PathBuf,
}

/// The algorithm of a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum KeyKind {
    /// A secret that signer and server share.
    Hs256,
    /// A key pair on the curve P-256.
    Es256,
    /// A key pair on the curve Ed25519.
    Eddsa,
}

/// Parses a time from a second to ten years.
fn validity(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text)
        .ok()
        .filter(|time| (Duration::from_secs(1)..=Duration::from_hours(24 * 3653)).contains(time))
        .ok_or("expected a time from 1s to 10years, such as 15m, 8h or 30days")
}
