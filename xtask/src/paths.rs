//! Where things are: the repository, what is built in it, what set-up fetched.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

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
        None => {
            let is_writable = access(root(), Access::WRITE_OK).is_ok();
            cache_beside(&root(), is_writable, std::env::var_os("HOME").map(PathBuf::from))
        }
    }
}

/// Chooses the cache of a repository. The kernel's build system reads headers from it, and takes a space for the end
/// of a path: a repository below a name with a space, or one that can only be read, has its cache in the user's own.
fn cache_beside(root: &Path, is_writable: bool, home: Option<PathBuf>) -> PathBuf {
    let own = root.join(".cache");
    let is_good = is_writable && !has_space(&own);
    match home.filter(|home| !is_good && !has_space(home)) {
        Some(home) => home.join(".cache/verdigris"),
        None => own,
    }
}

/// Tells whether a path has white space in it.
pub fn has_space(path: &Path) -> bool {
    path.to_string_lossy().contains(char::is_whitespace)
}

/// Returns the directory for what make builds, which can't be below a name with a space.
pub fn make_target() -> PathBuf {
    let target = target();
    if has_space(&target) { cache().join("builds") } else { target }
}

/// Returns the log of a run by its name.
pub fn log(name: &str) -> PathBuf {
    target().join("logs").join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_make_reads_is_below_no_name_with_a_space() {
        let home = || Some(PathBuf::from("/home/u"));
        let elsewhere = Path::new("/home/u/.cache/verdigris");
        assert_eq!(cache_beside(Path::new("/src/v"), false, home()), elsewhere);
        assert_eq!(cache_beside(Path::new("/src/v"), true, home()), Path::new("/src/v/.cache"));
        assert_eq!(cache_beside(Path::new("/my src/v"), true, home()), elsewhere);
        // There is no better place; the build says what to set.
        assert_eq!(cache_beside(Path::new("/my src/v"), true, None), Path::new("/my src/v/.cache"));
    }
}
