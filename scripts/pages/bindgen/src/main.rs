//! Makes the script of a page's WebAssembly module, as `wasm-bindgen --target web` does. That
//! command also has an HTTP server and client for running tests inside, and takes much longer to
//! compile.
//!
//!     bindgen MODULE NAME FOLDER
//!
//! It writes `NAME.js` and `NAME_bg.wasm` into the folder.

use std::{env, error::Error, process::ExitCode};

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, name, folder] = arguments.as_slice() else {
        eprintln!("usage: bindgen MODULE NAME FOLDER");
        return ExitCode::from(2);
    };
    match generate(module, name, folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bindgen: {module}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate(module: &str, name: &str, folder: &str) -> Result<(), Box<dyn Error>> {
    let mut bindgen = Bindgen::new();
    bindgen.web(true)?.input_path(module).out_name(name).omit_default_module_path(false);
    Ok(bindgen.generate(folder)?)
}
