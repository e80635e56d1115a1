//! Checks of options that look at the machine: files, keys, certificates and folders.

use std::{
    ffi::OsString,
    fs::File,
    path::Path,
    slice,
    time::{Duration, SystemTime},
};

use clap::Args;
use rustix::fs::{Access as FileAccess, access};
use waterclock::timestamp::Timestamp;

use super::{LoadedOptions, Options, OptionsError, Store};
use crate::{
    auth::{Audience, IssuerSettings, TokenVerifier},
    net::tls::Tls,
};

/// Time before its end from which on a certificate is reported.
const EXPIRES_SOON: Duration = Duration::from_hours(24);

/// The options of `waterclock check`.
#[derive(Debug, Args)]
#[command(after_help = "\
The environment counts as it does for the server.
Exit codes: 0 valid; 2 not valid.")]
pub struct CheckArguments {
    /// File with options, in TOML [default: that of the server's variable]
    #[arg(long, value_name = "FILE")]
    pub config: Option<std::path::PathBuf>,
}

impl CheckArguments {
    /// Reads the configuration, and looks at the files and folders that it names.
    ///
    /// # Errors
    ///
    /// If the options cannot even be read.
    pub fn run(&self) -> Result<LoadedOptions, OptionsError> {
        let mut arguments = vec![OsString::from("waterclock")];
        if let Some(file) = &self.config {
            arguments.extend(["--config".into(), file.clone().into_os_string()]);
        }
        let mut loaded = Options::load(arguments)?;
        loaded.check();
        loaded.warn_of_expiry();
        Ok(loaded)
    }
}

impl LoadedOptions {
    /// Looks at the files and folders that the options name, and adds what is wrong with them to
    /// the problems.
    pub fn check(&mut self) {
        self.check_tokens();
        self.check_certificate();
        self.check_files();
        self.check_data_folder();
    }

    fn check_tokens(&mut self) {
        let found = self.problems.count();
        self.check_keys();
        self.check_issuers();
        let line = [
            "jwt-secret-file",
            "jwt-public-key-file",
            "jwt-jwks",
            "jwt-issuer",
            "jwt-audience",
            "require-token",
        ]
        .into_iter()
        .find_map(|name| self.file.line_of(name));
        match self.options.tokens() {
            // The reason is one of those above.
            Err(_) if self.problems.count() > found => {}
            Err(why) => self.problems.error_of_option(line, why),
            Ok(Some(_)) => {}
            Ok(None) => {
                for rule in &self.options.rules {
                    let rule_line = rule.line;
                    let audiences = [("read", rule.access.read), ("publish", rule.access.publish)];
                    for (name, _) in
                        audiences.iter().filter(|(_, one)| *one == Some(Audience::Token))
                    {
                        let why = format!(
                            "rule: {name} = \"token\" needs a key for tokens, such as jwt-secret-file"
                        );
                        self.problems.error(rule_line, why);
                    }
                }
            }
        }
    }

    /// Checks the keys of each option by itself, so that each problem has its line.
    fn check_keys(&mut self) {
        let (options, none) = (&self.options, IssuerSettings::default());
        let [secrets, public, sets] = [
            IssuerSettings { secret_file: options.jwt_secret_file.clone(), ..none.clone() },
            IssuerSettings { public_key_file: options.jwt_public_key_file.clone(), ..none.clone() },
            IssuerSettings { jwks: options.jwt_jwks.clone(), ..none },
        ];
        for (name, keys) in
            [("jwt-secret-file", secrets), ("jwt-public-key-file", public), ("jwt-jwks", sets)]
        {
            if keys.has_keys()
                && let Err(why) = TokenVerifier::open(slice::from_ref(&keys), None)
            {
                self.problems.error_of_option(self.file.line_of(name), why.to_string());
            }
        }
    }

    /// Checks the keys of each issuer of the file, so that each problem has its line.
    fn check_issuers(&mut self) {
        for issuer in &self.options.issuers {
            if let Err(why) = TokenVerifier::open(slice::from_ref(&issuer.settings), None) {
                self.problems.error(issuer.line, format!("issuer: {why}"));
            }
            if issuer.settings.issuer == self.options.jwt_issuer {
                let why = "issuer: jwt-issuer is the same name: tokens could not be told apart";
                self.problems.error(issuer.line, why);
            }
        }
    }

    fn check_certificate(&mut self) {
        let options = &self.options;
        let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) else { return };
        let Err(why) = Tls::from_files(certificate, key) else { return };
        let why = why.to_string();
        let is_key = key != certificate && why.contains(&*key.to_string_lossy());
        let line = self.line_of_certificate();
        let line = if is_key { self.file.line_of("tls-key").or(line) } else { line };
        self.problems.error_of_option(line, why);
    }

    fn line_of_certificate(&self) -> Option<usize> {
        self.file.line_of("tls-cert").or_else(|| self.file.line_of("tls-key"))
    }

    /// Adds a certificate that soon expires to the problems. A server that runs warns of it itself.
    fn warn_of_expiry(&mut self) {
        let options = &self.options;
        let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) else { return };
        let Ok(tls) = Tls::from_files(certificate, key) else { return };
        let now = SystemTime::now();
        if let Some(end) = tls.expires().filter(|end| *end <= now + EXPIRES_SOON) {
            let verb = if end <= now { "has expired" } else { "expires" };
            let since_1970 = end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let end = Timestamp::from_millis(since_1970.as_secs().saturating_mul(1000));
            let file = certificate.display();
            let why = format!("{file}: the certificate {verb} at {end}");
            self.problems.warning(self.line_of_certificate(), why);
        }
    }

    fn check_files(&mut self) {
        for (name, file) in self.options.cluster.files() {
            if let Err(why) = File::open(file) {
                let why = format!("{name}: {} cannot be read: {why}", file.display());
                self.problems.error_of_option(self.file.line_of(name), why);
            }
        }
        if self.options.cluster.nats().is_some() && self.options.store == Store::Memory {
            let line = self.file.line_of("store").or_else(|| self.file.line_of("cluster"));
            let why = "store: a node of a cluster keeps its events in a file";
            self.problems.error_of_option(line, why);
        }
        if let Err(why) = self.options.tls_of_authority() {
            let line = self.file.line_of("acme-ca").or_else(|| self.file.line_of("acme-domain"));
            self.problems.error_of_option(line, why.to_string());
        }
    }

    /// Checks that the data folder can be written, or created. Changes nothing.
    fn check_data_folder(&mut self) {
        let has_certificates = self.options.tls_self_signed
            || self.options.tls_of_authority().is_ok_and(|tls| tls.is_some());
        if self.options.store == Store::Memory && !has_certificates {
            return;
        }
        let folder = self.options.data_dir.as_path();
        let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let existing = absolute.ancestors().find(|folder| folder.exists());
        let existing = existing.unwrap_or(Path::new("/"));
        let problem = if existing.is_dir() {
            let writable = access(existing, FileAccess::WRITE_OK | FileAccess::EXEC_OK);
            writable.err().map(|why| {
                let why = std::io::Error::from(why);
                format!("the data folder cannot be written: {}: {why}", existing.display())
            })
        } else {
            Some(format!("{} is no folder", existing.display()))
        };
        if let Some(why) = problem {
            let line = self.file.line_of("data-dir");
            self.problems.error_of_option(line, format!("data-dir: {why}"));
        }
    }
}
