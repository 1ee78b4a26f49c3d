use super::*;
use crate::cpu::errata::{Effect, ROWS};
use crate::cpu::{Errata, Features, IdRegisters, Midr, Selection};
use std::string::ToString;

/// Words of the banner, as a whole: nothing else may be active.
fn words(midr: u64) -> std::string::String {
    Errata::of(midr).to_string()
}

/// Expected values are those of the parts' notices and of Linux's lists, spelled here once more by MIDR_EL1.
#[test]
fn every_part_has_the_errata_of_its_notices() {
    for (name, midr, expected) in [
        ("Cortex-A53 r0p4", A53.midr, "speculative-at"),
        ("Cortex-A53 r0p2", 0x410f_d032, "speculative-at clean-invalidates"),
        ("Cortex-A53 r0p3", 0x410f_d033, "speculative-at"),
        ("Cortex-A55 r2p0", A55.midr, "repeat-tlbi speculative-at no-hd"),
        ("Cortex-A57 r1p0", A57.midr, "speculative-at rewalk-on-fault"),
        ("Cortex-A72", A72.midr, "speculative-at"),
        ("Cortex-A76 r4p1", A76.midr, "repeat-tlbi"),
        ("Cortex-A77 r1p0", 0x411f_d0d0, "repeat-tlbi par-barriers"),
        ("Cortex-A77 r1p1", 0x411f_d0d1, "repeat-tlbi"),
        ("Cortex-A510 r0p2", A510_R0P2.midr, "repeat-tlbi no-hd slow-trace"),
        ("Cortex-A510 r0p3", 0x410f_d463, "repeat-tlbi"),
        ("Cortex-A510 r1p3", A510_R1P3.midr, "none"),
        ("Cortex-A710", A710.midr, "repeat-tlbi drain-twice cpp-trapped"),
        ("Cortex-A720", A720.midr, "none"),
        ("Cortex-X1", 0x411f_d440, "repeat-tlbi"),
        ("Cortex-X2", X2.midr, "repeat-tlbi cpp-trapped"),
        ("Cortex-X3", X3.midr, "repeat-tlbi cpp-trapped"),
        ("Cortex-X4", 0x410f_d821, "repeat-tlbi cpp-trapped"),
        ("Cortex-X925", X925.midr, "repeat-tlbi cpp-trapped"),
        ("Neoverse N1", N1.midr, "repeat-tlbi"),
        ("Neoverse N2", N2.midr, "repeat-tlbi drain-twice cpp-trapped"),
        ("Neoverse V1", V1.midr, "repeat-tlbi"),
        ("Neoverse V2", V2.midr, "repeat-tlbi cpp-trapped"),
        ("Neoverse V3", V3.midr, "repeat-tlbi cpp-trapped"),
        ("Neoverse V3AE", 0x410f_d831, "repeat-tlbi cpp-trapped"),
        ("C1-Ultra", 0x410f_d8c0, "repeat-tlbi cpp-trapped"),
        ("C1-Premium", 0x411f_d900, "repeat-tlbi cpp-trapped"),
        ("AmpereOne AC03", AC03.midr, "repeat-tlbi no-hd no-ha"),
        ("AmpereOne AC04", AC04.midr, "repeat-tlbi no-hd no-ha hcr-barriers"),
        ("Kryo 4xx Silver rdpe", 0x51df_805e, "repeat-tlbi speculative-at no-hd"),
        ("Kryo 4xx Silver rfpe", 0x51ff_805e, "repeat-tlbi"),
        ("Apple M1", M1.midr, "repeat-tlbi"),
        ("NVIDIA Olympus", 0x4e0f_0100, "repeat-tlbi"),
        ("Azure Cobalt 100", 0x6d0f_d490, "repeat-tlbi drain-twice cpp-trapped"),
        ("a part that nobody has seen", 0x410f_fff0, "repeat-tlbi"),
        ("QEMU max", MAX.midr, "none"),
        ("another emulator", 0x000f_0520, "repeat-tlbi"),
    ] {
        assert_eq!(words(midr), expected, "{name}");
    }
}

/// Makes a MIDR_EL1 of a row, with that revision.
fn midr_of(implementer: u8, part: u16, revision: u8) -> u64 {
    let (implementer, part, revision) =
        (u64::from(implementer), u64::from(part), u64::from(revision));
    implementer << 24 | (revision & 0xf0) << 16 | 0xf << 16 | part << 4 | revision & 0xf
}

fn has(errata: Errata, effect: Effect) -> bool {
    match effect {
        Effect::RepeatTlbi => errata.repeat_tlbi,
        Effect::SpeculativeAt => errata.speculative_at,
        Effect::RewalkOnFault => errata.rewalk_on_fault,
        Effect::NoHardwareDirty => errata.no_hardware_dirty,
        Effect::NoHardwareAccessFlag => errata.no_hardware_access_flag,
        Effect::HcrBarriers => errata.hcr_barriers,
        Effect::ParBarriers => errata.par_barriers,
        Effect::CleanInvalidates => errata.clean_invalidates,
        Effect::DrainTwice => errata.drain_twice,
        Effect::SlowTrace => errata.slow_trace,
        Effect::CppHoldsTlbi => errata.cpp_holds_tlbi,
    }
}

#[test]
fn every_row_holds_in_its_revisions_and_has_a_source() {
    for row in ROWS {
        let at =
            |revision| has(Errata::of(midr_of(row.implementer, row.part, revision)), row.effect);
        let (first, last) = row.revisions;
        assert!(first <= last && at(first) && at(last), "{}", row.source);
        assert!(last == 0xff || !at(last + 1), "{}", row.source);
        assert!(first == 0 || !at(first - 1), "{}", row.source);
        // A notice's number, or the name of the CVE; and who says so.
        assert!(row.source.chars().filter(char::is_ascii_digit).count() >= 2, "{}", row.source);
        assert_ne!(row.effect, Effect::RepeatTlbi, "that table is of those that are free of it");
    }
}

#[test]
fn ranges_of_revisions_end_where_the_notices_say() {
    let at = |midr| Errata::of(midr).speculative_at;
    // Cortex-A76 1165522 and Cortex-A55 1530923: up to r2p0.
    assert!(at(0x412f_d0b0) && !at(0x412f_d0b1) && !at(0x413f_d0b0));
    assert!(at(0x410f_d0b3) && at(0x412f_d050) && !at(0x412f_d051));
    // Cortex-A53, Cortex-A57 and Cortex-A72: all.
    assert!(at(0x41ff_d03f) && at(0x41ff_d07f) && at(0x41ff_d08f));
    // Cortex-A510: 2441009 up to r1p1.
    assert_eq!(words(0x411f_d461), "repeat-tlbi");
    assert_eq!(words(0x411f_d462), "none");
}

#[test]
fn a_machine_reckons_with_what_its_other_cpus_may_need() {
    let errata = |midr| Selection::new(&IdRegisters { midr, ..MAX }, Features::ALL).unwrap().errata;
    // Cortex-A510 r1p3, A520, A715, A720 and A725 wait for accesses, those that they are built beside don't.
    for midr in [A510_R1P3.midr, 0x410f_d800, 0x410f_d4d0, A720.midr, 0x410f_d870] {
        assert!(!Errata::of(midr).repeat_tlbi && errata(midr).repeat_tlbi, "{midr:#x}");
    }
    assert!(!errata(A53.midr).repeat_tlbi && !errata(A72.midr).repeat_tlbi);
}

#[test]
fn a_cpu_answers_alone_what_it_can() {
    let shared = |midr| Errata::of(midr).of_all().to_string();
    assert_eq!(shared(A55.midr), "repeat-tlbi");
    assert_eq!(shared(A57.midr), "none");
    assert_eq!(shared(AC04.midr), "repeat-tlbi no-ha");
    assert_eq!(shared(N2.midr), "repeat-tlbi");
}

#[test]
fn midr_is_taken_apart() {
    let midr = Midr::new(0x412f_d471);
    assert_eq!((midr.implementer, midr.part, midr.revision), (0x41, 0xd47, 0x21));
}

#[test]
fn the_banner_names_what_is_active() {
    assert_eq!(Errata::of(MAX.midr).to_string(), "none");
    let both = Errata::of(A57.midr).union(Errata::of(AC03.midr));
    assert_eq!(both.to_string(), "repeat-tlbi speculative-at rewalk-on-fault no-hd no-ha");
}

#[test]
fn lines_of_data_caches_are_as_small_as_ctr_says() {
    // DminLine (19:16): 4 is 16 words, 3 is 8.
    assert_eq!(IdRegisters { ctr: 0x8444_c004, ..A53 }.data_line_bytes(), 64);
    assert_eq!(IdRegisters { ctr: 0x8443_c004, ..A53 }.data_line_bytes(), 32);
}
