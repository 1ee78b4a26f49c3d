//! Builds the EL3 that tests put below the firmware, and fills in what it grants.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{cargo, flat::flatten};
use crate::setup::rust::BARE_METAL;
use crate::{command, paths, progress};

/// What EL3 lets the levels below do: the values of its control registers (Arm ARM, D24.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// SCR_EL3.
    pub scr: u64,
    /// CPTR_EL3.
    pub cptr: u64,
    /// MDCR_EL3.
    pub mdcr: u64,
    /// Whether EL3 answers an access that it keeps by an UNDEFINED instruction at EL2, as TF-A does. Else the
    /// machine ends.
    pub answers: bool,
}

impl Grants {
    /// NS, HCE and RW: without these there is nothing at EL2. Bits 4 and 5 are RES1.
    const SCR_LEAST: u64 = 1 << 0 | 0b11 << 4 | 1 << 8 | 1 << 10;
    /// SCR_EL3.HXEn: HCRX_EL2, without which the host has no memory copy instructions (FEAT_MOPS).
    const SCR_HXEN: u64 = 1 << 38;
    /// TTA and TAM: trace and activity monitors. ESM (12) and EZ (8) stay 0, so that SME and SVE trap; TCPAC and
    /// TFP stay 0, as CPACR_EL1 and floating point are no option.
    const CPTR_TRAPS: u64 = 1 << 20 | 1 << 30;
    /// TTRF. NSPB, NSTB and SBRBE stay 0, which keeps sampling, trace and branch records; TDA, TDOSA and TPM
    /// stay 0, as debug registers and counters are no option for a kernel.
    const MDCR_TRAPS: u64 = 1 << 19;

    /// Nothing that Linux's boot protocol doesn't ask for, of a CPU with FEAT_MOPS and without SVE, SME and
    /// pointer authentication. FGTEn, FGTEn2, EnSCXT, ECVEn, ATA, API, APK and all that came later are 0.
    pub const LEAST: Self = Self {
        scr: Self::SCR_LEAST | Self::SCR_HXEN,
        cptr: Self::CPTR_TRAPS,
        mdcr: Self::MDCR_TRAPS,
        answers: true,
    };
}

/// Where the image has them: behind its first two instructions.
const GRANTS_OFFSET: usize = 8;

/// Builds the image.
pub fn el3() -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--package", "verdigris-el3", "--release", "--target", BARE_METAL]);
    progress::step("building the EL3", || command::run(&mut cargo))?;
    let elf = paths::target().join(BARE_METAL).join("release/verdigris-el3");
    let bytes = std::fs::read(&elf).with_context(|| format!("cannot read {}", elf.display()))?;
    let image = elf.with_extension("bin");
    std::fs::write(&image, flatten(&bytes)?)?;
    Ok(image)
}

/// Writes a copy of the image that grants this.
pub fn el3_with(image: &Path, grants: Grants, to: &Path) -> Result<()> {
    let mut bytes = std::fs::read(image)?;
    let words = [grants.scr, grants.cptr, grants.mdcr, grants.answers.into()];
    for (index, word) in words.into_iter().enumerate() {
        let at = GRANTS_OFFSET + 8 * index;
        let place = bytes.get_mut(at..at + 8).context("the EL3 is shorter than its head")?;
        place.copy_from_slice(&word.to_le_bytes());
    }
    Ok(std::fs::write(to, bytes)?)
}
