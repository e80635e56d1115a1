//! Puts the built page into the program if the feature `embed` asks for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "embed")]
    embed();
}

/// Compresses the files of the site, and writes the code that `memory_serve::load!` includes.
#[cfg(feature = "embed")]
fn embed() {
    println!("cargo::rerun-if-env-changed=LEPTOS_SITE_ROOT");
    let site = std::env::var("LEPTOS_SITE_ROOT").unwrap_or_else(|_| "target/site".to_owned());
    let site = std::path::Path::new("..").join(site);
    assert!(site.join("pkg").is_dir(), "no page in {}: `make build` builds it", site.display());
    memory_serve::load_directory(&site);
    leave_out_folder(&site).unwrap_or_else(|error| panic!("the list of files: {error}"));
}

/// Removes the name of the site's folder from the list of files. It is of no use once their content
/// is in the program, and would make the program differ from folder to folder.
#[cfg(feature = "embed")]
fn leave_out_folder(site: &std::path::Path) -> std::io::Result<()> {
    let is_content_inside = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if !is_content_inside {
        return Ok(());
    }
    let output = std::env::var_os("OUT_DIR").unwrap_or_default();
    let list = std::path::Path::new(&output).join("memory_serve_assets.rs");
    let folder = format!("path: r\"{}", site.canonicalize()?.display());
    let text = std::fs::read_to_string(&list)?;
    assert!(text.contains(&folder), "{} does not name {folder}", list.display());
    std::fs::write(list, text.replace(&folder, "path: r\""))
}
