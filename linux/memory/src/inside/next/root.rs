//! The next kernel's root: the files of this one's, with another job to do.

use std::fs;
use std::io::{Error, Result, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cpio::newc::Builder;

/// What the host's init is to do, as assignments for the shell.
const JOB: &str = "etc/verdigris/job";

/// Archives the files of the root's own file system. A crash kernel starts none after it, so it needs no kernel.
pub fn like_this(command: &str, with_kernel: bool) -> Result<Vec<u8>> {
    let root = Path::new("/");
    let mut archive = Archive { bytes: Vec::new(), device: fs::metadata(root)?.dev() };
    for entry in fs::read_dir(root)? {
        let name = entry?.file_name().into_string().map_err(|_| Error::other("a name"))?;
        if name != "boot" || with_kernel {
            archive.add(&name)?;
        }
    }
    archive.entry(JOB, 0o100_644, job(command)?.as_bytes())?;
    cpio::newc::trailer(archive.bytes)
}

/// Rewrites this kernel's job: another command, and the driver isn't loaded before it.
fn job(command: &str) -> Result<String> {
    let old = fs::read_to_string(Path::new("/").join(JOB))?;
    let kept =
        old.lines().filter(|line| !line.starts_with("job=") && !line.starts_with("driver_args="));
    let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
    Ok(format!("{kept}job='{command}'\ndriver_args=none\n"))
}

struct Archive {
    bytes: Vec<u8>,
    device: u64,
}

impl Archive {
    fn add(&mut self, name: &str) -> Result<()> {
        let path = Path::new("/").join(name);
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_symlink() {
            let to = fs::read_link(&path)?;
            return self.entry(name, meta.mode(), to.as_os_str().as_encoded_bytes());
        }
        if meta.is_file() {
            return self.entry(name, meta.mode(), &fs::read(&path)?);
        }
        if meta.is_dir() {
            self.entry(name, meta.mode(), &[])?;
            return if meta.dev() == self.device { self.children(name, &path) } else { Ok(()) };
        }
        // FIFOs, sockets and nodes belong to what runs now.
        Ok(())
    }

    fn children(&mut self, name: &str, path: &Path) -> Result<()> {
        for entry in fs::read_dir(path)? {
            let child = entry?.file_name().into_string().map_err(|_| Error::other("a name"))?;
            self.add(&format!("{name}/{child}"))?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        let builder = Builder::new(name).nlink(1).mode(mode).ino(self.bytes.len() as u32);
        let mut writer = builder.write(&mut self.bytes, content.len() as u32);
        writer.write_all(content)?;
        writer.finish().map(|_| ())
    }
}
