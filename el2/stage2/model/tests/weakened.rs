//! The model finds mistakes: an engine that makes one on purpose fails, with the message of the check that is
//! there for it.
//!
//! A test that can't fail proves nothing, and a model that is lenient in the wrong place finds nothing. Each line
//! of the table names the world where a mistake shows soonest, within a few dozen operations for most. That is an
//! accident of the model's choices; where they have changed, the search goes on in the next worlds. Mistakes that
//! show only where two CPUs meet between two instructions are loom's (`el2/stage2/tests/loom_*.rs`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use verdigris_stage2::sync::{Weakness, weaken};
use verdigris_stage2_model::settings::COUNT;
use verdigris_stage2_model::{Choices, Settings, World};

/// Operations in one world, and worlds until a mistake counts as missed.
const STEPS: u64 = 3000;
const WORLDS: u64 = if cfg!(miri) { 1 } else { 32 };

/// Makes a world in one of the configurations: those that follow each other lie far apart.
fn world(number: u64) -> World {
    let settings = Settings::numbered(((16 + number * 13) % u64::from(COUNT)) as u32);
    World::new(settings, Choices::seeded(number))
}

/// Runs worlds with a mistake until one fails; returns the operations that it took, and the message.
fn fail(weakness: Weakness, first: u64) -> Option<(u64, String)> {
    weaken(Some(weakness));
    let mut operations = 0;
    for number in first..first + WORLDS {
        let mut world = world(number);
        for _ in 0..STEPS {
            operations += 1;
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.step())) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                return Some((operations, text.expect("a message")));
            }
        }
    }
    None
}

fn expect(weakness: Weakness, first: u64, messages: &[&str]) {
    let found = std::thread::spawn(move || fail(weakness, first)).join().expect("it is caught");
    let (operations, text) = found.unwrap_or_else(|| panic!("{weakness:?} was never found"));
    println!("{weakness:?}: found after {operations} operations: {text}");
    assert!(messages.iter().any(|message| text.contains(message)), "{weakness:?}: {text}");
}

macro_rules! found {
    ($($name:ident: $weakness:ident, in $world:literal, $($message:literal)|+;)*) => {
        $(#[test]
        fn $name() {
            expect(Weakness::$weakness, $world, &[$($message),+]);
        })*
    };
}

found! {
    a_young_leaf_without_invalidation: YoungIsAbsent, in 65, "is held";
    an_old_leaf_that_nothing_proves_absent: OldIsAbsent, in 8, "still cached" | "is held";
    an_age_that_the_epoch_does_not_count: AgeUncounted, in 8, "still cached" | "is held";
    a_table_without_invalidation: UnlinkUnflushed, in 53, "is held" | "a walk cache holds";
    a_table_invalidated_as_leaves: UnlinkNamesLevel, in 128, "is held" | "a walk cache holds";
    combined_entries_that_stay: CombinedStay, in 53, "is held";
    a_repeated_invalidation_left_out: NoRepeat, in 53, "is held";
    a_stale_entry_after_relax: RelaxUnflushed, in 24, "Write of" | "Read of" | "Execute of";
    a_harvest_without_invalidation: HarvestUnflushed, in 70, "is held";
    a_set_without_invalidation: SetUnflushed, in 36, "is held";
    a_needless_invalidation: ProofIgnored, in 52, "needless";
    a_map_past_an_invalidation: MapUnasked, in 0, "past an invalidation";
    marks_that_go_with_another: HullGoesEarly, in 96, "past an invalidation" | "NoEntry";
    dirty_bits_that_are_lost: DirtyDropped, in 9, "dirty";
    a_split_that_forgets_ages: SplitForgets, in 134, "young" | "found" | " was Leaf";
    progress_that_was_not_made: InterruptIsDone, in 146, "not reported";
    a_leaf_reported_twice: ReportedTwice, in 48, "what is given back was taken" | "never there";
    a_table_freed_at_once: FreeAtOnce, in 127, "a table is given back that a CPU inside EL2 has found";
    a_fault_to_the_host_in_a_collapse: CollapseByInvalid, in 81, "went to the host";
}

#[test]
fn without_a_mistake_the_same_worlds_pass() {
    let steps = if cfg!(miri) { 20 } else { 300 };
    for number in [0, 8, 24, 36, 48, 53, 65, 70, 81, 96, 127, 134, 146] {
        let mut world = world(number);
        (0..steps).for_each(|_| world.step());
        world.finish();
    }
}
