use super::*;
use crate::cpu::{Controls, Features, Fixed, Group, IdRegisters, Selection};

fn without(group: Group) -> IdRegisters {
    let mut id = EVERYTHING;
    assert!(group.is_present(&id), "{group:?}");
    group.hide(&mut id);
    id
}

#[test]
fn what_is_hidden_is_gone_and_nothing_else_is() {
    for group in Group::ALL {
        let id = without(group);
        assert!(!group.is_present(&id), "{group:?}");
        for other in Group::ALL.into_iter().filter(|&other| other != group) {
            // FEAT_FGT2 comes with FEAT_FGT, limits of bandwidth with partitions.
            let follows = [(Group::FineTraps, Group::FineTraps2), (Group::Mpam, Group::Bandwidth)]
                .contains(&(group, other));
            assert_eq!(other.is_present(&id), !follows, "{group:?} hides {other:?}");
        }
        let mut again = id;
        group.hide(&mut again);
        assert_eq!(again, id, "{group:?}");
    }
}

/// A register that EL3 keeps must not be written: the access would stop the machine, or EL2.
#[test]
fn nothing_that_is_hidden_is_written() {
    let made = |group| {
        let id = without(group);
        let selection = Selection::new(&id, Features::ALL).unwrap();
        (Controls::host(&id, &selection), Controls::guest(&id, &selection), Fixed::new(&id))
    };
    for group in Group::ALL {
        let (host, guest, fixed) = made(group);
        let written = match group {
            Group::GicRegisters => {
                [host.icc_sre.is_some(), host.ich_hcr.is_some(), guest.ich_hcr.is_some()]
            }
            Group::FineTraps => [host.fine.is_some(), guest.fine.is_some(), host.fine2.is_some()],
            Group::FineTraps2 => [host.fine2.is_some(), guest.fine2.is_some(), false],
            Group::Hcrx => [host.hcrx.is_some(), guest.hcrx.is_some(), false],
            Group::Tcr2 => [fixed.tcr2.is_some(), false, false],
            Group::Sctlr2 => [fixed.sctlr2.is_some(), false, false],
            Group::Gcs => [fixed.gcscr.is_some(), false, false],
            Group::Sve => [fixed.zcr.is_some(), false, false],
            Group::Sme => [fixed.smcr.is_some(), false, false],
            Group::Mpam => [host.mpam2.is_some(), guest.mpam2.is_some(), host.mpamhcr.is_some()],
            Group::Bandwidth => [host.mpambw2.is_some(), guest.mpambw2.is_some(), false],
            Group::Gicv5 => [host.gicv5.is_some(), guest.gicv5.is_some(), false],
            Group::Branches => [fixed.brbcr.is_some(), false, false],
            Group::TraceFilter => [fixed.trfcr.is_some(), false, false],
        };
        assert_eq!(written, [false; 3], "{group:?}");
    }
}

#[test]
fn each_group_names_the_bit_and_the_option() {
    for group in Group::ALL {
        let key = group.key();
        assert!(key.contains("_EL3.") && key.contains("(TF-A: "), "{key}");
    }
}
