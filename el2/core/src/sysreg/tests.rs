//! Checks that the tables are sound as a whole, and spot-checks them against the Arm ARM.

use std::collections::HashSet;
use std::format;
use std::path::Path;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::cpu::{Controls, Features, IdRegisters, Selection};
use crate::for_each_switched;
use crate::guest::Slot;

fn all_rows() -> impl Iterator<Item = &'static Register> {
    TABLES.into_iter().flatten()
}

fn all_encodings() -> impl Iterator<Item = Encoding> {
    (1..4_u8).flat_map(|op0| (0..1 << 14).map(move |rest: u16| (op0, rest))).map(|(op0, rest)| {
        let field = |shift: u16, mask: u16| (rest >> shift & mask) as u8;
        Encoding::new(op0, field(11, 7), field(7, 15), field(3, 15), field(0, 7))
    })
}

#[test]
fn no_encoding_is_in_two_rows() {
    for encoding in all_encodings() {
        let rows: Vec<_> = all_rows().filter(|row| row.covers(encoding)).collect();
        assert!(rows.len() < 2, "{encoding}: {} and {}", rows[0].name, rows[1].name);
    }
}

#[test]
fn rows_are_in_the_table_of_their_fate() {
    assert!(SWITCHED.iter().all(|row| matches!(row.fate, Fate::Switched(_))));
    assert!(TRAPPED.iter().all(|row| matches!(row.fate, Fate::Trapped(..))));
    assert!(INVISIBLE.iter().all(|row| matches!(row.fate, Fate::Invisible(_))));
    assert!(INSTRUCTIONS.iter().all(|row| row.encoding.op0() == 1));
    assert!(INVISIBLE.iter().all(|row| row.direction == Direction::ReadOnly));
}

#[test]
fn varying_bits_are_zero_in_the_first_encoding() {
    assert!(all_rows().all(|row| row.encoding.bits() & row.varies == 0));
}

#[test]
fn each_slot_that_a_guest_can_name_has_one_row() {
    let slots: Vec<_> = SWITCHED
        .iter()
        .filter_map(|row| match row.fate {
            Fate::Switched(Place::Slot(slot)) => Some(slot as usize),
            _ => None,
        })
        .collect();
    let unique: HashSet<_> = slots.iter().copied().collect();
    assert_eq!(slots.len(), unique.len());
    // SP_EL1 is the guest's own SP; the other two can be named at EL2 only.
    let hidden = [Slot::SpEl1, Slot::Cntvoff, Slot::Vsesr].map(|slot| slot as usize);
    for slot in Slot::ALL.iter().map(|&slot| slot as usize) {
        assert_ne!(unique.contains(&slot), hidden.contains(&slot), "slot {slot}");
    }
}

macro_rules! asm_encodings {
    ($( $group:ident $name:ident $asm:literal $encoding:tt = $reset:literal; )*) => {
        const ASM: &[(Slot, [u8; 5])] = &[ $( (Slot::$name, $encoding), )* ];
    };
}
for_each_switched!(asm_encodings);

#[test]
fn slots_and_rows_agree_on_encodings() {
    for (slot, [op0, op1, crn, crm, op2]) in ASM {
        let encoding = Encoding::new(*op0, *op1, *crn, *crm, *op2);
        if let Some(row) = lookup(encoding) {
            assert_eq!(row.fate, Fate::Switched(Place::Slot(*slot)), "{}", row.name);
        }
        if slot.asm().starts_with('S') && slot.asm().contains("_C") {
            assert_eq!(slot.asm(), encoding.to_string());
        }
    }
}

#[test]
fn well_known_registers() {
    let fate = |op0, op1, crn, crm, op2| lookup(Encoding::new(op0, op1, crn, crm, op2)).unwrap();
    assert_eq!(fate(3, 0, 0, 7, 1).name, "ID_AA64*_EL1 (CRm 4 to 7)");
    assert_eq!(fate(3, 0, 2, 0, 1).name, "TTBR1_EL1");
    assert_eq!(fate(3, 3, 14, 15, 7).name, "PMEVTYPER<n>_EL0, PMCCFILTR_EL0");
    assert_eq!(fate(2, 0, 0, 15, 7).name, "DBGWCR<n>_EL1");
    assert_eq!(fate(3, 3, 15, 2, 1).name, "implementation-defined (CRn 15)");
    assert_eq!(fate(1, 0, 7, 14, 2).name, "DC CISW");
    // VTTBR_EL2, and a hole between CCSIDR2_EL1 and GMID_EL1.
    assert!(lookup(Encoding::new(3, 4, 2, 1, 0)).is_none());
    assert!(lookup(Encoding::new(3, 1, 0, 0, 3)).is_none());
}

#[test]
fn expectations() {
    let see = |op0, op1, crn, crm, op2, read| expect(Encoding::new(op0, op1, crn, crm, op2), read);
    assert_eq!(see(3, 0, 1, 0, 0, false), Expect::Works);
    assert_eq!(see(3, 0, 0, 0, 0, false), Expect::Undefined);
    assert_eq!(see(3, 0, 2, 1, 0, true), Expect::WorksIf("FEAT_PAuth"));
    assert_eq!(see(3, 0, 12, 12, 5, true), Expect::Either);
    assert_eq!(see(3, 0, 12, 12, 0, true), Expect::Undefined);
    assert_eq!(see(3, 0, 0, 4, 0, true), Expect::Works);
    assert_eq!(see(3, 0, 0, 4, 0, false), Expect::Undefined);
    assert_eq!(see(3, 4, 1, 1, 0, true), Expect::Undefined);
}

/// Compares the document with the tables; the environment variable makes it write instead.
#[test]
fn the_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/registers.md");
    let text = format!("{Tables}");
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let document = std::fs::read_to_string(&path).unwrap();
    assert!(document == text, "run this test with UPDATE_DOCS=1 to renew docs/registers.md");
}

/// A part on which every field of every ID register is 1 or more, so that every control exists.
fn everything() -> IdRegisters {
    const ONES: u64 = 0x1111_1111_1111_1111;
    IdRegisters {
        pfr0: ONES,
        pfr1: ONES | 0x300,
        pfr2: ONES,
        dfr0: ONES | 0xb,
        dfr1: ONES,
        dfr2: ONES,
        isar0: ONES,
        isar1: ONES,
        isar2: ONES,
        isar3: ONES,
        mmfr0: 0x1211_1211_1111_1115,
        mmfr1: ONES,
        mmfr2: ONES,
        mmfr3: ONES,
        mmfr4: ONES,
        mpamidr: 1 << 17 | 1 << 56,
        ..IdRegisters::default()
    }
}

/// Reads an EL2 register of the values with which a guest runs; of a pair for reads and writes, both.
fn guest_controls(register: &str, controls: &Controls) -> Option<Vec<u64>> {
    let fine = controls.fine?;
    let fine2 = controls.fine2?;
    Some(match register {
        "HCR_EL2" => vec![controls.hcr],
        "HCRX_EL2" => vec![controls.hcrx?],
        "CPTR_EL2" => vec![controls.cptr],
        "MDCR_EL2" => vec![controls.mdcr],
        "CNTHCTL_EL2" => vec![controls.cnthctl],
        "ICC_SRE_EL2" => vec![controls.icc_sre?],
        "ICH_HCR_EL2" => vec![controls.ich_hcr?],
        "MPAM2_EL2" => vec![controls.mpam2?],
        "MPAMHCR_EL2" => vec![controls.mpamhcr?],
        "MPAMBW2_EL2" => vec![controls.mpambw2?],
        "HFGRTR_EL2" => vec![fine.hfgrtr, fine.hfgwtr],
        "HFGITR_EL2" => vec![fine.hfgitr],
        "HDFGRTR_EL2" => vec![fine.hdfgrtr, fine.hdfgwtr],
        "HFGRTR2_EL2" => vec![fine2.hfgrtr2, fine2.hfgwtr2],
        "HDFGRTR2_EL2" => vec![fine2.hdfgrtr2, fine2.hdfgwtr2],
        _ => return None,
    })
}

/// The tables promise traps; what the firmware writes to its control registers has to keep the promise.
#[test]
fn a_guests_controls_make_every_row_trap() {
    let id = everything();
    let selection = Selection::new(&id, Features::ALL).unwrap();
    let controls = Controls::guest(&id, &selection);
    let rows = all_rows().filter_map(|row| match row.fate {
        Fate::Trapped(control, _) => Some((row.name, control)),
        _ => None,
    });
    for (name, control) in rows {
        let values = guest_controls(control.register, &controls).expect(control.register);
        for value in values {
            let set = value >> control.bit & 1 == 1;
            assert_eq!(set, control.set, "{name}: {}.{}", control.register, control.field);
        }
    }
    // Physical interrupts are masked from ISR_EL1, and VDISR_EL2 stands for DISR_EL1: FMO, IMO, AMO.
    assert_eq!(controls.hcr >> 3 & 0b111, 0b111);
    // Local TLB invalidation is broadcast (FB); stage 2 is on (VM).
    assert_eq!(controls.hcr & (1 << 9 | 1), 1 << 9 | 1);
}
