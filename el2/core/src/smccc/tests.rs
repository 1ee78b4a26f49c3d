use super::*;

/// A machine whose firmware below has no SMCCC, as QEMU's has not.
const OLD: Below = Below { smccc_version: 0, extended_power_state: false };
/// One that has 1.1.
const NEW: Below = Below { smccc_version: 0x1_0001, extended_power_state: false };

/// A host that owns 1 GiB from 1 GiB on, with four CPUs.
struct FourCpus;

impl Host for FourCpus {
    fn owns(&self, address: Pa) -> bool {
        (0x4000_0000..0x8000_0000).contains(&address.0)
    }

    fn cpu_with(&self, affinity: u64) -> Option<usize> {
        (affinity < 4).then_some(affinity as usize)
    }
}

fn call(below: &Below, registers: [u64; 4]) -> Action {
    decide(0, registers, below, &FourCpus)
}

const NO: Action = Action::Answer(0xffff_ffff_ffff_ffff);

#[test]
fn what_is_below_is_learned_from_three_calls() {
    assert_eq!(Below::from_answers(-1, 0, 0), OLD);
    assert_eq!(Below::from_answers(0, -1, -1), OLD);
    assert_eq!(Below::from_answers(0, 0x1_0001, 1), NEW);
    let extended = Below { smccc_version: 0x1_0004, extended_power_state: true };
    assert_eq!(Below::from_answers(0, 0x1_0004, 3), extended);
}

#[test]
fn the_version_is_1_2_everywhere() {
    for below in [OLD, NEW] {
        assert_eq!(call(&below, [0x8000_0000, 0, 0, 0]), Action::Answer(0x1_0002));
        // PSCI_FEATURES(SMCCC_VERSION), which is how Linux finds the conduit.
        assert_eq!(call(&below, [0x8400_000a, 0x8000_0000, 0, 0]), Action::Answer(0));
    }
}

#[test]
fn arch_features_says_yes_to_what_exists() {
    let features = |below, asked| call(below, [0x8000_0001, asked, 0, 0]);
    let down = Action::Forward { function: 0x8000_0001 };
    for below in [&OLD, &NEW] {
        assert_eq!(features(below, 0x8000_0000), Action::Answer(0));
        assert_eq!(features(below, 0x8000_0001), Action::Answer(0));
        // Paravirtualized time, and a name that means nothing.
        assert_eq!(features(below, 0xc500_0020), NO);
        assert_eq!(features(below, 0x8000_1234), NO);
    }
    for asked in [0x8000_0002, 0xc000_0002, 0x8000_8000, 0x8000_7fff, 0x8000_3fff, 0x8000_0004] {
        assert_eq!(features(&OLD, asked), NO);
        assert_eq!(features(&NEW, asked), down);
    }
}

#[test]
fn workarounds_and_random_numbers_go_down_where_they_exist() {
    for function in [
        0x8000_0002,
        0x8000_8000,
        0x8000_7fff,
        0x8000_3fff,
        0x8400_0050,
        0x8400_0051,
        0x8400_0052,
        0x8400_0053,
        0xc400_0053,
    ] {
        assert_eq!(call(&OLD, [function, 0, 0, 0]), NO, "{function:#x}");
        let down = Action::Forward { function: function as u32 };
        assert_eq!(call(&NEW, [function, 0, 0, 0]), down, "{function:#x}");
    }
}

#[test]
fn whoever_could_write_memory_is_refused() {
    for function in [
        0x8100_0000, // CPU services
        0x8200_0000, // the silicon vendor
        0xc200_ff01,
        0x8300_0000, // the board vendor
        0x8400_0020, // SDEI
        0x8400_0063, // FF-A
        0xc400_0066,
        0x8400_0054,
        0xc400_0050,
        0xc500_0020, // paravirtualized time
        0xc500_0021,
        0x8700_0000,
        0xb000_0000, // trusted applications
        0xb200_0000, // a trusted operating system
        0x0400_0000, // a yielding call
        0x0000_0000,
    ] {
        assert_eq!(call(&NEW, [function, 0, 0, 0]), NO, "{function:#x}");
    }
}

#[test]
fn our_own_range_is_ours() {
    for function in [0x8600_ff01, 0x8600_ff03, 0xc600_0000, 0xc600_0037, 0xc600_beef] {
        let action = Action::Hypercall { function: function as u32 };
        assert_eq!(call(&OLD, [function, 0, 0, 0]), action);
    }
}

#[test]
fn the_hint_of_live_vectors_changes_nothing() {
    for function in [0x8000_0000, 0x8400_0000, 0x8400_0009, 0xc600_0001, 0x8000_8000, 0x8200_0000] {
        assert_eq!(call(&NEW, [function | 0x1_0000, 0, 0, 0]), call(&NEW, [function, 0, 0, 0]));
    }
    assert_eq!(call(&NEW, [0x8401_0009, 0, 0, 0]), Action::Forward { function: 0x8400_0009 });
}

#[test]
fn only_the_low_half_of_x0_names_a_call() {
    let name = 0xffff_ffff_0000_0000 | 0x8000_0000;
    assert_eq!(call(&NEW, [name, 0, 0, 0]), Action::Answer(0x1_0002));
}

#[test]
fn an_immediate_is_no_call_of_the_convention() {
    assert_eq!(decide(1, [0x8000_0000, 0, 0, 0], &NEW, &FourCpus), NO);
}
