//! The program under test: that of cargo, or the one that `WATERCLOCK_BINARY` names. `make test`
//! names the program of `make dist`.

use std::{env, sync::LazyLock};

/// Returns the path of the program.
pub fn waterclock() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        env::var("WATERCLOCK_BINARY")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_waterclock").to_owned())
    });
    &PROGRAM
}
