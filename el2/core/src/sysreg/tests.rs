//! Checks that the tables are sound as a whole, and spot-checks them against the Arm ARM.

use std::collections::HashSet;
use std::format;
use std::path::Path;
use std::string::ToString;
use std::vec::Vec;

use super::*;
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
