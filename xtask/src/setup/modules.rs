//! The host kernel's own modules, as `modprobe` wants them: a tree for `/lib/modules`, with its index.
//!
//! A distribution makes the index when it installs a kernel (depmod). Nothing is installed here, so it is made of what
//! each module says of itself (`.modinfo`). Modules are unpacked: the tools of the host's busybox hand the kernel a
//! compressed file first, and the kernel complains of it. The host's root is made anew for each run and copied by an
//! emulated CPU, so it has what users ask for, and for tests no more than what these load.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};

use super::Tools;
use crate::command;

/// What tests load: a compressed disk in memory, to swap to; what gives back a page that was called broken; memory
/// that comes after boot.
pub const OF_TESTS: &[&str] = &["zram", "hwpoison-inject", "virtio_mem"];
/// What users ask for: disks, networks, file systems, devices of VMMs.
pub const OF_USERS: &[&str] = &[
    "zram",
    "hwpoison-inject",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_mmio",
    "virtio_balloon",
    "virtio_mem",
    "virtio-rng",
    "9pnet_virtio",
    "9p",
    "loop",
    "nbd",
    "ext4",
    "overlay",
    "squashfs",
    "tun",
    "vsock",
    "vhost_net",
    "vhost_vsock",
];

/// Makes a tree `RELEASE/...` of some modules and all that they depend on; those that a kernel lacks are left out.
pub fn make_tree(tools: &Tools, from: &Path, names: &[&str], to: &Path) -> Result<()> {
    let release = from.file_name().context("modules are in a folder of their release")?;
    let to = to.join(release);
    std::fs::create_dir_all(&to)?;
    let packed = find(from)?;
    let mut info = BTreeMap::new();
    let mut wanted: Vec<String> = names.iter().map(|name| canonical(name)).collect();
    while let Some(name) = wanted.pop() {
        let Some(file) = packed.get(&name).filter(|_| !info.contains_key(&name)) else { continue };
        let bytes = unpack(tools, file)?;
        let found =
            Info::read(&bytes).with_context(|| format!("cannot read {}", file.display()))?;
        wanted.extend(found.depends.iter().cloned());
        std::fs::write(to.join(format!("{name}.ko")), bytes)?;
        info.insert(name, found);
    }
    std::fs::write(to.join("modules.dep"), dependencies(&info))?;
    std::fs::write(to.join("modules.alias"), aliases(&info))?;
    let built_in = from.join("modules.builtin");
    if built_in.is_file() {
        std::fs::copy(built_in, to.join("modules.builtin"))?;
    }
    Ok(())
}

/// Keeps those of a compressed disk as they are packaged, beside the tree: scripts load them by these names.
pub fn keep_packed(from: &Path, to: &Path) -> Result<()> {
    let packed = find(from)?;
    for name in ["lz4_compress", "lz4hc_compress", "zram"] {
        if let Some(file) = packed.get(name) {
            std::fs::copy(file, to.join(file.file_name().context("a file has a name")?))?;
        }
    }
    Ok(())
}

/// Finds the modules of a kernel by their names.
fn find(from: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut find = std::process::Command::new("find");
    let text = command::output(find.arg(from).args(["-type", "f", "-name", "*.ko*"]))?;
    let name = |path: &Path| Some(canonical(path.file_name()?.to_str()?.split(".ko").next()?));
    let files = text.lines().map(PathBuf::from);
    Ok(files.filter_map(|file| Some((name(&file)?, file))).collect())
}

/// The kernel makes no difference between `-` and `_`, and its own lists have the latter.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn unpack(tools: &Tools, file: &Path) -> Result<Vec<u8>> {
    let program = match file.extension().and_then(|end| end.to_str()) {
        Some("ko") => return Ok(std::fs::read(file)?),
        Some("xz") => "xz",
        Some("gz") => "gzip",
        Some("zst") => "zstd",
        other => bail!("{} is packed in an unknown way: {other:?}", file.display()),
    };
    let output = tools.command(program)?.arg("-dc").arg(file).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {} failed: {told}", file.display());
    Ok(output.stdout)
}

/// What a module says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Info {
    depends: Vec<String>,
    aliases: Vec<String>,
}

impl Info {
    fn read(module: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(module)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, module)?;
        let (_, section) =
            sections.section_by_name(endian, b".modinfo").context("it has no .modinfo")?;
        Ok(Self::parse(section.data(endian, module)?))
    }

    /// Reads words `name=value`, each with a zero behind it.
    fn parse(section: &[u8]) -> Self {
        let mut info = Self::default();
        for word in section.split(|byte| *byte == 0) {
            let word = String::from_utf8_lossy(word);
            match word.split_once('=') {
                Some(("depends", names)) => {
                    info.depends
                        .extend(names.split(',').filter(|name| !name.is_empty()).map(canonical));
                }
                Some(("alias", pattern)) => info.aliases.push(pattern.to_owned()),
                _ => {}
            }
        }
        info
    }
}

/// Writes `FILE: FILE ...`: what a module needs, what is needed first in the last place (modules.dep(5)).
fn dependencies(info: &BTreeMap<String, Info>) -> String {
    let mut text = String::new();
    for name in info.keys() {
        let mut all: Vec<&String> = Vec::new();
        let mut next: Vec<&String> = vec![name];
        while !next.is_empty() {
            next = next
                .iter()
                .filter_map(|name| info.get(*name))
                .flat_map(|info| &info.depends)
                .collect();
            all.retain(|name| !next.contains(name));
            next.iter().for_each(|name| {
                if !all.contains(name) {
                    all.push(name);
                }
            });
        }
        let files: String = all.iter().map(|name| format!(" {name}.ko")).collect();
        writeln!(text, "{name}.ko:{files}").expect("writing to a string");
    }
    text
}

fn aliases(info: &BTreeMap<String, Info>) -> String {
    let lines = info.iter().flat_map(|(name, info)| {
        info.aliases.iter().map(move |pattern| format!("alias {pattern} {name}\n"))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_tell_what_they_need() {
        let section = b"license=GPL\0alias=devname:x\0alias=net-pf-40\0\0depends=vhost,virtio-x\0name=y\0depends=\0";
        let info = Info::parse(section);
        assert_eq!(info.depends, ["vhost", "virtio_x"]);
        assert_eq!(info.aliases, ["devname:x", "net-pf-40"]);
        assert!(Info::read(b"no module").is_err());
    }

    #[test]
    fn what_is_needed_first_stands_last() {
        let info = |depends: &[&str]| Info {
            depends: depends.iter().map(|name| (*name).to_owned()).collect(),
            aliases: vec!["a*".into()],
        };
        let all: BTreeMap<String, Info> =
            [("a", info(&["c", "b"])), ("b", info(&["d"])), ("c", info(&["b"])), ("d", info(&[]))]
                .map(|(name, info)| (name.to_owned(), info))
                .into();
        assert_eq!(
            dependencies(&all),
            "a.ko: c.ko b.ko d.ko\nb.ko: d.ko\nc.ko: b.ko d.ko\nd.ko:\n"
        );
        assert!(aliases(&all).starts_with("alias a* a\nalias a* b\n"));
    }
}
