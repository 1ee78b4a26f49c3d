use super::*;
use crate::cpu::vtcr::{self, Geometry};
use crate::cpu::{Features, IdRegisters, Selection};

/// 40 bits from level 1, by two concatenated tables.
const FORTY_BITS: Geometry = Geometry { t0sz: 24, sl0: 1 };

fn values(id: &IdRegisters, mask: Features) -> (u64, u64) {
    let selection = Selection::new(id, mask).unwrap();
    let cpu = selection.admit(id).unwrap();
    (vtcr::host(FORTY_BITS, &selection), vtcr::guest(FORTY_BITS, &selection, &cpu))
}

/// What all values share: bit 31, SH0 = 3 at 13:12, ORGN0 = 1 at 11:10, IRGN0 = 1 at 9:8, SL0 = 1 at
/// 7:6, T0SZ = 24.
const COMMON: u64 = 0x8000_3558;

#[test]
fn the_value_follows_the_part() {
    let (ha, hd) = (1 << 21, 1 << 22);
    let vs = 1 << 19;
    for (name, id, ps, vs, updates) in [
        ("Cortex-A53", A53, 2, 0, 0),
        ("Cortex-A57", A57, 4, 0, 0),
        ("Cortex-A55", A55, 2, vs, ha),
        ("Cortex-A510 r0p2: dirty state is broken", A510_R0P2, 2, vs, ha),
        ("Cortex-A510 r1p3", A510_R1P3, 2, vs, ha | hd),
        ("Neoverse N1", N1, 5, vs, ha | hd),
        ("AmpereOne", AC03, 5, vs, 0),
        ("Apple M1", M1, 1, vs, ha | hd),
        ("QEMU max: 52 bits are capped at 48", MAX, 5, vs, ha | hd),
    ] {
        let host = COMMON | ps << 16 | vs;
        assert_eq!(values(&id, Features::ALL), (host, host | updates), "{name}");
    }
}

#[test]
fn the_mask_shows() {
    let mask = Features { hardware_access_flag: false, vmid_bits: 8, ..Features::ALL };
    assert_eq!(values(&MAX, mask), (COMMON | 5 << 16, COMMON | 5 << 16));
    let no_dirty = Features { hardware_dirty: false, ..Features::ALL };
    let host = COMMON | 5 << 16 | 1 << 19;
    assert_eq!(values(&MAX, no_dirty), (host, host | 1 << 21));
    // A VMID space that was shrunk for a test is one of 8 bits for the CPU.
    let few_vmids = Features { vmid_bits: 3, hardware_access_flag: false, ..Features::ALL };
    assert_eq!(values(&MAX, few_vmids), (COMMON | 5 << 16, COMMON | 5 << 16));
}

#[test]
fn every_cpu_has_its_own_dirty_bit() {
    let selection = Selection::new(&N1, Features::ALL).unwrap();
    // ID_AA64MMFR1_EL1.HAFDBS = 1: access flags alone.
    let less = IdRegisters { mmfr1: N1.mmfr1 & !0xf | 1, ..N1 };
    let cpu = selection.admit(&less).unwrap();
    assert_eq!(vtcr::guest(FORTY_BITS, &selection, &cpu), COMMON | 5 << 16 | 1 << 19 | 1 << 21);
}

#[test]
fn every_cpu_has_its_own_access_flag_bit_and_the_boot_cpus_size() {
    let selection = Selection::new(&A55, Features::ALL).unwrap();
    let wide_without = IdRegisters { mmfr0: 0x0010_1125, mmfr1: 0x1021_2120, ..A55 };
    let cpu = selection.admit(&wide_without).unwrap();
    assert_eq!(vtcr::guest(FORTY_BITS, &selection, &cpu), COMMON | 2 << 16 | 1 << 19);
}

#[test]
fn geometry_lands_in_its_fields() {
    let selection = Selection::new(&N1, Features::ALL).unwrap();
    let geometry = |t0sz, sl0| vtcr::host(Geometry { t0sz, sl0 }, &selection) & 0xff;
    assert_eq!(geometry(16, 2), 0x90);
    assert_eq!(geometry(25, 1), 0x59);
    assert_eq!(geometry(32, 0), 0x20);
}
