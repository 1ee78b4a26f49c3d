//! Choices: what a random sequence does next, from a seed or from the bytes of a fuzzer.
//!
//! The same seed, or the same bytes, make the same choices: that is all it takes to repeat a failure.

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Choices {
    state: u64,
    script: Option<Script>,
}

/// Bytes that decide, as long as they last.
#[derive(Clone, Debug)]
struct Script {
    bytes: Vec<u8>,
    next: usize,
}

impl Choices {
    /// Makes choices without end from a seed.
    pub const fn seeded(seed: u64) -> Self {
        Self { state: mix(seed), script: None }
    }

    /// Makes choices from bytes; once they are used up, [`Self::is_over`] says so.
    pub fn scripted(bytes: &[u8]) -> Self {
        Self { state: 1, script: Some(Script { bytes: bytes.to_vec(), next: 0 }) }
    }

    /// Makes another source, whose choices are independent of the ones that this one makes later.
    pub fn fork(&mut self) -> Self {
        Self::seeded(self.next())
    }

    /// Tells whether a script is used up. What comes then is always the first possibility.
    pub fn is_over(&self) -> bool {
        self.script.as_ref().is_some_and(|script| script.next >= script.bytes.len())
    }

    /// Chooses a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound != 0 && bound < 1 << 32);
        match &mut self.script {
            // The upper half of a product is uniform enough, and has no division.
            None => ((self.next() >> 32) * bound) >> 32,
            Some(script) => script.number(bound) % bound,
        }
    }

    /// Says yes once in `count` times.
    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Chooses one of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Steps the generator: splitmix64.
    fn next(&mut self) -> u64 {
        match &mut self.script {
            Some(script) => script.number(u64::MAX),
            None => {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(self.state)
            }
        }
    }
}

impl Script {
    /// Takes as many bytes as a number below `bound` needs.
    fn number(&mut self, bound: u64) -> u64 {
        let count = (64 - (bound - 1).leading_zeros()).div_ceil(8) as usize;
        let rest = &self.bytes[self.next.min(self.bytes.len())..];
        let number = rest.iter().take(count).fold(0, |number, &byte| number << 8 | u64::from(byte));
        self.next += count;
        number
    }
}

const fn mix(state: u64) -> u64 {
    let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
