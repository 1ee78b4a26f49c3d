//! The machine that the engine runs on: memory, TLBs, shares, CPUs, and what happens meanwhile.
//!
//! Each call of the engine into its environment is a *moment*: TLBs fill with whatever they may, and from
//! time to time the rest of the machine acts (see the module `agent`). What the engine asked for in a call
//! is recorded, to be judged when the call has returned.

use crate::agent::Agent;
use crate::memory::{BASE, Memory};
use crate::settings::Settings;
use crate::shares::Shares;
use crate::tlb::{Invalidation, Tlb};
use crate::vmids::VmidSpace;
use crate::walker::{Regime, Walk};
use std::cell::{Cell, OnceCell, RefCell};
use verdigris_core::vmid::Tlbs;
use verdigris_stage2::{
    Access, Cache, Counters, Cpus, Error, Geometry, Ipa, Level, Pa, PageSource, Removed, Root,
    Stage2, Stat, Table, TableMemory, TablePage,
};

/// How many CPUs there are.
pub const CPUS: usize = 4;

/// What an outermost call of the engine did.
#[derive(Default)]
pub struct Record {
    /// Broadcast invalidations, and the number of the batch (enter to leave) each stood in.
    pub invalidations: Vec<(u32, Invalidation)>,
    /// Pages that were invalidated on the calling CPU alone.
    pub local: Vec<u64>,
    /// Leaves that were reported gone.
    pub removed: Vec<Removed>,
    /// Pages whose leaf the hardware or another CPU changed.
    pub disturbed: Vec<u64>,
    /// Pages that the guest wrote to.
    pub written: Vec<u64>,
    /// Accesses of the guest that went to the host: which hot address, and what for.
    pub refused: Vec<(usize, Access)>,
    /// Another CPU cleared access flags.
    pub aged: bool,
    /// The pool was empty.
    pub out_of_pages: bool,
    /// A poll found an interrupt.
    pub interrupted: bool,
    /// The repeated invalidation was asked for.
    pub repeats: u32,
    batches: u32,
}

impl Record {
    /// Empties the record and keeps its memory.
    pub fn clear(&mut self) {
        self.invalidations.clear();
        self.local.clear();
        self.removed.clear();
        self.disturbed.clear();
        self.written.clear();
        self.refused.clear();
        (self.aged, self.out_of_pages, self.interrupted) = (false, false, false);
        (self.repeats, self.batches) = (0, 0);
    }
}

/// A CPU that stays in EL2 while others make calls, with references into tables that it found.
struct Loiterer {
    cpu: usize,
    found: [u64; 4],
}

/// The machine.
pub struct Machine {
    /// Table memory.
    pub memory: Memory,
    /// The translation registers.
    pub regime: Regime,
    /// Features and errata.
    pub settings: Settings,
    /// The TLBs of all CPUs.
    pub tlb: RefCell<Tlb>,
    /// Shares in the host's memory.
    pub shares: Shares,
    /// VMIDs, and whether the guest runs.
    pub vmids: VmidSpace,
    /// What the present call does.
    pub record: RefCell<Record>,
    /// What happens at random.
    pub agent: Agent,
    /// Calls of the engine under way: 0, 1, or 2 while another CPU's stands inside of one.
    pub depth: Cell<u32>,
    vm: OnceCell<Stage2>,
    cpu: Cell<usize>,
    presence: [Cell<u64>; CPUS],
    loiterer: RefCell<Option<Loiterer>>,
    /// The VMID that EL2 has loaded on each CPU, inside `enter` and `leave`.
    acting: [Cell<Option<Option<u16>>>; CPUS],
    /// Looks at interrupts until one is pending.
    interrupt_after: Cell<Option<u64>>,
    stats: [Cell<u64>; Stat::COUNT],
}

impl Machine {
    /// Makes a machine with a VM whose tables are empty.
    pub fn new(settings: Settings, pool_pages: u64, agent: Agent) -> Self {
        let geometry = Geometry::new(settings.ipa_bits, 48).expect("an IPA size of the table");
        let regime = Regime { baddr: BASE, t0sz: geometry.t0sz(), sl0: geometry.sl0() };
        regime.check();
        let machine = Self {
            memory: Memory::new(pool_pages),
            regime,
            tlb: RefCell::new(Tlb::new(regime, settings.config.repeat)),
            shares: Shares::new(),
            vmids: VmidSpace::new(settings.vmid_bits),
            record: RefCell::default(),
            agent,
            depth: Cell::new(0),
            vm: OnceCell::new(),
            cpu: Cell::new(0),
            presence: Default::default(),
            loiterer: RefCell::new(None),
            acting: Default::default(),
            interrupt_after: Cell::new(None),
            stats: std::array::from_fn(|_| Cell::new(0)),
            settings,
        };
        let root = machine.root(geometry);
        let _ = machine.vm.set(Stage2::new(root, settings.config));
        machine
    }

    #[allow(unsafe_code)]
    fn root(&self, geometry: Geometry) -> Root {
        // SAFETY: the first pages are a root's, zero, and never handed out.
        unsafe { Root::new(Pa(BASE), geometry) }
    }

    /// Returns the engine under test.
    pub fn vm(&self) -> &Stage2 {
        self.vm.get().expect("made with the machine")
    }

    /// Calls the engine on a CPU, which is inside EL2 for as long as it lasts.
    pub fn on_cpu<T>(&self, cpu: usize, call: impl FnOnce(&Stage2) -> T) -> T {
        let before = self.cpu.replace(cpu);
        self.depth.set(self.depth.get() + 1);
        self.presence[cpu].set(self.presence[cpu].get() + 1);
        let result = call(self.vm());
        self.presence[cpu].set(self.presence[cpu].get() + 1);
        self.depth.set(self.depth.get() - 1);
        self.cpu.set(before);
        result
    }

    /// Lets a CPU come into EL2 and find the tables on the way to an address, or leave if one has.
    pub fn loiter(&self, cpu: usize, ipa: u64) {
        if self.loiterer.borrow().is_some() {
            return self.leave_el2();
        }
        let found = self.walk(ipa / 4096).tables;
        self.presence[cpu].set(self.presence[cpu].get() + 1);
        *self.loiterer.borrow_mut() = Some(Loiterer { cpu, found });
    }

    /// Lets the CPU leave that stays in EL2.
    pub fn leave_el2(&self) {
        if let Some(Loiterer { cpu, .. }) = self.loiterer.borrow_mut().take() {
            self.presence[cpu].set(self.presence[cpu].get() + 1);
        }
    }

    /// Tells whether a CPU stays in EL2, so that it can make no other call.
    pub fn is_inside(&self, cpu: usize) -> bool {
        self.loiterer.borrow().as_ref().is_some_and(|it| it.cpu == cpu)
    }

    /// Returns the CPU that calls the engine.
    pub fn cpu(&self) -> usize {
        self.cpu.get()
    }

    /// Lets an interrupt come after so many polls.
    pub fn interrupt_after(&self, polls: Option<u64>) {
        self.interrupt_after.set(polls);
    }

    /// Walks for a page as the hardware does.
    #[inline]
    pub fn walk(&self, page: u64) -> Walk {
        self.regime.walk(&self.memory, page * 4096)
    }

    /// Returns a counter.
    pub fn stat(&self, stat: Stat) -> u64 {
        self.stats[stat as usize].get()
    }

    /// Lets TLBs fill.
    pub fn fill(&self) {
        if let Some(vmid) = self.vmids.running() {
            self.tlb.borrow_mut().fill(&self.memory, vmid);
        }
    }

    /// Passes a moment: TLBs fill, others may act.
    fn moment(&self) {
        self.fill();
        self.agent.pass(self);
    }

    fn issue(&self, what: Invalidation) {
        let vmid = self.acting[self.cpu()].get().expect("an invalidation inside the VM's context");
        self.tlb.borrow_mut().issue(what, vmid);
        if self.depth.get() == 1 {
            let mut record = self.record.borrow_mut();
            let batch = record.batches;
            record.invalidations.push((batch, what));
        }
        self.moment();
    }

    fn pages(&self, ipa: Ipa, page_count: u64, level: Option<Level>) {
        assert!(level.is_none() || self.settings.config.ttl, "a level hint without FEAT_TTL");
        let (start, level) = (ipa.0 / 4096, level.map(|level| level as u32));
        self.issue(Invalidation::Pages { start, end: start + page_count, level });
    }
}

impl Tlbs for Machine {
    fn invalidate_all(&self) {
        self.tlb.borrow_mut().clear();
    }

    fn complete_stores(&self) {
        self.tlb.borrow_mut().stores_visible();
    }
}

impl TableMemory for Machine {
    fn table(&self, page: TablePage) -> &Table {
        self.agent.pass(self);
        self.memory.table(page)
    }
}

impl PageSource for Machine {
    fn alloc(&self) -> Option<TablePage> {
        self.moment();
        let page = self.memory.alloc();
        if page.is_none() {
            self.record.borrow_mut().out_of_pages = true;
        }
        page
    }

    fn free(&self, page: TablePage) {
        self.moment();
        if let Some(vmid) = self.vmids.current() {
            self.tlb.borrow().check_free(vmid, page.pa().0);
        }
        let found = |it: &Loiterer| it.found.contains(&page.pa().0);
        let found = self.loiterer.borrow().as_ref().is_some_and(found);
        assert!(!found, "a table is given back that a CPU inside EL2 has found");
        self.memory.free(page);
    }
}

impl verdigris_stage2::Tlb for Machine {
    fn enter(&self) {
        self.moment();
        let before = self.acting[self.cpu()].replace(Some(self.vmids.current()));
        assert_eq!(before, None, "the VM's context is entered once");
        if self.depth.get() == 1 {
            self.record.borrow_mut().batches += 1;
        }
    }

    fn leave(&self) {
        self.moment();
        assert!(self.acting[self.cpu()].take().is_some(), "what was entered is left");
    }

    fn ipa(&self, ipa: Ipa, level: Option<Level>) {
        self.pages(ipa, 1, level);
    }

    fn range(&self, ipa: Ipa, page_count: u64, level: Option<Level>) {
        assert!(self.settings.config.tlb_range, "a range without FEAT_TLBIRANGE");
        self.pages(ipa, page_count, level);
    }

    fn stage1(&self) {
        self.issue(Invalidation::Stage1);
    }

    fn vmid(&self) {
        self.issue(Invalidation::Vmid);
    }

    fn local(&self, ipa: Ipa) {
        let vmid = self.acting[self.cpu()].get().expect("an invalidation inside the VM's context");
        self.tlb.borrow_mut().local(self.cpu(), ipa.0, vmid);
        if self.depth.get() == 1 {
            self.record.borrow_mut().local.push(ipa.0 / 4096);
        }
        self.moment();
    }

    fn dsb_ishst(&self) {
        self.fill();
        self.tlb.borrow_mut().stores_visible();
        self.moment();
    }

    fn dsb_ish(&self) {
        self.fill();
        self.tlb.borrow_mut().complete();
        self.moment();
    }

    fn repeat(&self) {
        assert!(self.settings.config.repeat, "a repeated invalidation without the erratum");
        self.record.borrow_mut().repeats += 1;
        self.tlb.borrow_mut().repeat();
        self.moment();
    }

    fn isb(&self) {
        self.moment();
    }
}

impl Cache for Machine {
    fn clean(&self, _: Pa, _: u64) {
        assert!(!self.settings.config.fwb, "nothing to clean where write-back is forced");
        self.moment();
    }

    fn clean_invalidate(&self, _: Pa, _: u64) {
        assert!(!self.settings.config.fwb, "nothing to clean where write-back is forced");
        self.moment();
    }

    fn invalidate_instructions(&self) {
        assert!(!self.settings.config.dic, "instruction caches are coherent");
        self.moment();
    }
}

impl Cpus for Machine {
    fn this_cpu(&self) -> usize {
        self.cpu.get()
    }

    fn cpu_count(&self) -> usize {
        CPUS
    }

    fn presence(&self, cpu: usize) -> u64 {
        self.presence[cpu].get()
    }

    fn interrupt_pending(&self) -> bool {
        self.agent.pass(self);
        let after = self.interrupt_after.get();
        self.interrupt_after.set(after.map(|polls| polls.saturating_sub(1)));
        if after == Some(0) {
            self.record.borrow_mut().interrupted = true;
        }
        after == Some(0)
    }
}

impl verdigris_stage2::Shares for Machine {
    type Batch = ();

    fn acquire(&self, pa: Pa, level: Level) -> Result<(), Error> {
        self.shares.acquire(pa.0, level as u32)
    }

    fn release(&self, pa: Pa, level: Level) {
        self.shares.release(pa.0, level as u32);
    }

    fn batch(&self, _: Level) {}

    fn removed(&self, _: &mut (), leaf: &Removed) {
        self.fill();
        if let Some(vmid) = self.vmids.current() {
            let (page, level) = (leaf.ipa.0 / 4096, leaf.level as u32);
            self.tlb.borrow().check_gone(&self.memory, vmid, page, level, leaf.pa.0);
        }
        assert_eq!(self.depth.get(), 1, "only outermost calls take leaves away");
        self.record.borrow_mut().removed.push(*leaf);
        self.shares.release(leaf.pa.0, leaf.level as u32);
        self.agent.pass(self);
    }
}

impl Counters for Machine {
    fn count(&self, stat: Stat, amount: u64) {
        let counter = &self.stats[stat as usize];
        // Gauges are counted down by adding a negative number.
        counter.set(counter.get().wrapping_add(amount));
    }
}
