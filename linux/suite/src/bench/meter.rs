//! The instruction counter of EL2.

use verdigris_abi::{STATS_PER_CALL, Stat, call};

use crate::raw::raw;

/// Reads what EL2 has executed on this CPU, and what it takes to read that.
pub struct Meter {
    cost: u64,
}

impl Meter {
    /// Finds the counter, if the firmware keeps one and it counts.
    pub fn new() -> Option<Self> {
        let costs = (0..16).map(|_| {
            let before = read();
            read() - before
        });
        let cost = costs.min().expect("more than none");
        (cost > 0).then_some(Self { cost })
    }

    /// Counts an action.
    pub fn count(&self, action: impl FnOnce()) -> u64 {
        let before = read();
        action();
        (read() - before).saturating_sub(self.cost)
    }

    /// Counts an action, prepared anew each time: the least of several.
    pub fn least(&self, times: u32, mut prepare: impl FnMut(), mut action: impl FnMut()) -> u64 {
        let counts = (0..times).map(|_| {
            prepare();
            self.count(&mut action)
        });
        counts.min().expect("more than none")
    }
}

fn read() -> u64 {
    let index = Stat::El2Instructions as u64;
    let (first, offset) = (index - index % STATS_PER_CALL, index % STATS_PER_CALL);
    raw().call(call::STATISTICS, &[0, first]).0[2 + offset as usize]
}
