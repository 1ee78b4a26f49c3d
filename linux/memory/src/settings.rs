//! What tests set for the whole host, and must not leave to the next.
//!
//! A guard within a test puts back what that test changed, but not in a process that is killed or hangs. So the harness, which
//! outlives them all, notes every setting that tests touch before the first of them, and writes back what differs after each.
//! Its own files and the kernel's state are the same to it: a setting is a file that reads as what it takes.
#![cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to follow: huge pages go when the last process that used them is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Folders of which all files are settings: parameters of the driver.
const FOLDERS: &[&str] = &["sys/module/verdigris/parameters"];
/// Folders of which each has a setting of one name.
const FAMILIES: &[(&str, &str)] = &[("sys/kernel/mm/hugepages", "nr_hugepages")];
/// Merging: what is merged stays so unless it is told to come apart first.
const MERGING: &str = "sys/kernel/mm/ksm/run";
const COME_APART: &str = "2";
/// Watchers of accesses: only those go that are off.
const WATCHERS: &str = "sys/kernel/mm/damon/admin/kdamonds/nr_kdamonds";
const FIRST_WATCHER: &str = "sys/kernel/mm/damon/admin/kdamonds/0/state";
const FILES: &[&str] = &[
    MERGING,
    "sys/kernel/mm/ksm/pages_to_scan",
    "sys/kernel/mm/ksm/sleep_millisecs",
    WATCHERS,
    "sys/kernel/mm/lru_gen/enabled",
    "sys/kernel/mm/lru_gen/min_ttl_ms",
    "sys/kernel/mm/transparent_hugepage/enabled",
    "sys/kernel/mm/transparent_hugepage/defrag",
    "sys/kernel/mm/transparent_hugepage/shmem_enabled",
    "proc/sys/kernel/numa_balancing",
    "proc/sys/vm/compaction_proactiveness",
    "proc/sys/vm/overcommit_memory",
    "proc/sys/vm/page-cluster",
    "proc/sys/vm/swappiness",
];

/// Settings as they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    root: PathBuf,
    found: Vec<(PathBuf, String)>,
}

impl Settings {
    /// Reads all there are below a root: `/` but for tests of this.
    pub fn read(root: &Path) -> Self {
        let mut files: Vec<_> = FILES.iter().map(|name| root.join(name)).collect();
        FOLDERS.iter().for_each(|folder| files.extend(entries(&root.join(folder))));
        for (folder, name) in FAMILIES {
            files.extend(entries(&root.join(folder)).into_iter().map(|entry| entry.join(name)));
        }
        let found = files.into_iter().filter(|file| is_writable(file));
        let found = found.filter_map(|file| read(&file).map(|value| (file, value))).collect();
        Self { root: root.to_owned(), found }
    }

    /// Writes back what differs, and says what doesn't follow.
    pub fn restore(&self) -> Result<(), String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let failed: Vec<_> =
                self.found.iter().filter_map(|one| self.restore_one(one)).collect();
            match failed.is_empty() {
                true => return Ok(()),
                false if Instant::now() > end => return Err(failed.join("; ")),
                false => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Writes one back; says how it is then, where that isn't how it was.
    fn restore_one(&self, (file, old): &(PathBuf, String)) -> Option<String> {
        if read(file).as_ref() == Some(old) {
            return None;
        }
        let prepare = |name: &str, step: (&str, &str)| {
            if *file == self.root.join(name) {
                // Where it can't be done, what follows tells.
                _ = fs::write(self.root.join(step.0), step.1);
            }
        };
        prepare(MERGING, (MERGING, COME_APART));
        prepare(WATCHERS, (FIRST_WATCHER, "off"));
        // A line, since nothing at all would not be a write.
        let result = fs::write(file, format!("{old}\n"));
        let now = read(file);
        (now.as_ref() != Some(old)).then(|| {
            format!("{} is {now:?} and can't be {old:?} again ({result:?})", file.display())
        })
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// Tells whether somebody may write a file: root's rights say nothing, and some files only tell.
fn is_writable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(file).is_ok_and(|meta| meta.permissions().mode() & 0o222 != 0)
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| value(&text).to_owned())
}

/// Returns what a file would have to be given to read as it does: of a list of words, the one in brackets.
fn value(text: &str) -> &str {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or(text, |(word, _)| word).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETER: &str = "sys/module/verdigris/parameters/age_answers";

    /// A root with some settings, gone with this.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("settings-{name}-{}", std::process::id()));
            let root = Self(root);
            for (file, text) in [
                (MERGING, "0\n"),
                ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n"),
                ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
                ("proc/sys/kernel/numa_balancing", "0\n"),
                (PARAMETER, "Y\n"),
                ("sys/module/verdigris/parameters/pause_point", "\n"),
            ] {
                fs::create_dir_all(root.0.join(file).parent().unwrap()).unwrap();
                root.write(file, text);
            }
            root
        }

        fn write(&self, file: &str, text: &str) {
            fs::write(self.0.join(file), text).unwrap();
        }

        fn text(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).unwrap()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn of_a_list_the_word_in_brackets_counts() {
        assert_eq!(value("always [madvise] never\n"), "madvise");
        assert_eq!(value("0x0007\n"), "0x0007");
        assert_eq!(value("\n"), "");
    }

    #[test]
    fn what_differs_is_written_back_and_nothing_else() {
        let root = Root::new("restore");
        let settings = Settings::read(&root.0);
        assert_eq!(settings.found.len(), 6);
        root.write(PARAMETER, "N\n");
        root.write("sys/module/verdigris/parameters/pause_point", "before_map\n");
        root.write("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "8\n");
        root.write("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n");
        assert_eq!(settings.restore(), Ok(()));
        assert_eq!(root.text(PARAMETER), "Y\n");
        assert_eq!(root.text("sys/module/verdigris/parameters/pause_point"), "\n");
        assert_eq!(root.text("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "0\n");
        assert_eq!(root.text("sys/kernel/mm/transparent_hugepage/enabled"), "madvise\n");
        // What had not changed is as it was written, to the byte.
        assert_eq!(root.text("proc/sys/kernel/numa_balancing"), "0\n");
    }

    #[test]
    fn what_can_not_be_restored_is_told() {
        let root = Root::new("refused");
        let settings = Settings::read(&root.0);
        // A folder takes no value.
        fs::remove_file(root.0.join(PARAMETER)).unwrap();
        fs::create_dir(root.0.join(PARAMETER)).unwrap();
        for one in &settings.found {
            let is_told =
                settings.restore_one(one).is_some_and(|text| text.contains("age_answers"));
            assert_eq!(is_told, one.0.ends_with("age_answers"), "{one:?}");
        }
    }

    #[test]
    fn files_that_only_tell_are_no_settings() {
        use std::os::unix::fs::PermissionsExt;
        let root = Root::new("told");
        let file = root.0.join("sys/module/verdigris/parameters/pauses");
        fs::write(&file, "in_wait 3\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(Settings::read(&root.0).found.iter().all(|(name, _)| *name != file));
    }
}
