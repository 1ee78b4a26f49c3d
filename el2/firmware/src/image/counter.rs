//! Counts the instructions of EL2 itself, by an event counter that is kept from the host.
//!
//! MDCR_EL2.HPMN leaves the host all event counters but the last, and HPME runs that one. Its filter
//! counts at EL2 alone, so a figure is exact whatever the host does meanwhile. The option
//! `counter=on` asks for it; the host then sees one counter less.
#![allow(unsafe_code)]

use super::percpu::PerCpu;
use super::sysreg::{isb, read, write};
use super::system;

/// INST_RETIRED, an architectural event (Arm ARM D13.12).
const INST_RETIRED: u64 = 0x08;
/// PMEVTYPER<n>_EL0: P and U leave EL1 and EL0 out, NSH takes EL2 in.
const EL2_ONLY: u64 = 1 << 31 | 1 << 30 | 1 << 27;

/// Returns the number of the counter, where one is kept.
fn number(percpu: &PerCpu) -> Option<u64> {
    let count = percpu.cpu().id.event_counters();
    (system::selection().reserved_counters != 0 && count > 1).then(|| count - 1)
}

/// Starts counting on this CPU.
pub fn start(percpu: &PerCpu) {
    let Some(number) = number(percpu) else { return };
    with_selected(number, || {
        // SAFETY: the counter is EL2's own; counting touches no memory.
        unsafe {
            // No interrupt that the host could not clear.
            write!("pmintenclr_el1", 1 << number);
            write!("pmovsclr_el0", 1 << number);
            write!("pmxevtyper_el0", INST_RETIRED | EL2_ONLY);
            write!("pmxevcntr_el0", 0);
            write!("pmcntenset_el0", 1 << number);
        }
    });
}

/// Returns how many instructions EL2 has executed on this CPU; 0 where nothing counts.
pub fn instructions(percpu: &PerCpu) -> u64 {
    number(percpu).map_or(0, |number| with_selected(number, || read!("pmxevcntr_el0")))
}

/// Does something while PMSELR_EL0, which is the host's, selects a counter.
fn with_selected<T>(number: u64, action: impl FnOnce() -> T) -> T {
    let host = read!("pmselr_el0");
    // SAFETY: selects which counter two other registers mean, and puts the host's choice back.
    unsafe { write!("pmselr_el0", number) };
    isb();
    let result = action();
    // SAFETY: as above.
    unsafe { write!("pmselr_el0", host) };
    isb();
    result
}
