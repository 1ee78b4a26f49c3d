//! Long random sequences of all operations, in every configuration of the table.
//!
//! `VERDIGRIS_STEPS` is the number of operations for each configuration, `VERDIGRIS_SEED` the seed of the first.
//! A failure prints what it takes to repeat it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use verdigris_stage2_model::settings::COUNT;
use verdigris_stage2_model::{Choices, Settings, World};

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let hexadecimal = text.strip_prefix("0x").map(|digits| u64::from_str_radix(digits, 16));
    Some(hexadecimal.unwrap_or_else(|| text.parse()).expect("a number"))
}

fn run(configuration: u32) {
    let settings = Settings::numbered(configuration);
    let steps = number("VERDIGRIS_STEPS").unwrap_or(if cfg!(miri) { 30 } else { 1000 });
    let seed = number("VERDIGRIS_SEED").unwrap_or(0x5eed) + u64::from(configuration);
    let mut world = World::new(settings, Choices::seeded(seed));
    let whole = || {
        (0..steps).for_each(|_| world.step());
        world.finish();
    };
    if catch_unwind(AssertUnwindSafe(whole)).is_err() {
        let journal = world.journal();
        panic!("configuration {configuration}, seed {seed:#x}:\n{journal}{settings:?}");
    }
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
