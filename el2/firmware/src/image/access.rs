//! Finds out what EL3 keeps for itself, by trying (`verdigris_core::cpu::Group`).
#![allow(unsafe_code)]

use log::{debug, warn};
use verdigris_core::cpu::{Group, IdRegisters};

use super::recover::try_read;
use super::sysreg::{isb, read, write};

/// CPTR_EL2 with nothing trapped but what has no meaning here: FP, SVE and SME work at EL2.
const CPTR_OPEN: u64 = 0x22ff;

/// Takes what EL3 keeps on this CPU out of its ID registers. Nobody runs below yet.
pub fn hide_what_is_kept(id: &mut IdRegisters) {
    // SAFETY: EL2's own traps, which the host's values replace before it runs.
    unsafe { write!("cptr_el2", CPTR_OPEN) };
    isb();
    for group in Group::ALL {
        if !group.is_present(id) {
            continue;
        }
        debug!("trying what {} lets EL2 use", group.key());
        if !is_allowed(group) {
            warn!("not used, since EL3 keeps it: what {} would allow", group.key());
            group.hide(id);
        } else if group == Group::Mpam {
            id.mpamidr = read!("s3_0_c10_c4_4");
        }
    }
}

/// Reads the first register of a group.
fn is_allowed(group: Group) -> bool {
    let read = match group {
        Group::GicRegisters => return enable_gic_registers(),
        Group::FineTraps => try_read!("s3_4_c1_c1_4"),
        Group::FineTraps2 => try_read!("s3_4_c3_c1_2"),
        Group::Hcrx => try_read!("s3_4_c1_c2_2"),
        Group::Tcr2 => try_read!("s3_4_c2_c0_3"),
        Group::Sctlr2 => try_read!("s3_4_c1_c0_3"),
        Group::Gcs => try_read!("s3_4_c2_c5_0"),
        Group::Sve => try_read!("s3_4_c1_c2_0"),
        Group::Sme => try_read!("s3_4_c1_c2_6"),
        Group::Mpam => try_read!("s3_4_c10_c5_0"),
        Group::Bandwidth => try_read!("s3_4_c10_c5_4"),
        Group::Gicv5 => try_read!("s3_4_c12_c9_4"),
        Group::Branches => try_read!("s2_4_c9_c0_0"),
        Group::TraceFilter => try_read!("s3_4_c1_c2_1"),
    };
    read.is_some()
}

/// Turns the system registers of the interrupt controller on, which must be in force before any other of them is
/// used, and tells whether they are: EL3 may have left memory-mapped ones in force (Linux, `el2_setup.h`).
fn enable_gic_registers() -> bool {
    const SRE: u64 = 1;
    let Some(before) = try_read!("s3_4_c12_c9_5") else { return false };
    // SAFETY: SRE, DFB, DIB and Enable, as the host has them.
    unsafe { write!("s3_4_c12_c9_5", before | 0xf) };
    isb();
    read!("s3_4_c12_c9_5") & SRE != 0
}
