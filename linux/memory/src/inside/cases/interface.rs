//! The interface itself: what it promises, and what it refuses with which error.

use std::collections::BTreeMap;
use std::io::Error;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

use kvm_bindings::kvm_vcpu_init;
use kvm_ioctls::Kvm;
use verdigris_guest::{control, program};
use verdigris_ktap::test_table;

use super::support::HAND;
use crate::inside::guest::{DATA, Guest};
use crate::inside::region::Kind;
use crate::inside::sys::{self, PAGE};
use crate::inside::vcpu::{Exit, Vcpu, kick};
use crate::inside::vm::Vm;

test_table! { "memory", 300:
    capabilities, mistakes_of_vms, mistakes_of_vcpus, another_process_may_not, signals_end_runs,
    statistics_by_name, files_close_in_any_order,
}

/// Past the last number that Linux 7.x has.
const NUMBERS: u64 = 400;

/// Capabilities that both have with one value: number (linux/kvm.h), value.
const BOTH: &[(u64, i32)] = &[
    (3, 1),      // USER_MEMORY
    (10, 32767), // NR_MEMSLOTS
    (14, 1),     // MP_STATE
    (16, 1),     // SYNC_MMU
    (21, 1),     // DESTROY_MEMORY_REGION_WORKS
    (30, 1),     // JOIN_MEMORY_REGIONS_WORKS
    (70, 1),     // ONE_REG
    (81, 1),     // READONLY_MEM
    (102, 1),    // ARM_PSCI_0_2
    (105, 1),    // CHECK_EXTENSION_VM
    (136, 1),    // IMMEDIATE_EXIT
    (168, 3),    // MANUAL_DIRTY_LOG_PROTECT2
    (178, 1),    // ARM_NISV_TO_USER
    (203, 1),    // BINARY_STATS_FD
    (231, 1),    // USER_MEMORY2
];

/// Those whose value is the machine's: vCPUs, IPA bits, keys of return addresses; and ENABLE_CAP_VM and the like, of
/// which both answer something.
const EITHER: &[u64] = &[9, 40, 66, 98, 128, 165, 171, 172, 232, 215];

fn capabilities() {
    let kvm = Kvm::new().expect("/dev/kvm");
    let vm = Vm::new();
    let ask = |number: u64| {
        let (of_all, of_vm) = (kvm.check_extension_raw(number), vm.fd.check_extension_raw(number));
        if Path::new("/sys/module/verdigris").exists() {
            assert_eq!(of_all, of_vm, "capability {number}");
        }
        of_vm
    };
    let found: BTreeMap<u64, i32> =
        (0..NUMBERS).map(|number| (number, ask(number))).filter(|(_, value)| *value != 0).collect();
    println!("{found:?}");
    for (number, value) in BOTH {
        assert_eq!(found.get(number), Some(value), "capability {number}");
    }
    if Path::new("/sys/module/verdigris").exists() {
        let is_known =
            |number: &u64| BOTH.iter().any(|(known, _)| known == number) || EITHER.contains(number);
        let unknown: Vec<_> = found.keys().filter(|number| !is_known(number)).collect();
        assert!(unknown.is_empty(), "answered, and nothing is known of: {unknown:?}");
    }
    assert!((32..=52).contains(&found[&165]), "{} bits of addresses", found[&165]);
    let bits = found[&165] as u64;
    kvm.create_vm_with_type(bits).expect("as many bits as there are");
    let refused = kvm.create_vm_with_type(bits + 1).expect_err("more bits than there are");
    assert_eq!(refused.errno(), libc::EINVAL);
    assert_eq!(kvm.create_vm_with_type(31).expect_err("too few").errno(), libc::EINVAL);
    assert_eq!(kvm.create_vm_with_type(1 << 8).expect_err("no type").errno(), libc::EINVAL);
}

fn errno<T>(result: std::result::Result<T, kvm_ioctls::Error>) -> i32 {
    result.err().expect("a mistake").errno()
}

fn mistakes_of_vms() {
    let vm = Vm::new();
    assert_eq!(errno(vm.fd.create_vcpu(100_000)), libc::EINVAL);
    let _first = vm.fd.create_vcpu(0).expect("a vCPU");
    assert_eq!(errno(vm.fd.create_vcpu(0)), libc::EEXIST);
    let enabled = vm.enable(100_000, 0).expect_err("no such capability");
    assert_eq!(enabled.raw_os_error(), Some(libc::EINVAL));
    let enabled = vm.enable(168, 1 << 5).expect_err("no such option");
    assert_eq!(enabled.raw_os_error(), Some(libc::EINVAL));
    const NO_SUCH: u64 = 0xae << 8 | 0xfe;
    let unknown = sys::ioctl_number(vm.fd.as_raw_fd(), NO_SUCH, 0).expect_err("no such call");
    assert_eq!(unknown.raw_os_error(), Some(libc::ENOTTY));
}

fn mistakes_of_vcpus() {
    let vm = Vm::new();
    let mut vcpu = vm.fd.create_vcpu(0).expect("a vCPU");
    assert_eq!(vcpu.run().expect_err("not initialised").errno(), libc::ENOEXEC);
    let mut bytes = [0; 8];
    let register = 0x6030_0000_0010_0000;
    assert_eq!(vcpu.get_one_reg(register, &mut bytes).expect_err("not yet").errno(), libc::ENOEXEC);
    let mut init = kvm_vcpu_init::default();
    vm.fd.get_preferred_target(&mut init).expect("a target");
    let wrong = kvm_vcpu_init { target: 77, ..init };
    assert_eq!(vcpu.vcpu_init(&wrong).expect_err("no such target").errno(), libc::EINVAL);
    let mut wrong = init;
    wrong.features[1] = 1;
    assert_eq!(vcpu.vcpu_init(&wrong).expect_err("no such feature").errno(), libc::ENOENT);
    vcpu.vcpu_init(&init).expect("the preferred target");
    vcpu.get_one_reg(register, &mut bytes).expect("x0");
    // A core register that there isn't, one past the last; and no register at all.
    assert_eq!(
        vcpu.get_one_reg(register + 0xffff, &mut bytes).expect_err("none").errno(),
        libc::ENOENT
    );
    assert_eq!(
        vcpu.get_one_reg(0x6030_0000_0000_0000, &mut bytes).expect_err("none").errno(),
        libc::ENOENT
    );
    let mut list = kvm_bindings::RegList::new(1).expect("a list");
    assert_eq!(vcpu.get_reg_list(&mut list).expect_err("too short").errno(), libc::E2BIG);
    let count = list.as_fam_struct_ref().n as usize;
    let mut list = kvm_bindings::RegList::new(count).expect("a list");
    vcpu.get_reg_list(&mut list).expect("long enough");
    for &register in list.as_slice() {
        let mut bytes = [0; 256];
        let size = vcpu.get_one_reg(register, &mut bytes).expect("a register of the list");
        assert_eq!(size, 1 << (register >> 52 & 0xf), "{register:#x}");
    }
}

/// A VM is its process's: a child has the file, and may only close it.
fn another_process_may_not() {
    let guest = Guest::new(Kind::Pages, 16 * PAGE);
    let (vm, mut hand) = (guest.vm.fd.as_raw_fd(), guest.vcpu(HAND));
    let child = sys::fork(|| {
        const CREATE_VCPU: u64 = 0xae << 8 | 0x41;
        const RUN: u64 = 0xae << 8 | 0x80;
        let is_refused = |fd: i32, request: u64| {
            let result = sys::ioctl_number(fd, request, 7);
            result.is_err_and(|error| error.raw_os_error() == Some(libc::EIO))
        };
        i32::from(!is_refused(vm, CREATE_VCPU) || !is_refused(hand.descriptor(), RUN))
    })
    .expect("a child");
    assert_eq!(sys::wait_for(child).expect("a child"), 0);
    assert_eq!(hand.program(program::READ, &[DATA])[1], 0);
}

fn signals_end_runs() {
    sys::make_interruptible();
    let guest = Guest::new(Kind::Pages, 16 * PAGE);
    let mut hand = guest.vcpu(HAND);
    hand.begin(program::READ, &[DATA]);
    hand.exit_at_once(true);
    assert_eq!(hand.run(), Exit::Interrupted);
    assert_eq!(hand.run(), Exit::Interrupted);
    hand.exit_at_once(false);
    assert_eq!(hand.finish()[1], 0);
    // A guest that never exits leaves its run by a signal, and goes on where it was.
    hand.begin(program::WATCH, &[DATA, guest.control_address(HAND)]);
    let thread = sys::thread_number();
    let rounds = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(20));
                kick(thread);
            }
            guest.set_control(HAND, control::STOP, 1);
        });
        let mut interruptions = 0;
        loop {
            match hand.run() {
                Exit::Interrupted => interruptions += 1,
                Exit::Event(_) => return interruptions,
                other => panic!("{other:?}"),
            }
        }
    });
    // Signals of one number that come together are one.
    assert!(rounds >= 5, "{rounds} interruptions");
}

fn statistics_by_name() {
    let guest = Guest::new(Kind::Pages, 64 * PAGE);
    let mut hand = guest.vcpu(HAND);
    let before = guest.vm.statistics();
    assert!(!before.is_empty());
    hand.program(program::FILL, &[DATA, 64 * PAGE as u64, 1]);
    let now = guest.vm.statistics();
    assert_eq!(before.keys().collect::<Vec<_>>(), now.keys().collect::<Vec<_>>());
    if Path::new("/sys/module/verdigris").exists() {
        for name in ["faults", "maps", "pages_mapped", "pages_donated"] {
            assert!(now[name] > 0, "{name}");
        }
        assert!(now["pages_mapped"] - before["pages_mapped"] >= 64);
        let of_firmware = now.keys().filter(|name| name.starts_with("fw_")).count();
        assert!(of_firmware > 10, "{of_firmware} counters of the firmware");
    }
}

/// The VM's file first, then a vCPU's, or the other way; a vCPU runs on without the VM's file.
fn files_close_in_any_order() {
    for _ in 0..10 {
        let guest = Guest::new(Kind::Pages, 16 * PAGE);
        let (mut first, second) = (guest.vcpu(0), guest.vcpu(1));
        drop(second);
        first.program(program::WRITE, &[DATA, 1]);
        let Guest { vm, data, .. } = guest;
        drop(vm);
        // Its memory is still there: the run is as good as before.
        assert_eq!(data.read(0), 1);
        drop(first);
    }
    let error = Error::from_raw_os_error(libc::EINVAL);
    let vm = Vm::new();
    let closed = Vcpu::new(&vm, 0);
    drop(vm);
    assert_ne!(closed.results()[0], 1, "{error}");
}
