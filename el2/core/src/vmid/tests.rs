use std::cell::{Cell, RefCell};
use std::vec::Vec;

use super::{LastVcpu, Tlbs, VmidCell, VmidPool, Vmids};

/// Counts what the allocator asks of the hardware.
#[derive(Default)]
struct Log {
    invalidations: Cell<u32>,
    barriers: Cell<u32>,
}

impl Tlbs for Log {
    fn invalidate_all(&self) {
        self.invalidations.set(self.invalidations.get() + 1);
    }

    fn complete_stores(&self) {
        self.barriers.set(self.barriers.get() + 1);
    }
}

/// Four bits and four CPUs: VMIDs 1 to 15.
struct Small {
    vmids: Vmids,
    pool: RefCell<VmidPool>,
    log: Log,
}

impl Small {
    fn new() -> Self {
        let pool = RefCell::new(VmidPool::new(4, 4));
        Self { vmids: Vmids::new(), pool, log: Log::default() }
    }

    fn enter(&self, cpu: usize, cell: &VmidCell) -> (u16, u64) {
        let entered = self.vmids.enter(cpu, cell, || self.pool.borrow_mut(), &self.log);
        (entered.vmid(), entered.generation())
    }

    fn visit(&self, cpu: usize, cell: &VmidCell) -> (u16, u64) {
        let entered = self.enter(cpu, cell);
        self.vmids.leave(cpu);
        entered
    }

    /// Runs new VMs on `cpu` until the VMIDs have run out once.
    fn roll_over(&self, cpu: usize) {
        let before = self.log.invalidations.get();
        for _ in 0..16 {
            self.visit(cpu, &VmidCell::new());
            if self.log.invalidations.get() > before {
                return;
            }
        }
        panic!("15 VMIDs were enough for 16 VMs");
    }
}

#[test]
fn gives_every_vmid_but_the_hosts_before_it_invalidates() {
    let small = Small::new();
    let given: Vec<u16> = (0..15).map(|_| small.visit(0, &VmidCell::new()).0).collect();
    assert_eq!(given, (1..=15).collect::<Vec<u16>>());
    assert_eq!(small.log.invalidations.get(), 0);
    assert_eq!(small.vmids.rollovers(), 0);
    assert_eq!(small.visit(0, &VmidCell::new()), (1, 2));
    assert_eq!((small.log.invalidations.get(), small.vmids.rollovers()), (1, 1));
}

#[test]
fn makes_each_new_tag_visible_before_it_is_used() {
    let small = Small::new();
    let cell = VmidCell::new();
    small.visit(0, &cell);
    assert_eq!(small.log.barriers.get(), 1);
    small.visit(0, &cell);
    assert_eq!(small.log.barriers.get(), 1);
}

#[test]
fn runs_again_without_the_lock() {
    let small = Small::new();
    let cell = VmidCell::new();
    let first = small.visit(0, &cell);
    let held = small.pool.borrow_mut();
    // Taking the lock now would panic.
    assert_eq!(small.visit(0, &cell), first);
    assert_eq!(small.visit(3, &cell), first);
    drop(held);
}

#[test]
fn needs_the_lock_once_for_each_vm_after_a_rollover() {
    let small = Small::new();
    let (idle, other) = (VmidCell::new(), VmidCell::new());
    small.visit(0, &idle);
    small.roll_over(1);
    small.visit(2, &other);
    let renewed = small.visit(2, &idle);
    assert_eq!(renewed.1, 2);
    let held = small.pool.borrow_mut();
    assert_eq!(small.visit(0, &idle), renewed);
    assert_eq!(small.visit(3, &idle), renewed);
    drop(held);
}

#[test]
fn lets_a_running_vm_keep_its_vmid_over_many_rollovers() {
    let small = Small::new();
    let running = VmidCell::new();
    assert_eq!(small.enter(3, &running), (1, 1));
    for generation in 2..6 {
        small.roll_over(0);
        // The first of a generation is given to the VM that made it begin.
        assert_eq!(small.visit(0, &VmidCell::new()), (3, generation));
    }
    assert_eq!(small.visit(0, &running), (1, 5));
    small.roll_over(0);
    assert_eq!(small.visit(0, &running), (1, 6));
    small.vmids.leave(3);
    small.roll_over(0);
    // Nobody runs it now: the next in order, not what it had.
    assert_eq!(small.visit(0, &running), (2, 7));
}

#[test]
fn forgets_a_vmid_that_was_kept_once_its_vm_has_left() {
    let small = Small::new();
    let (first, second) = (VmidCell::new(), VmidCell::new());
    small.enter(3, &first);
    small.roll_over(0);
    small.vmids.leave(3);
    small.roll_over(0);
    // The VM that made this generation begin got 1, which `first` had kept in the one before.
    assert_eq!(small.visit(3, &second), (2, 3));
    assert_eq!(small.visit(3, &first), (3, 3));
}

#[test]
fn names_the_vmid_of_a_vm_that_still_runs_under_an_old_generation() {
    let small = Small::new();
    let running = VmidCell::new();
    assert_eq!(running.current(), None);
    small.enter(3, &running);
    small.roll_over(0);
    small.roll_over(0);
    // Its TLB entries were removed, but it has had time to fetch them again.
    assert_eq!(running.current(), Some(1));
}

#[test]
fn finds_a_vmid_when_every_other_cpu_keeps_one() {
    let vmids = Vmids::new();
    let (pool, log) = (RefCell::new(VmidPool::new(2, 2)), Log::default());
    let enter = |cpu, cell: &VmidCell| vmids.enter(cpu, cell, || pool.borrow_mut(), &log).vmid();
    let cells: [VmidCell; 8] = Default::default();
    assert_eq!(enter(1, &cells[0]), 1);
    for cell in &cells[1..] {
        assert_ne!(enter(0, cell), 1);
        vmids.leave(0);
    }
    // Two for each generation: 0 is the host's, 1 is kept.
    assert_eq!(log.invalidations.get(), 3);
}

#[test]
fn has_sixteen_bits_at_most() {
    let vmids = Vmids::new();
    let (pool, log) = (RefCell::new(VmidPool::new(8, 64)), Log::default());
    pool.borrow_mut().resize(16, 64);
    let mut last = 0;
    for _ in 1..=0xffff {
        last = vmids.enter(0, &VmidCell::new(), || pool.borrow_mut(), &log).vmid();
        vmids.leave(0);
    }
    assert_eq!((last, log.invalidations.get()), (0xffff, 0));
    let next = vmids.enter(63, &VmidCell::new(), || pool.borrow_mut(), &log);
    assert_eq!((next.vmid(), next.generation(), log.invalidations.get()), (1, 2, 1));
}

#[test]
fn flushes_for_whatever_is_not_this_vcpu_in_this_generation() {
    let small = Small::new();
    let cell = VmidCell::new();
    let last = LastVcpu::new();
    let run = |vcpu| {
        let entered = small.vmids.enter(1, &cell, || small.pool.borrow_mut(), &small.log);
        let flush = last.replace(entered, vcpu);
        small.vmids.leave(1);
        flush
    };
    assert_eq!([run(0), run(0), run(1), run(1), run(0)], [true, false, true, false, true]);
    small.roll_over(0);
    assert_eq!([run(0), run(0)], [true, false]);
}

#[test]
fn counts_rollovers_while_guests_run() {
    let small = Small::new();
    // CPU 0, whose slot is read, is inside a guest all the time.
    small.enter(0, &VmidCell::new());
    for rollovers in 1..4 {
        small.roll_over(1);
        assert_eq!(small.vmids.rollovers(), rollovers);
    }
}

#[test]
fn needs_two_vmids_more_than_cpus() {
    let least =
        [(1, 2), (2, 2), (3, 3), (6, 3), (7, 4), (14, 4), (15, 5), (62, 6), (63, 7), (64, 7)];
    for (cpu_count, bits) in least {
        assert_eq!(VmidPool::least_bits(cpu_count), bits, "{cpu_count} CPUs");
        VmidPool::new(bits, cpu_count);
    }
}

/// As many rollovers as it takes, with the fewest VMIDs that do: each VM that waits gets one, and no CPU
/// that runs loses its own.
#[test]
fn gives_one_to_whoever_waits_with_the_fewest_vmids() {
    for cpu_count in [1, 2, 6, 14] {
        let vmids = Vmids::new();
        let bits = VmidPool::least_bits(cpu_count);
        let (pool, log) = (RefCell::new(VmidPool::new(bits, cpu_count)), Log::default());
        let enter = |cpu, cell: &VmidCell| vmids.enter(cpu, cell, || pool.borrow_mut(), &log);
        let running: Vec<VmidCell> = (1..cpu_count).map(|_| VmidCell::new()).collect();
        for (cpu, cell) in running.iter().enumerate() {
            enter(cpu + 1, cell);
        }
        for _ in 0..40 {
            let waiting = VmidCell::new();
            let given = enter(0, &waiting).vmid();
            assert!(running.iter().all(|cell| cell.current() != Some(given)), "{cpu_count} CPUs");
            assert!((1..1 << bits).contains(&given));
            vmids.leave(0);
        }
        assert!(vmids.rollovers() >= 40 >> bits);
    }
}

#[test]
#[should_panic(expected = "fewer VMIDs than CPUs may keep")]
fn refuses_as_many_vmids_as_cpus_and_one() {
    VmidPool::new(4, 15);
}

#[test]
#[should_panic(expected = "before it has left the last one")]
fn refuses_to_enter_twice() {
    let small = Small::new();
    let cell = VmidCell::new();
    small.enter(0, &cell);
    small.enter(0, &cell);
}

#[test]
#[should_panic(expected = "given out already")]
fn refuses_another_size_once_in_use() {
    let small = Small::new();
    small.visit(0, &VmidCell::new());
    small.pool.borrow_mut().resize(16, 4);
}
