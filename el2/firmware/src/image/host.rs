//! The host: its stage 2, its control registers on each CPU, and the way into it.
//!
//! The host's map is the identity over all addresses that the board has; what is not the host's it finds to
//! be zeroes where it reads, and can't write. One lock lets one CPU at the map at a time, faults included: a
//! table goes back to the pool as soon as the block that it stood for is whole again. EL2's pool covers the
//! tables that splitting every block would take, so taking a page never fails for want of one.
#![allow(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};

use log::debug;
use spin::Once;
use spin::mutex::TicketMutex;
use verdigris_abi::{Error, Ipa, Pa, Status};
use verdigris_core::cpu::{HOST_ENTRY_SPSR, vtcr};
use verdigris_platform::{Machine, Region};
use verdigris_stage2::{Attributes, Geometry, HostFault, Identity, Root};
use verdigris_stage2::{PageSource, Table, TableMemory, TablePage, hardware::Tlb};

use super::controls::Prepared;
use super::percpu::PerCpu;
use super::start::expect;
use super::sysreg::{self, isb};
use super::tlb::{self, Context};
use super::{boot, controls, counter, memory, system};

struct Host {
    map: Identity,
    writer: TicketMutex<()>,
    vtcr: u64,
}

static HOST: Once<Host> = Once::new();

/// Table pages of the host's map beside its root.
static TABLE_PAGES: AtomicU64 = AtomicU64::new(0);

fn host() -> &'static Host {
    HOST.get().expect("the host's map is made before it is used")
}

/// The machine as the engine sees it when it changes the host's map.
struct Machinery;

impl TableMemory for Machinery {
    fn table(&self, page: TablePage) -> &Table {
        // SAFETY: a `TablePage` of the host's tree came from `alloc` below, or is part of its root: a
        // page of EL2's pool, mapped, zeroed, and used for nothing else; entries are atomics.
        unsafe { memory::as_table(page) }
    }
}

impl PageSource for Machinery {
    fn alloc(&self) -> Option<TablePage> {
        let page = memory::pool().take(1)?;
        TABLE_PAGES.fetch_add(1, Ordering::Relaxed);
        // SAFETY: a fresh page of the pool, used as a table from here on.
        Some(unsafe { TablePage::new(page) })
    }

    fn free(&self, page: TablePage) {
        TABLE_PAGES.fetch_sub(1, Ordering::Relaxed);
        memory::pool().give(page.pa(), 1);
    }
}

/// The host's context is in force whenever EL2 works on the host's map: nothing is switched.
impl Tlb for Machinery {
    fn enter(&self) {}
    fn leave(&self) {}
    tlb::instructions!();
}

/// Builds the host's map and prepares the boot CPU for it.
pub fn init(machine: &Machine, kept: Region) {
    let bits = machine.board.physical_address_bits;
    let geometry = expect("the host's stage 2", Geometry::new(bits, system::pa_bits()));
    let root = memory::pool().take(geometry.root_pages());
    let root = expect("the host's stage 2", root.ok_or(Error::NoMemory));
    // SAFETY: contiguous zeroed pages of the pool, aligned to their number.
    let root = unsafe { Root::new(root, geometry) };
    let map = Identity::new(root, system::flush_config(), memory::zero_page());
    for_each_range(machine, kept, bits, |range, attributes| {
        let (start, end) = (Ipa(range.start().0), Ipa(range.end().0));
        expect("the host's stage 2", map.map(&Machinery, start, end, attributes));
    });
    let (start, end) = (Ipa(kept.start().0), Ipa(kept.end().0));
    expect("the host's stage 2", map.map_zeroes(&Machinery, start, end));
    let vtcr = vtcr::host(
        vtcr::Geometry { t0sz: geometry.t0sz(), sl0: geometry.sl0() },
        system::selection(),
    );
    HOST.call_once(|| Host { map, writer: TicketMutex::new(()), vtcr });
}

/// Calls `f` with each range that the host can use, and how.
fn for_each_range(
    machine: &Machine,
    kept: Region,
    bits: u32,
    mut f: impl FnMut(Region, Attributes),
) {
    let mut next = Pa(0);
    // Debug registers of one CPU make another execute instructions, at EL2 too.
    let holes = || machine.debug_frames.iter().copied();
    for &bank in machine.memory.iter() {
        let gap = Region::new(next, bank.start()).expect("RAM is in ascending order");
        gap.for_each_outside(holes(), |part| f(part, Attributes::HOST_DEVICE));
        bank.for_each_outside([kept].into_iter(), |part| f(part, Attributes::HOST_RAM));
        next = bank.end();
    }
    let rest = Region::new(next, Pa(1 << bits)).expect("RAM is inside the board's addresses");
    // Memory that comes later is memory from the start: no device is in its way, and the host runs code there.
    let window = machine.window_above();
    rest.for_each_outside(holes().chain([window]), |part| f(part, Attributes::HOST_DEVICE));
    f(window, Attributes::HOST_RAM);
}

/// Sets this CPU's registers for the host: controls, traps, stage 2.
#[inline(never)]
pub fn prepare_cpu(percpu: &PerCpu) {
    let cpu = percpu.cpu();
    // SAFETY: the values are those for the host on this CPU, the host's map is complete, and nobody
    // runs below yet.
    unsafe {
        // The map first: with HCR_EL2.VM on, a speculative walk may use whatever VTTBR_EL2 holds.
        context().load();
        // ICH_HCR_EL2 can be used once this is in force.
        if let Some(enabled) = cpu.host.icc_sre {
            sysreg::write!("s3_4_c12_c9_5", enabled);
            isb();
        }
        Prepared::all(&cpu.host, boot::host_vectors_address(&cpu.id))
            .with_errata(&cpu.selection.errata)
            .write();
        isb();
        controls::apply_fixed(&cpu.fixed, cpu.host.mpam2.is_some());
        tlb::vmid_local();
        sysreg::dsb_nsh();
    }
    isb();
    percpu.host.init(context(), &cpu.fixed);
    counter::start(percpu);
}

/// Returns the host's VTTBR_EL2 and VTCR_EL2; its VMID is 0.
pub fn context() -> Context {
    Context { vttbr: host().map.root().pa().0, vtcr: host().vtcr }
}

/// Enters the host at an address with a value for x0, as PSCI and the boot protocol have it.
pub fn enter(address: u64, x0: u64) -> ! {
    debug!("entering the host at {address:#x}");
    // SAFETY: `prepare_cpu` ran on this CPU, and its stack holds nothing that is needed later.
    unsafe {
        sysreg::write!("elr_el2", address);
        sysreg::write!("spsr_el2", HOST_ENTRY_SPSR);
        boot::enter_host(x0)
    }
}

/// Takes a page from the host: no CPU of its reaches the page when this returns.
pub fn take_page(page: Pa) -> Status {
    let _guard = host().writer.lock();
    host().map.take_page(&Machinery, Ipa(page.0))
}

/// Maps a page for the host again.
pub fn give_page(page: Pa) {
    let _guard = host().writer.lock();
    let given = host().map.give_page(&Machinery, Ipa(page.0), Attributes::HOST_RAM);
    given.expect("the host's tables for a page that was taken are still there");
}

/// Tells whether the host's access to an address should be tried again. Where the host `reads` what isn't its
/// own, it finds zeroes then.
pub fn fault(ipa: Ipa, reads: bool) -> bool {
    let _guard = host().writer.lock();
    host().map.fault(&Machinery, ipa, reads) == HostFault::Retry
}

/// Returns how many table pages the host's map has beside its root.
pub fn table_pages() -> u64 {
    TABLE_PAGES.load(Ordering::Relaxed)
}
