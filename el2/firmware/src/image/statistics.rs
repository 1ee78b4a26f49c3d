//! Statistics: the counters of each VM, and their sums.
//!
//! The invariant: **a sum over all VMs never falls**, whatever VMs end meanwhile. So counters don't live
//! in a VM's own memory: each handle has a row of them here that only grows, over all VMs that ever had
//! the handle, and a VM remembers where its row stood when it began. The three gauges (table pages in use
//! and free, pages mapped) go back to where they stood, because a VM that ends unmaps everything and gives
//! its pages back. To read them costs the same however many VMs there are, so that whoever measures calls
//! by the counter of EL2's instructions can subtract it.

use core::array;
use core::sync::atomic::{AtomicU64, Ordering};

use verdigris_abi::{MAX_VMS, Stat};
use verdigris_core::call::VmHandle;

use super::percpu::PerCpu;
use super::{counter, host, vmids};

/// The counters of one handle.
#[repr(align(64))]
struct Row([AtomicU64; Stat::COUNT]);

static ROWS: [Row; MAX_VMS as usize] =
    [const { Row([const { AtomicU64::new(0) }; Stat::COUNT]) }; MAX_VMS as usize];

/// The counters of one VM.
pub struct Statistics {
    row: &'static Row,
    /// Where the row stood before the VM.
    base: [u64; Stat::COUNT],
}

impl Row {
    fn get(&self, stat: Stat) -> u64 {
        self.0[stat as usize].load(Ordering::Relaxed)
    }
}

impl Statistics {
    /// Begins to count for a new VM.
    pub fn new(handle: VmHandle) -> Self {
        let row = &ROWS[usize::from(handle.0) - 1];
        Self { row, base: array::from_fn(|index| row.0[index].load(Ordering::Relaxed)) }
    }

    /// Adds to a counter.
    #[inline]
    pub fn count(&self, stat: Stat, amount: u64) {
        // Most of what a call may count is 0 in most calls.
        if amount != 0 {
            self.row.0[stat as usize].fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// Reads a counter that is stored.
    pub fn get(&self, stat: Stat) -> u64 {
        not_negative(stat, self.row.get(stat).wrapping_sub(self.base[stat as usize]))
    }
}

/// Returns a statistic of the firmware: what concerns no VM, or the sum over all that are or were.
pub fn total(stat: Stat, percpu: &PerCpu) -> u64 {
    let sum =
        |stat| not_negative(stat, ROWS.iter().map(|row| row.get(stat)).fold(0, u64::wrapping_add));
    match stat {
        Stat::El2Instructions => counter::instructions(percpu),
        Stat::VmidRollovers => vmids::rollovers(),
        Stat::HostTablePages => host::table_pages(),
        Stat::TablePagesPerGib => per_gib(sum(Stat::TablePages), sum(Stat::PagesMapped)),
        _ => sum(stat),
    }
}

/// Reads a gauge that may be counted down, for a moment, before it was counted up: a leaf that one CPU
/// maps can be unmapped on another before the first has counted it.
fn not_negative(stat: Stat, value: u64) -> u64 {
    let gauge = matches!(stat, Stat::TablePages | Stat::FreeTablePages | Stat::PagesMapped);
    if gauge && value.cast_signed() < 0 { 0 } else { value }
}

/// Returns how many table pages there are for each GiB that is mapped, rounded up; 0 if nothing is.
pub fn per_gib(table_pages: u64, pages_mapped: u64) -> u64 {
    const PAGES_PER_GIB: u64 = 1 << 18;
    if pages_mapped == 0 { 0 } else { (table_pages * PAGES_PER_GIB).div_ceil(pages_mapped) }
}
