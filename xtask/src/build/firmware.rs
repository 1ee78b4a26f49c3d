//! Builds the firmware and its flat image.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use verdigris_qemu::layout::ImageHeader;

use super::{cargo, flat::flatten};
use crate::setup::rust::BARE_METAL;
use crate::{command, paths, progress};

/// Which firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// What users run.
    Release,
    /// With assertions and the calls that make EL2 fail on purpose.
    Checked,
}

/// A firmware that was built.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The linked file, with symbols.
    pub elf: PathBuf,
    /// What loaders take.
    pub image: PathBuf,
    /// Where QEMU loads it.
    pub load_address: u64,
}

impl Profile {
    /// Returns the name that cargo knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Checked => "checked",
        }
    }
}

/// Builds the firmware.
///
/// `core` is built along with it: branch protection (BTI, PAC) holds only if all code has it, and
/// the flag for it is not stable yet.
pub fn firmware(profile: Profile) -> Result<Firmware> {
    let name = profile.name();
    let mut cargo = cargo();
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.args(["build", "--package", "verdigris-firmware", "--profile", name]);
    cargo.args(["--target", BARE_METAL, "-Zbuild-std=core"]);
    // The compiler's half of what a Cortex-A53 up to r0p4 needs; the linker's is in the firmware's build.rs.
    let flags = r#"rustflags=["-Zbranch-protection=bti,pac-ret", "-Ctarget-feature=+fix-cortex-a53-835769"]"#;
    cargo.arg("--config").arg(format!("target.{BARE_METAL}.{flags}"));
    progress::step(&format!("building the firmware ({name})"), || command::run(&mut cargo))?;
    let elf = paths::target().join(BARE_METAL).join(name).join("verdigris-firmware");
    let bytes = std::fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let image = flatten(&bytes)?;
    let header = ImageHeader::parse(&image).context("the firmware has no image header")?;
    ensure!(
        header.image_size_bytes >= image.len() as u64,
        "the firmware's header declares less memory than the image has"
    );
    let path = elf.with_extension("bin");
    std::fs::write(&path, image)?;
    Ok(Firmware { elf, image: path, load_address: header.load_address() })
}
