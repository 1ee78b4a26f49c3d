use super::*;
use crate::cpu::{Errata, Midr};
use std::string::ToString;

const REPEAT: u8 = 1 << 0;
const AT: u8 = 1 << 1;
const REWALK: u8 = 1 << 2;
const NO_HD: u8 = 1 << 3;
const NO_HA: u8 = 1 << 4;

fn bits(errata: Errata) -> u8 {
    [
        (errata.repeat_tlbi, REPEAT),
        (errata.speculative_at, AT),
        (errata.rewalk_on_fault, REWALK),
        (errata.no_hardware_dirty, NO_HD),
        (errata.no_hardware_access_flag, NO_HA),
    ]
    .into_iter()
    .filter(|(active, _)| *active)
    .fold(0, |bits, (_, bit)| bits | bit)
}

#[test]
fn every_part_has_the_errata_of_its_notices() {
    for (name, midr, expected) in [
        ("Cortex-A53", A53.midr, 0),
        ("Cortex-A55 r2p0", A55.midr, REPEAT_A55 | AT | NO_HD),
        ("Cortex-A57 r1p0", A57.midr, AT | REWALK),
        ("Cortex-A72", A72.midr, AT),
        ("Cortex-A76 r4p1", A76.midr, REPEAT),
        ("Cortex-A510 r0p2", A510_R0P2.midr, REPEAT | NO_HD),
        ("Cortex-A510 r1p3", A510_R1P3.midr, 0),
        ("Cortex-A710", A710.midr, REPEAT),
        ("Cortex-A720", A720.midr, 0),
        ("Cortex-X2", X2.midr, REPEAT),
        ("Cortex-X3", X3.midr, REPEAT),
        ("Cortex-X925", X925.midr, REPEAT),
        ("Neoverse N1", N1.midr, REPEAT),
        ("Neoverse N2", N2.midr, REPEAT),
        ("Neoverse V1", V1.midr, REPEAT),
        ("Neoverse V2", V2.midr, REPEAT),
        ("Neoverse V3", V3.midr, REPEAT),
        ("AmpereOne AC03", AC03.midr, REPEAT | NO_HD | NO_HA),
        ("AmpereOne AC04", AC04.midr, REPEAT | NO_HD | NO_HA),
        ("Apple M1", M1.midr, REPEAT),
        ("NVIDIA Olympus", 0x4e0f_0100, REPEAT),
        ("Azure Cobalt 100", 0x6d0f_d490, REPEAT),
        ("a part that nobody has seen", 0x410f_fff0, REPEAT),
        ("QEMU max", MAX.midr, 0),
        ("another emulator", 0x000f_0520, REPEAT),
    ] {
        assert_eq!(bits(Errata::of(midr)), expected, "{name}");
    }
}

/// 2441007 affects every revision.
const REPEAT_A55: u8 = REPEAT;

#[test]
fn ranges_of_revisions_end_where_the_notices_say() {
    let at = |midr| Errata::of(midr).speculative_at;
    // Cortex-A76 1165522 and Cortex-A55 1530923: up to r2p0.
    assert!(at(0x412f_d0b0) && !at(0x412f_d0b1) && !at(0x413f_d0b0));
    assert!(at(0x410f_d0b3) && at(0x412f_d050) && !at(0x412f_d051));
    // Cortex-A57 and Cortex-A72: all.
    assert!(at(0x41ff_d07f) && at(0x41ff_d08f));
    // Cortex-A510: 2051678 up to r0p2, 2441009 up to r1p1.
    let of = |midr| bits(Errata::of(midr));
    assert_eq!(of(0x410f_d463), REPEAT);
    assert_eq!(of(0x411f_d461), REPEAT);
    assert_eq!(of(0x411f_d462), 0);
}

#[test]
fn midr_is_taken_apart() {
    let midr = Midr::new(0x412f_d471);
    assert_eq!((midr.implementer, midr.part, midr.revision), (0x41, 0xd47, 0x21));
}

#[test]
fn the_banner_names_what_is_active() {
    assert_eq!(Errata::of(A53.midr).to_string(), "none");
    assert_eq!(Errata::of(A57.midr).to_string(), "speculative-at rewalk-on-fault");
    let both = Errata::of(A57.midr).union(Errata::of(AC03.midr));
    assert_eq!(both.to_string(), "repeat-tlbi speculative-at rewalk-on-fault no-hd no-ha");
}
