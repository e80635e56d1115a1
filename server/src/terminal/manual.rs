//! Completions of shells, and man pages.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;
use clap_complete::Shell;

use super::{error::TerminalError, output::exit_code};

/// The options of `waterclock completions`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  waterclock completions bash >~/.local/share/bash-completion/completions/waterclock
  waterclock completions zsh >~/.zfunc/_waterclock
  waterclock completions fish >~/.config/fish/completions/waterclock.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// The options of `waterclock man`.
#[derive(Args, Debug)]
pub struct Manual {
    /// Folder for the man pages; created if it is missing
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Prints the completions of a command line for a shell. Returns the exit code.
pub fn print_completions(options: &Completions, mut command: clap::Command) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, "waterclock", &mut script);
    exit_code(io::stdout().write_all(&script).map(|()| 0).map_err(TerminalError::Output))
}

/// Writes a man page for each command of a command line. Returns the exit code.
pub fn write_manual(options: &Manual, command: clap::Command) -> u8 {
    let folder = &options.folder;
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(command, folder))
        .map(|()| 0);
    let failed = |error| format!("man pages cannot be written to {}: {error}", folder.display());
    exit_code(written.map_err(|error| TerminalError::Input(failed(error))))
}
