use super::*;
use crate::cpu::{Features, IdRegisters, Mismatch, Selection};
use std::string::ToString;

fn selection(id: &IdRegisters, mask: Features) -> Selection {
    Selection::new(id, mask).expect("this part can run")
}

#[test]
fn every_part_is_found_with_what_its_manual_lists() {
    for (name, id, found, pa_bits) in [
        ("Cortex-A53", A53, "none", 40),
        ("Cortex-A57", A57, "none", 44),
        ("Cortex-A72", A72, "none", 44),
        ("Cortex-A55", A55, "ha hd vmid=16", 40),
        ("Cortex-A76", A76, "ha hd vmid=16", 40),
        ("Neoverse N1", N1, "ha hd vmid=16", 48),
        ("Neoverse V1", V1, "ha hd fwb vmid=16 bbm=1 bbm=2", 48),
        ("Cortex-A710", A710, "ha hd tlbirange ttl fwb vmid=16 bbm=1 bbm=2", 40),
        ("Neoverse N2", N2, "ha hd tlbirange ttl fwb vmid=16 bbm=1 bbm=2", 48),
        ("Neoverse V3", V3, "ha hd tlbirange ttl fwb vmid=16 bbm=1 bbm=2", 48),
        ("QEMU max", MAX, "ha hd tlbirange ttl fwb vmid=16 bbm=1 bbm=2", 48),
    ] {
        assert_eq!(Features::found(&id).to_string(), found, "{name}");
        assert_eq!(id.pa_bits(), pa_bits, "{name}");
    }
}

#[test]
fn every_value_of_hafdbs_is_read_as_a_number() {
    for (hafdbs, expected) in [(0, (false, false)), (1, (true, false)), (2, (true, true))]
        .into_iter()
        .chain([(3, (true, true)), (4, (true, true))])
    {
        let id = IdRegisters { mmfr1: 0x1021_2120 | hafdbs, ..MAX };
        let found = Features::found(&id);
        assert_eq!((found.hardware_access_flag, found.hardware_dirty), expected, "{hafdbs}");
        let cpu = selection(&id, Features::ALL).admit(&id).unwrap();
        assert_eq!((cpu.hardware_access_flag, cpu.hardware_dirty), expected, "{hafdbs}");
    }
}

#[test]
fn errata_switch_hardware_updates_off() {
    for (id, access_flag, dirty) in [
        (N1, true, true),
        (A55, true, false),
        (A510_R0P2, true, false),
        (A510_R1P3, true, true),
        (AC03, false, false),
        (AC04, false, false),
    ] {
        let cpu = selection(&id, Features::ALL).admit(&id).unwrap();
        assert_eq!(cpu.hardware_access_flag, access_flag, "{:#x}", id.midr);
        assert_eq!(cpu.hardware_dirty, dirty, "{:#x}", id.midr);
    }
}

#[test]
fn a_mask_takes_away_and_never_gives() {
    let mask =
        Features { hardware_access_flag: false, vmid_bits: 8, bbm_level: 1, ..Features::ALL };
    let masked = selection(&MAX, mask);
    assert_eq!(masked.used.to_string(), "tlbirange ttl fwb bbm=1");
    assert_eq!(masked.found.beyond(masked.used).to_string(), "ha hd vmid=16 bbm=2");
    assert!(!masked.admit(&MAX).unwrap().hardware_access_flag);
    assert_eq!(selection(&A57, Features::ALL).used.to_string(), "none");
    assert!(selection(&A57, mask).found.beyond(mask).is_empty());
}

#[test]
fn access_flags_are_gated_on_each_cpu() {
    // A cluster of Cortex-A55 and another of something older with VMIDs as wide.
    let older = IdRegisters { mmfr1: A55.mmfr1 & !0xf, ..A55 };
    for boot in [A55, older] {
        let chosen = selection(&boot, Features::ALL);
        assert!(chosen.admit(&A55).unwrap().hardware_access_flag);
        assert!(!chosen.admit(&older).unwrap().hardware_access_flag);
    }
}

#[test]
fn a_cpu_with_less_is_refused_with_the_reason() {
    let chosen = selection(&MAX, Features::ALL);
    for (reason, id) in [
        (Mismatch::NarrowAddresses, IdRegisters { mmfr0: MAX.mmfr0 & !0xf | 4, ..MAX }),
        (Mismatch::NarrowVmids, IdRegisters { mmfr1: MAX.mmfr1 & !0xf0, ..MAX }),
        (Mismatch::NoForcedWriteBack, IdRegisters { mmfr2: MAX.mmfr2 & !(0xf << 40), ..MAX }),
        (Mismatch::NoTlbRange, IdRegisters { isar0: MAX.isar0 & !(0xf << 56) | 1 << 56, ..MAX }),
        (Mismatch::NoTtl, IdRegisters { mmfr2: MAX.mmfr2 & !(0xf << 48), ..MAX }),
        (Mismatch::LowerBbm, IdRegisters { mmfr2: MAX.mmfr2 & !(0xf << 52) | 1 << 52, ..MAX }),
        (Mismatch::NoSmallPages, IdRegisters { mmfr0: MAX.mmfr0 & !(0xf << 40) | 1 << 40, ..MAX }),
        (Mismatch::NoEl2, IdRegisters { pfr0: MAX.pfr0 & !0xf00, ..MAX }),
        (Mismatch::OnlyE2h, IdRegisters { mmfr4: 0xf << 24, ..MAX }),
    ] {
        assert_eq!(chosen.admit(&id), Err(reason));
        assert!(!reason.to_string().is_empty());
    }
    assert!(selection(&A57, Features::ALL).admit(&MAX).is_ok());
}

#[test]
fn what_was_masked_is_not_asked_of_others() {
    let mask = Features {
        tlb_range: false,
        ttl: false,
        forced_write_back: false,
        vmid_bits: 8,
        bbm_level: 0,
        ..Features::ALL
    };
    let less = IdRegisters { mmfr0: MAX.mmfr0, ..A57 };
    assert!(selection(&MAX, mask).admit(&less).is_ok());
}

#[test]
fn small_pages_of_stage_2_may_follow_stage_1() {
    let stage1_only = IdRegisters { mmfr0: 0x0000_0000_0000_1124, ..A57 };
    assert!(Selection::new(&stage1_only, Features::ALL).is_ok());
    let neither = IdRegisters { mmfr0: 0x0000_0000_f000_1124, ..A57 };
    assert_eq!(Selection::new(&neither, Features::ALL), Err(Mismatch::NoSmallPages));
}

#[test]
fn feature_bits_follow_the_interface() {
    let flags = |id: &IdRegisters| {
        let chosen = selection(id, Features::ALL);
        chosen.feature_flags(&chosen.admit(id).unwrap())
    };
    assert_eq!(flags(&MAX), 0b11_1001_1111);
    assert_eq!(flags(&N1), 0b10_1011_0001);
    assert_eq!(flags(&A57), 0b10_0000_0000);
    // Neither access flags nor dirty state nor the epoch, and blocks change by a break.
    assert_eq!(flags(&AC03), 0b00_0011_1110);
}

#[test]
fn dirty_state_is_told_where_boot_cpu_and_this_cpu_have_it() {
    let less = IdRegisters { mmfr1: N1.mmfr1 & !0xf | 1, ..N1 };
    for (boot, this, told) in [(N1, N1, true), (N1, less, false), (less, N1, false)] {
        let chosen = selection(&boot, Features::ALL);
        let flags = chosen.feature_flags(&chosen.admit(&this).unwrap());
        assert_eq!(flags & 1 << 7 != 0, told);
    }
}

#[test]
fn the_epoch_skips_unless_masked_or_entries_change_after_their_end() {
    let skips = |id: &IdRegisters, mask| selection(id, mask).used.flush_epoch;
    assert!(skips(&MAX, Features::ALL) && skips(&A57, Features::ALL));
    assert!(!skips(&AC03, Features::ALL) && !skips(&AC04, Features::ALL));
    assert!(!skips(&MAX, Features { flush_epoch: false, ..Features::ALL }));
    // What can't skip is told in the banner.
    let masked = selection(&AC03, Features::ALL);
    assert_eq!(masked.found.beyond(masked.used).to_string(), "ha hd bbm=2 epoch");
}

#[test]
fn errata_of_every_cpu_count() {
    let chosen = selection(&A53, Features::ALL);
    let other = chosen.admit(&IdRegisters { midr: N1.midr, ..A53 }).unwrap();
    assert!(!chosen.errata.repeat_tlbi && chosen.with_errata(other.errata).errata.repeat_tlbi);
}

#[test]
fn blocks_change_without_a_break_only_where_no_abort_can_follow() {
    // MIDR_EL1 spelled out: implementer, variant, part, revision.
    for (name, midr, level) in [
        ("QEMU max", 0x000f_0510, 2),
        ("software, no part", 0x000f_0500, 1),
        ("Cortex-X4 r0p2", 0x410f_d822, 1),
        ("Cortex-X4 r0p3", 0x410f_d823, 2),
        ("Cortex-X4 r1p0", 0x411f_d820, 2),
        ("Neoverse V3 r0p1", 0x410f_d841, 1),
        ("Neoverse V3 r0p2", 0x410f_d842, 2),
        ("Neoverse V3AE r0p1", 0x410f_d831, 1),
        ("Neoverse V3AE r0p2", 0x410f_d832, 2),
        ("Olympus", 0x4e0f_0100, 2),
        ("Neoverse N2", N2.midr, 1),
        ("AmpereOne AC03", AC03.midr, 1),
        ("somebody else's 0xd82", 0x420f_d823, 1),
    ] {
        let id = IdRegisters { midr, ..MAX };
        assert_eq!(selection(&id, Features::ALL).used.bbm_level, level, "{name}");
        let less = IdRegisters { mmfr2: MAX.mmfr2 & !(0xf << 52), ..id };
        assert_eq!(
            selection(&less, Features::ALL).used.bbm_level,
            0,
            "{name}: not without the field"
        );
    }
}

#[test]
fn a_cpu_that_may_abort_does_not_join_those_that_do_not() {
    let n2 = IdRegisters { midr: N2.midr, ..MAX };
    assert_eq!(selection(&MAX, Features::ALL).admit(&n2), Err(Mismatch::LowerBbm));
    let mask = Features { bbm_level: 1, ..Features::ALL };
    assert!(selection(&MAX, mask).admit(&n2).is_ok());
    assert!(selection(&n2, Features::ALL).admit(&MAX).is_ok());
}
