//! VMs: where they live, who may use them, and how they end.
//!
//! A VM lives in a region of donated memory: its root tables first, then [`Vm`]. The table of slots
//! here says which handles are live. A call holds a reference to its slot, so a VM ends only when
//! nobody is in a call on it; while it ends, every other call finds no such VM.
#![allow(unsafe_code)]

use core::array;
use core::ops::Deref;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use spin::mutex::TicketMutex;
use verdigris_abi::{Error, Ipa, MAX_CPUS, MAX_VCPUS, MAX_VMS, PAGE_SIZE, Pa, Stat, Status};
use verdigris_core::call::VmHandle;
use verdigris_core::cpu::vtcr;
use verdigris_core::vmid::{LastVcpu, VmidCell};
use verdigris_core::working_set::WorkingSets;
use verdigris_stage2::{Geometry, Outcome, Root, Stage2};

use super::bits::Dirty;
use super::percpu::PerCpu;
use super::presence::Stay;
use super::statistics::{Statistics, per_gib};
use super::system::Cpu;
use super::vm_env::VmEnv;
use super::{memory, sysreg, system, vcpu, working_set};

/// Pages between two looks at pending interrupts while memory is given back.
const PAGES_PER_POLL: usize = 16;

/// A VM.
pub struct Vm {
    /// Its handle.
    pub handle: VmHandle,
    /// Its tables and what keeps calls on them apart.
    pub stage2: Stage2,
    /// Its VMID.
    pub vmid: VmidCell,
    /// Which of its vCPUs was on each CPU last.
    pub last_vcpu: [LastVcpu; MAX_CPUS as usize],
    /// The donated region of each vCPU; 0 where there is none.
    pub vcpus: [AtomicU64; MAX_VCPUS as usize],
    /// Which ranges have their idle ages kept.
    pub working_sets: WorkingSets,
    /// VTCR_EL2, but for what each CPU adds.
    common_vtcr: u64,
    /// Free table pages, linked through their first words.
    free: TicketMutex<u64>,
    /// Pages that were donated and have not been given back, regions included.
    donated_pages: AtomicUsize,
    /// How far the end of the VM has come in unmapping, in pages, or [`NOT_BEGUN`].
    unmapped_pages: AtomicU64,
    region: Pa,
    region_pages: u64,
    statistics: Statistics,
}

/// The VM is not ending.
const NOT_BEGUN: u64 = u64::MAX;

/// No VM has the handle.
const FREE: u64 = 0;
/// The slot is being filled.
const CLAIMED: u64 = 1 << 60;
/// The VM is ending, and a call is at work on that.
const ENDING_NOW: u64 = 1 << 61;
/// The VM is ending, and the next call goes on with it.
const ENDING: u64 = 1 << 62;
/// The VM lives; the low bits count calls on it.
const LIVE: u64 = 1 << 63;

struct Slot {
    state: AtomicU64,
    address: AtomicU64,
}

static SLOTS: [Slot; MAX_VMS as usize] =
    [const { Slot { state: AtomicU64::new(FREE), address: AtomicU64::new(0) } }; MAX_VMS as usize];

fn slot(handle: VmHandle) -> &'static Slot {
    &SLOTS[usize::from(handle.0) - 1]
}

/// A count in the slot of a live VM, which keeps it from ending. Who has no more than this reads no
/// table: a guest may run.
pub struct Held {
    vm: &'static Vm,
    slot: &'static Slot,
}

impl Held {
    /// Finds a live VM.
    #[inline]
    pub fn get(handle: VmHandle) -> Status<Self> {
        let slot = slot(handle);
        let more = |state| (state & LIVE != 0).then_some(state + 1);
        slot.state
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, more)
            .map_err(|_| Error::NoEntry)?;
        // SAFETY: the slot is live, so its address is that of an initialised `Vm`, and the count that
        // was just taken keeps it there.
        let vm = unsafe { &*(slot.address.load(Ordering::Relaxed) as *const Vm) };
        Ok(Self { vm, slot })
    }

    /// Returns the VM, which lives as long as this.
    pub fn vm(&self) -> &'static Vm {
        self.vm
    }
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        self.slot.state.fetch_sub(1, Ordering::Release);
    }
}

/// A reference to a live VM and its tables, for the length of a call.
pub struct VmRef {
    // Fields are dropped in this order: the CPU has left before the VM may end.
    _stay: Stay,
    held: Held,
}

impl VmRef {
    /// Finds a live VM and begins a stay inside EL2.
    pub fn get(handle: VmHandle, percpu: &PerCpu) -> Status<Self> {
        let held = Held::get(handle)?;
        Ok(Self { _stay: Stay::begin(percpu.index()), held })
    }
}

impl Deref for VmRef {
    type Target = Vm;

    fn deref(&self) -> &Vm {
        self.held.vm
    }
}

/// Returns log2 of the number of pages of a VM's region.
pub fn region_order(ipa_bits: u32) -> Status<u32> {
    let geometry = Geometry::new(ipa_bits, system::pa_bits())?;
    let own = (size_of::<Vm>() as u64).div_ceil(PAGE_SIZE);
    Ok((geometry.root_pages() + own).next_power_of_two().ilog2())
}

/// Creates a VM in a region of the host's memory, which is donated to it.
#[inline(never)]
pub fn create(ipa_bits: u32, region: Pa) -> Status<VmHandle> {
    let order = region_order(ipa_bits)?;
    if !region.is_aligned(PAGE_SIZE << order) {
        return Err(Error::Invalid);
    }
    let handle = claim()?;
    let pages = 1 << order;
    if let Err(error) = memory::donate(region, pages, handle) {
        slot(handle).state.store(FREE, Ordering::Release);
        return Err(error);
    }
    let geometry = Geometry::new(ipa_bits, system::pa_bits())?;
    // SAFETY: zeroed pages that now belong to this VM, aligned to more than the root's size.
    let root = unsafe { Root::new(region, geometry) };
    let address = region.0 + geometry.root_pages() * PAGE_SIZE;
    let vm = address as *mut Vm;
    // SAFETY: behind the root in the same region, large enough by `region_order`, page-aligned.
    unsafe { vm.write(Vm::new(handle, root, region, pages)) };
    slot(handle).address.store(address, Ordering::Relaxed);
    slot(handle).state.store(LIVE, Ordering::Release);
    Ok(handle)
}

fn claim() -> Status<VmHandle> {
    for (index, slot) in SLOTS.iter().enumerate() {
        let claimed =
            slot.state.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        if claimed.is_ok() {
            return Ok(VmHandle(index as u16 + 1));
        }
    }
    Err(Error::Limit)
}

/// Ends a VM as far as no interrupt stops it; returns how many pages it still has.
pub fn destroy(handle: VmHandle, percpu: &PerCpu) -> Status<u64> {
    let slot = slot(handle);
    let begin =
        |from| slot.state.compare_exchange(from, ENDING_NOW, Ordering::Acquire, Ordering::Relaxed);
    match begin(LIVE).or_else(|_| begin(ENDING)) {
        Ok(_) => {}
        Err(state) if state & (LIVE | ENDING | ENDING_NOW) != 0 => return Err(Error::Busy),
        Err(_) => return Err(Error::NoEntry),
    }
    // SAFETY: the state says that this call alone uses the VM.
    let vm = unsafe { &*(slot.address.load(Ordering::Relaxed) as *const Vm) };
    let left = vm.give_all_back(percpu);
    let next = if left == 0 { FREE } else { ENDING };
    slot.state.store(next, Ordering::Release);
    Ok(left)
}

/// Ends all VMs as far as no interrupt stops it; returns how many there still are.
pub fn destroy_all(percpu: &PerCpu) -> Status<u64> {
    let (mut left, mut busy, mut stopped) = (0, false, false);
    for index in 0..MAX_VMS as u16 {
        let handle = VmHandle(index + 1);
        if slot(handle).state.load(Ordering::Relaxed) == FREE {
            continue;
        }
        if stopped {
            left += 1;
            continue;
        }
        match destroy(handle, percpu) {
            Ok(0) | Err(Error::NoEntry) => {}
            Ok(_) => left += 1,
            // Go on with the others: they end whatever this one does.
            Err(_) => busy = true,
        }
        // One VM at least has come further.
        stopped = !busy && sysreg::interrupt_pending();
    }
    if busy { Err(Error::Busy) } else { Ok(left) }
}

impl Vm {
    fn new(handle: VmHandle, root: Root, region: Pa, region_pages: u64) -> Self {
        let geometry = root.geometry();
        let geometry = vtcr::Geometry { t0sz: geometry.t0sz(), sl0: geometry.sl0() };
        Self {
            handle,
            stage2: Stage2::new(root, system::flush_config()),
            vmid: VmidCell::new(),
            last_vcpu: array::from_fn(|_| LastVcpu::new()),
            vcpus: array::from_fn(|_| AtomicU64::new(0)),
            working_sets: WorkingSets::new(),
            common_vtcr: vtcr::common(geometry, system::selection()),
            free: TicketMutex::new(0),
            donated_pages: AtomicUsize::new(region_pages as usize),
            unmapped_pages: AtomicU64::new(NOT_BEGUN),
            region,
            region_pages,
            statistics: Statistics::new(handle),
        }
    }

    /// Returns the IPA bits of the VM.
    pub fn ipa_bits(&self) -> u32 {
        self.stage2.root().geometry().ipa_bits()
    }

    /// Returns VTCR_EL2 for the VM on a CPU.
    pub fn vtcr(&self, cpu: &Cpu) -> u64 {
        self.common_vtcr | cpu.vtcr
    }

    /// Adds to a statistic.
    #[inline]
    pub fn count(&self, stat: Stat, amount: u64) {
        self.statistics.count(stat, amount);
    }

    /// Reads a statistic.
    pub fn statistic(&self, stat: Stat) -> u64 {
        let get = |stat| self.statistics.get(stat);
        match stat {
            Stat::TablePagesPerGib => per_gib(get(Stat::TablePages), get(Stat::PagesMapped)),
            _ => get(stat),
        }
    }

    /// Takes pages of the host into the VM's pool, up to a pending interrupt.
    pub fn donate(&self, start: Pa, count: u64) -> Outcome {
        for index in 0..count {
            if index != 0 && sysreg::interrupt_pending() {
                return Outcome::done(index);
            }
            let page = Pa(start.0 + index * PAGE_SIZE);
            if let Err(error) = memory::donate(page, 1, self.handle) {
                return Outcome::stopped(index, error);
            }
            self.donated_pages.fetch_add(1, Ordering::Relaxed);
            self.push_free(page);
        }
        Outcome::done(count)
    }

    /// Gives up to `pages.len()` free pages of the pool back to the host; returns how many.
    pub fn reclaim(&self, pages: &mut [u64]) -> usize {
        let mut count = 0;
        while count < pages.len()
            && let Some(page) = self.pop_free()
        {
            memory::give_back(page, 1, self.handle);
            self.donated_pages.fetch_sub(1, Ordering::Relaxed);
            pages[count] = page.0;
            count += 1;
        }
        count
    }

    /// Takes a page out of the pool, with what it held last.
    pub fn pop_free(&self) -> Option<Pa> {
        let mut free = self.free.lock();
        let page = (*free != 0).then_some(*free)?;
        // SAFETY: a page in the list belongs to this VM's pool and to nobody else.
        *free = unsafe { (page as *const u64).read() };
        self.count(Stat::FreeTablePages, u64::MAX);
        Some(Pa(page))
    }

    /// Puts a page that nobody uses any more into the pool.
    pub fn push_free(&self, page: Pa) {
        let mut free = self.free.lock();
        // SAFETY: the page belongs to this VM, and its last user gave it up.
        unsafe { (page.0 as *mut u64).write(*free) };
        *free = page.0;
        self.count(Stat::FreeTablePages, 1);
    }

    /// Takes note of pages that were donated, for a vCPU or a working set.
    pub fn count_donated(&self, pages: u64) {
        self.donated_pages.fetch_add(pages as usize, Ordering::Relaxed);
    }

    /// Takes note of such pages that were given back.
    pub fn count_given_back(&self, pages: u64) {
        self.donated_pages.fetch_sub(pages as usize, Ordering::Relaxed);
    }

    /// Unmaps everything and gives all memory back, its own last; returns the pages still to go.
    fn give_all_back(&self, percpu: &PerCpu) -> u64 {
        let done = self.unmap_all(percpu)
            && working_set::give_all_back(self)
            && self.give_vcpus_back()
            && self.give_tables_back();
        let left = self.donated_pages.load(Ordering::Relaxed) as u64;
        if !done {
            return left;
        }
        let (region, handle) = (self.region, self.handle);
        assert!(left == self.region_pages, "a VM that ends has lost a page");
        // From here on `self` is memory of the host's.
        memory::give_back(region, left, handle);
        0
    }

    /// Tells whether nothing is mapped and no table is in use any more.
    fn unmap_all(&self, percpu: &PerCpu) -> bool {
        let pages = self.stage2.root().geometry().ipa_bytes() / PAGE_SIZE;
        let env = VmEnv::new(self, percpu);
        let unmapped = {
            let _stay = Stay::begin(percpu.index());
            let all = self.stage2.range(Ipa(0), pages).expect("all of the IPA space is a range");
            // One invalidation of everything, however many calls it takes: its mark covers every
            // table, so that all of them are unlinked. Marks of a host that died are in nobody's way.
            let (resume, from) = match self.unmapped_pages.load(Ordering::Relaxed) {
                NOT_BEGUN => (false, 0),
                from => (true, from),
            };
            let reached =
                self.stage2.invalidate_begin(&env, all, resume, from, &mut Dirty::Unwanted).pages;
            self.unmapped_pages.store(reached, Ordering::Relaxed);
            reached == pages
        };
        // What was retired in one stay comes free in a later one.
        unmapped
            && (0..4).any(|_| {
                let _stay = Stay::begin(percpu.index());
                self.stage2.reap(&env)
            })
    }

    fn give_vcpus_back(&self) -> bool {
        for vcpu in &self.vcpus {
            let region = vcpu.swap(0, Ordering::Relaxed);
            if region != 0 {
                memory::give_back(Pa(region), 1 << vcpu::REGION_ORDER, self.handle);
                self.count_given_back(1 << vcpu::REGION_ORDER);
                if sysreg::interrupt_pending() {
                    return false;
                }
            }
        }
        true
    }

    fn give_tables_back(&self) -> bool {
        let mut pages = [0; PAGES_PER_POLL];
        while self.reclaim(&mut pages) != 0 {
            if sysreg::interrupt_pending() {
                return false;
            }
        }
        true
    }
}
