//! Long random sequences of all operations, in every configuration of the table.
//!
//! `VERDIGRIS_STEPS` is the number of operations for each configuration, `VERDIGRIS_SEED` the seed of the first,
//! `VERDIGRIS_SECONDS` the time that each may take: one that hasn't done all of its operations by then has failed, so
//! that nobody counts on operations that never ran. Each prints what it did; a failure prints what it takes to repeat it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use verdigris_stage2::Stat;
use verdigris_stage2_model::settings::COUNT;
use verdigris_stage2_model::{Choices, Settings, World};

/// Operations between two looks at the clock.
const STRIDE: u64 = 1000;
/// From so many operations on, everything that is rare has happened.
const LONG: u64 = 100_000;
/// What each long run comes by, whatever its configuration.
const ALWAYS: [Stat; 18] = [
    Stat::FaultTranslation,
    Stat::FaultPermission,
    Stat::FaultSpurious,
    Stat::LeavesYoung,
    Stat::LeavesMapped,
    Stat::LeavesUnmapped,
    Stat::LeavesSet,
    Stat::LeavesProtected,
    Stat::LeavesDirty,
    Stat::BlocksDropped,
    Stat::BlocksSplit,
    Stat::BlocksCollapsed,
    Stat::TablesReclaimed,
    Stat::TlbiIpa,
    Stat::TlbiStage1,
    Stat::TlbiVmid,
    Stat::TlbiLocal,
    Stat::WritesLogged,
];

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let hexadecimal = text.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
    Some(hexadecimal.unwrap_or_else(|| text.parse()).expect("a number"))
}

fn run(configuration: u32) {
    let settings = Settings::numbered(configuration);
    let steps = number("VERDIGRIS_STEPS").unwrap_or(if cfg!(miri) { 30 } else { 1000 });
    let seed = number("VERDIGRIS_SEED").unwrap_or(0x5eed) + u64::from(configuration);
    let limit = number("VERDIGRIS_SECONDS").map(Duration::from_secs);
    let started = Instant::now();
    let mut world = World::new(settings, Choices::seeded(seed));
    let mut done = 0;
    let whole = || {
        while done < steps && limit.is_none_or(|limit| started.elapsed() < limit) {
            let stride = STRIDE.min(steps - done);
            (0..stride).for_each(|_| world.step());
            done += stride;
        }
        world.finish();
    };
    let result = catch_unwind(AssertUnwindSafe(whole));
    let seconds = started.elapsed().as_secs_f32();
    println!(
        "configuration {configuration}, seed {seed:#x}: {done} operations in {seconds:.1} s, {settings:?}"
    );
    assert!(result.is_ok(), "it failed after these operations:\n{}", world.journal());
    assert_eq!(done, steps, "the time was up: ask for fewer operations, or give it more");
    if steps >= LONG {
        check_coverage(&world, settings);
    }
}

/// Checks that a long run came by everything.
fn check_coverage(world: &World, settings: Settings) {
    let config = settings.config;
    let sometimes = [
        (Stat::FaultAccessFlag, !settings.access_flag),
        (Stat::FlushesSkipped, config.skip),
        (Stat::TlbiRange, config.tlb_range),
    ];
    let wanted = sometimes.into_iter().filter(|&(_, wanted)| wanted).map(|(stat, _)| stat);
    for stat in wanted.chain(ALWAYS) {
        assert_ne!(world.stat(stat), 0, "{stat:?} never happened");
    }
    assert!(config.skip || world.stat(Stat::FlushesSkipped) == 0, "left out against the setting");
}

macro_rules! configurations {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(#[test]
        fn $name() {
            run($number);
        })*

        #[test]
        fn every_configuration_is_run() {
            assert_eq!([$($number),*].into_iter().collect::<Vec<u32>>(), Vec::from_iter(0..COUNT));
        }
    };
}

configurations! {
    c00 = 0, c01 = 1, c02 = 2, c03 = 3, c04 = 4, c05 = 5, c06 = 6, c07 = 7,
    c08 = 8, c09 = 9, c10 = 10, c11 = 11, c12 = 12, c13 = 13, c14 = 14, c15 = 15,
    c16 = 16, c17 = 17, c18 = 18, c19 = 19, c20 = 20, c21 = 21, c22 = 22, c23 = 23,
    c24 = 24, c25 = 25, c26 = 26, c27 = 27, c28 = 28, c29 = 29, c30 = 30, c31 = 31,
}
