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
    memory_serve::load_directory(site);
}
