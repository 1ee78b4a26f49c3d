//! Where things are: the repository, what is built in it, what set-up fetched.

use std::path::{Path, PathBuf};

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the repository").to_owned()
}

/// Returns the directory of build products, which `CARGO_TARGET_DIR` can move.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Returns the directory of what set-up fetched, which `VERDIGRIS_CACHE` can move.
///
/// It can be deleted at any time; the next set-up fills it again.
pub fn cache() -> PathBuf {
    match std::env::var_os("VERDIGRIS_CACHE") {
        Some(dir) => root().join(dir),
        None => root().join(".cache"),
    }
}

/// Returns the log of a run by its name.
pub fn log(name: &str) -> PathBuf {
    target().join("logs").join(format!("{name}.log"))
}
