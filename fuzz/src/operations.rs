//! Sequences of operations on a VM, against the model.

use verdigris_stage2_model::settings::COUNT;
use verdigris_stage2_model::{Choices, Settings, World};

/// Operations that one input makes at most: what a failure is read from should be short.
const MOST: usize = 300;

/// Does what the bytes say on the engine and its model: the first chooses the configuration, the next eight what
/// happens meanwhile, the others operations and their arguments. Tells whether they said anything.
pub fn operations(bytes: &[u8]) -> bool {
    let Some((&first, rest)) = bytes.split_first() else {
        return false;
    };
    let settings = Settings::numbered(u32::from(first) % COUNT);
    let mut world = World::new(settings, Choices::scripted(rest));
    let mut count = 0;
    while count < MOST && !world.is_over() {
        world.step();
        count += 1;
    }
    world.finish();
    count != 0
}
