use super::*;
use crate::smccc;

struct FourCpus;

impl Host for FourCpus {
    fn owns(&self, address: Pa) -> bool {
        (0x4000_0000..0x8000_0000).contains(&address.0) || address.0 >> 32 == 1
    }

    fn cpu_with(&self, affinity: u64) -> Option<usize> {
        // Two clusters of two.
        [0, 1, 0x100, 0x101].iter().position(|known| *known == affinity)
    }
}

const ORIGINAL: Below = Below { smccc_version: 0, extended_power_state: false };
const EXTENDED: Below = Below { smccc_version: 0, extended_power_state: true };

fn call(registers: [u64; 4]) -> Action {
    smccc::decide(0, registers, &ORIGINAL, &FourCpus)
}

fn down(function: u32) -> Action {
    Action::Forward { function }
}

const NOT_SUPPORTED: Action = Action::Answer(-1i64 as u64);
const INVALID_PARAMETERS: Action = Action::Answer(-2i64 as u64);
const INVALID_ADDRESS: Action = Action::Answer(-9i64 as u64);

fn start(entry: u64, context: u64) -> Start {
    Start { entry: Pa(entry), context }
}

#[test]
fn what_has_no_entry_goes_down_as_it_is() {
    for function in [
        0x8400_0000, // VERSION
        0x8400_0004, // AFFINITY_INFO
        0xc400_0004,
        0x8400_0006, // MIGRATE_INFO_TYPE
        0x8400_0008, // SYSTEM_OFF
        0x8400_0009, // SYSTEM_RESET
        0x8400_0010, // STAT_RESIDENCY
        0xc400_0011, // STAT_COUNT
        0xc400_0012, // SYSTEM_RESET2
        0x8400_0015, // SYSTEM_OFF2
    ] {
        assert_eq!(call([function, 1, 2, 3]), down(function as u32), "{function:#x}");
    }
}

#[test]
fn what_nobody_could_follow_is_refused() {
    for function in [
        0x8400_000b, // CPU_FREEZE
        0x8400_000c, // CPU_DEFAULT_SUSPEND
        0xc400_000c,
        0x8400_0013, // MEM_PROTECT
        0xc400_0014, // MEM_PROTECT_CHECK_RANGE
        0xc400_0000, // VERSION has no 64-bit form,
        0xc400_0002, // nor have CPU_OFF,
        0xc400_0008, // SYSTEM_OFF,
        0xc400_000a, // and FEATURES
        0x8400_0016,
        0x8400_001f,
    ] {
        assert_eq!(call([function, 0x4000_0000, 0, 0]), NOT_SUPPORTED, "{function:#x}");
        assert_eq!(call([0x8400_000a, function, 0, 0]), NOT_SUPPORTED, "{function:#x}");
    }
}

#[test]
fn features_says_yes_to_nothing_by_itself() {
    for function in [0x8400_0001, 0xc400_0001, 0x8400_0002, 0x8400_0003, 0xc400_0003, 0xc400_0012] {
        assert_eq!(call([0x8400_000a, function, 0, 0]), down(0x8400_000a), "{function:#x}");
    }
    assert_eq!(call([0x8400_000a, 0x8400_000a, 0, 0]), Action::Answer(0));
    assert_eq!(call([0x8400_000a, 0x8400_0050, 0, 0]), NOT_SUPPORTED);
}

#[test]
fn cpu_on_keeps_the_hosts_entry() {
    let on = |target, entry| call([0xc400_0003, target, entry, 7]);
    let expected = |cpu, mpidr, entry| Action::CpuOn { cpu, mpidr, start: start(entry, 7) };
    assert_eq!(on(0x101, 0x4008_0000), expected(3, 0x101, 0x4008_0000));
    assert_eq!(on(1, 0x1_0000_0000), expected(1, 1, 0x1_0000_0000));
    // An unknown CPU; a bit that is no affinity.
    assert_eq!(on(2, 0x4008_0000), INVALID_PARAMETERS);
    assert_eq!(on(0x8000_0001, 0x4008_0000), INVALID_PARAMETERS);
    // Memory that isn't the host's; no instruction.
    assert_eq!(on(1, 0x3fff_fffc), INVALID_ADDRESS);
    assert_eq!(on(1, 0x8000_0000), INVALID_ADDRESS);
    assert_eq!(on(1, 0x4008_0002), INVALID_ADDRESS);
}

#[test]
fn a_32_bit_call_has_32_bit_arguments() {
    let registers = [0x8400_0003, 0xdead_0000_0001, 0x1_4008_0000, 0xffff_ffff_0000_0007];
    let expected = Action::CpuOn { cpu: 1, mpidr: 1, start: start(0x4008_0000, 7) };
    assert_eq!(call(registers), expected);
}

#[test]
fn standby_passes_and_power_down_comes_back_through_el2() {
    let suspend =
        |below, state, entry| smccc::decide(0, [0xc400_0001, state, entry, 9], below, &FourCpus);
    let asleep = |power_state| Action::CpuSuspend { power_state, start: start(0x4000_1000, 9) };
    // StateType is bit 16 of the original format, bit 30 of the extended one.
    assert_eq!(suspend(&ORIGINAL, 0x0000_0001, 0), down(0xc400_0001));
    assert_eq!(suspend(&ORIGINAL, 0x4000_0000, 0), down(0xc400_0001));
    assert_eq!(suspend(&ORIGINAL, 0x0101_0000, 0x4000_1000), asleep(0x0101_0000));
    assert_eq!(suspend(&EXTENDED, 0x0001_0000, 0), down(0xc400_0001));
    assert_eq!(suspend(&EXTENDED, 0x4000_0002, 0x4000_1000), asleep(0x4000_0002));
    assert_eq!(suspend(&EXTENDED, 0x4000_0002, 0x1000), INVALID_ADDRESS);
}

#[test]
fn system_suspend_has_its_arguments_one_further_left() {
    let expected = Action::SystemSuspend { start: start(0x4000_1000, 9) };
    assert_eq!(call([0xc400_000e, 0x4000_1000, 9, 0]), expected);
    assert_eq!(call([0x8400_000e, 0x4000_1000, 9, 0]), expected);
    assert_eq!(call([0xc400_000e, 0, 9, 0]), INVALID_ADDRESS);
}

#[test]
fn a_cpu_goes_on_and_off() {
    let power = CpuPower::new(PowerState::Off);
    assert_eq!(power.take(), None);
    assert_eq!(power.claim(start(0x4000_0000, 1)), Ok(()));
    assert_eq!(power.state(), PowerState::Pending);
    assert_eq!(power.claim(start(0x4000_0004, 2)), Err(Return::OnPending));
    assert_eq!(power.take(), Some(start(0x4000_0000, 1)));
    assert_eq!(power.take(), None);
    assert_eq!(power.claim(start(0x4000_0004, 2)), Err(Return::AlreadyOn));
    power.go_off();
    assert_eq!(power.claim(start(0x4000_0008, 3)), Ok(()));
    power.withdraw();
    power.stay_on();
    assert_eq!(power.state(), PowerState::On);
}

#[test]
fn a_cpu_sleeps_or_does_not() {
    let power = CpuPower::new(PowerState::On);
    power.suspend(start(0x4000_0000, 1));
    assert_eq!(power.claim(start(0x4000_0004, 2)), Err(Return::AlreadyOn));
    assert_eq!(power.take(), Some(start(0x4000_0000, 1)));
    power.suspend(start(0x4000_0008, 3));
    power.stay_awake();
    assert_eq!((power.state(), power.take()), (PowerState::On, None));
}

#[test]
#[should_panic(expected = "could not be switched on")]
fn a_claim_that_was_read_cannot_be_withdrawn() {
    let power = CpuPower::new(PowerState::Off);
    power.claim(start(0x4000_0000, 1)).unwrap();
    power.take();
    power.withdraw();
}
