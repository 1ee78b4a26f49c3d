//! The host's root: a busybox, the job, what is under test, and the user's overlays.
//!
//! Made anew for each run, in the kernel's own archive format (newc cpio, not compressed: under
//! emulation unpacking costs more than copying). A later entry replaces an earlier one of the same
//! name, which is what lays an overlay over the rest.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use cpio::newc::Builder;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
/// What the size field of an entry can't tell any more.
const ENTRY_LIMIT_BYTES: u64 = 1 << 32;

/// An archive under construction.
#[derive(Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Initramfs {
    /// Adds a file with the directories that lead to it.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parents(name)?;
        self.entry(name, FILE | mode, content)
    }

    /// Adds a copy of a file of this machine.
    pub fn copy(&mut self, name: &str, mode: u32, from: &Path) -> Result<()> {
        let content =
            std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(name, mode, &content)
    }

    /// Lays the files of a directory over what is there.
    pub fn overlay(&mut self, from: &Path) -> Result<()> {
        self.tree(from, "").with_context(|| format!("cannot lay {} over", from.display()))
    }

    /// Ends the archive and returns it.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        cpio::newc::trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }

    /// Adds what is in a directory, under names that begin with `prefix`.
    pub fn tree(&mut self, from: &Path, prefix: &str) -> Result<()> {
        let mut entries = std::fs::read_dir(from)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name().into_string().ok().context("a name is not UTF-8")?;
            let name = format!("{prefix}{name}");
            let meta = entry.metadata()?;
            let mode = meta.permissions().mode() & 0o7777;
            if meta.is_dir() {
                self.parents(&format!("{name}/"))?;
                self.tree(&entry.path(), &format!("{name}/"))?;
            } else if meta.is_symlink() {
                let to = std::fs::read_link(entry.path())?;
                self.parents(&name)?;
                self.entry(&name, SYMLINK | 0o777, to.as_os_str().as_encoded_bytes())?;
            } else {
                ensure_regular(&entry.path(), &meta)?;
                self.copy(&name, mode, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Adds the directories of a name that are not there yet.
    fn parents(&mut self, name: &str) -> Result<()> {
        for (at, _) in name.match_indices('/') {
            let parent = &name[..at];
            if self.directories.insert(parent.to_owned()) {
                self.entry(parent, DIRECTORY | 0o755, &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(content.len()).context("a file is too large for the archive")?;
        let builder = Builder::new(name).ino(self.entries).nlink(1).mode(mode);
        let mut writer = builder.write(&mut self.bytes, size);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}

/// Finds what an archive can't take of a directory, before any of it is read.
pub fn check(from: &Path) -> Result<()> {
    let entries =
        std::fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
    for entry in entries {
        let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
        let meta = entry.with_context(|| format!("cannot read {}", path.display()))?;
        ensure!(path.to_str().is_some(), "the name of {} is not UTF-8", path.display());
        if meta.is_dir() {
            check(&path)?;
        } else if !meta.is_symlink() {
            ensure_regular(&path, &meta)?;
            File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        }
    }
    Ok(())
}

/// Refuses what has no content to copy: opening a FIFO waits for somebody who writes, and a device may never end.
fn ensure_regular(path: &Path, meta: &Metadata) -> Result<()> {
    let kind = meta.file_type();
    let what = match () {
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () => {
            ensure!(meta.len() < ENTRY_LIMIT_BYTES, "{} is too large for the root", path.display());
            return Ok(());
        }
    };
    bail!("{} is {what}: the host's root takes files, directories and links", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads names, modes and sizes back from the fields that the kernel's
    /// Documentation/driver-api/early-userspace/buffer-format.rst describes.
    fn list(archive: &[u8]) -> Vec<(String, u32, usize)> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = &archive[at + 6 + 8 * n..at + 14 + 8 * n];
                u32::from_str_radix(std::str::from_utf8(text).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = &archive[at + 110..at + 110 + name_size - 1];
            let name = String::from_utf8(name.to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return found;
            }
            let data = (at + 110 + name_size).next_multiple_of(4);
            at = (data + size).next_multiple_of(4);
            found.push((name, mode, size));
        }
    }

    #[test]
    fn directories_come_before_their_files_and_once() {
        let mut archive = Initramfs::default();
        archive.file("etc/a/one", 0o644, b"1").unwrap();
        archive.file("etc/a/two", 0o755, b"22").unwrap();
        let expected = [
            ("etc".into(), 0o40755, 0),
            ("etc/a".into(), 0o40755, 0),
            ("etc/a/one".into(), 0o100_644, 1),
            ("etc/a/two".into(), 0o100_755, 2),
        ];
        assert_eq!(list(&archive.finish().unwrap()), expected);
    }

    #[test]
    fn overlay_keeps_modes_links_and_empty_directories() {
        let dir = std::env::temp_dir().join(format!("verdigris-overlay-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("sub/empty")).unwrap();
        std::fs::write(dir.join("sub/tool"), "#!").unwrap();
        std::fs::set_permissions(dir.join("sub/tool"), PermissionsExt::from_mode(0o750)).unwrap();
        std::os::unix::fs::symlink("tool", dir.join("sub/x")).unwrap();
        let mut archive = Initramfs::default();
        archive.overlay(&dir).unwrap();
        let expected = [
            ("sub".into(), 0o40755, 0),
            ("sub/empty".into(), 0o40755, 0),
            ("sub/tool".into(), 0o100_750, 2),
            ("sub/x".into(), 0o120_777, 4),
        ];
        assert_eq!(list(&archive.finish().unwrap()), expected);
        assert!(Initramfs::default().overlay(&dir.join("absent")).is_err());
    }

    #[test]
    fn what_has_no_content_is_refused_and_named() {
        let dir = std::env::temp_dir().join(format!("verdigris-special-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::write(dir.join("sub/file"), "x").unwrap();
        check(&dir).unwrap();
        let fifo = dir.join("sub/pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        // Opening it would wait for ever.
        for result in [check(&dir), Initramfs::default().overlay(&dir)] {
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains("sub/pipe is a FIFO"), "{error}");
        }
        std::fs::remove_file(&fifo).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
        assert!(format!("{:#}", check(&dir).unwrap_err()).contains("s is a socket"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
