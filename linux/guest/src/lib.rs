//! What the payload and the suite that runs it agree on: programs, events, layouts.
//!
//! The payload is one flat image of 64-bit code, run at EL1 from any page-aligned IPA, with stage 1
//! off. The suite sets PC to its first byte, SP_EL1 to the end of a stack, `x0` to a number of
//! [`program`] and `x1` to `x7` to its arguments. When the program is done, the payload makes an
//! `HVC` with the immediate [`event::DONE`] and its results in `x1` to `x7`; run again, it takes
//! the registers as they then are for the next program. An exception that no program expects ends
//! in an `HVC` with [`event::EXCEPTION`], after which the next program starts likewise, on the stack
//! pointer of then.
//!
//! Under the KVM user interface nobody hears of an `HVC`: it is the hypervisor's own to answer. Built with the
//! feature `mmio`, the payload tells its events by storing the number to [`door::ADDRESS`] instead,
//! a doubleword that no slot covers; `x9` and `x10` are spoilt by that.
//!
//! A payload that keeps no state outside of registers and its stack can be run by several vCPUs at
//! once, from one image: so there are no statics, and the linker script makes sure of it.
#![no_std]
#![forbid(unsafe_code)]

/// Immediates of the payload's `HVC`s, or what it stores.
pub mod event {
    /// The program is done: results are in `x1` to `x7`.
    pub const DONE: u64 = 0x10;
    /// An exception was taken: `x0` vector (0 to 15), `x1` ESR_EL1, `x2` ELR_EL1, `x3` FAR_EL1, `x4`
    /// SPSR_EL1.
    pub const EXCEPTION: u64 = 0x11;
    /// A program in the midst of its work: run it again to go on.
    pub const REPORT: u64 = 0x12;
}

/// The second front door.
pub mod door {
    /// The IPA of the doubleword to which events are stored.
    pub const ADDRESS: u64 = 0x0a00_0000;
}

/// Numbers of programs, with arguments (from `x1` on) and results (from `x1` on).
pub mod program {
    /// Returns its arguments.
    pub const ECHO: u64 = 0;
    /// `(ipa) -> value`: reads a doubleword.
    pub const READ: u64 = 1;
    /// `(ipa, value)`: writes a doubleword.
    pub const WRITE: u64 = 2;
    /// `(ipa, page_count, stride_pages, kind, offset_bytes) -> touched`: touches one doubleword of
    /// every `stride_pages`-th page. `kind` is one of [`super::touch`].
    pub const TOUCH: u64 = 3;
    /// `(ipa, byte_count, seed)`: fills memory with [`super::pattern`].
    pub const FILL: u64 = 4;
    /// `(ipa, byte_count, seed) -> (wrong, address of the first)`: compares memory with
    /// [`super::pattern`], `wrong` is a number of doublewords.
    pub const CHECK: u64 = 5;
    /// `(ipa, page_count, stride_pages, kind, control)`: touches like TOUCH, again and again, without
    /// an exit. After each round adds 1 to the word [`super::control::ROUNDS`]; ends when
    /// [`super::control::STOP`] is not 0. Writes store the number of the round.
    pub const SPIN: u64 = 6;
    /// `(ipa, control)`: reads one doubleword again and again without an exit, and keeps count and value
    /// in [`super::control::ROUNDS`] and [`super::control::VALUE`].
    pub const WATCH: u64 = 7;
    /// `() -> (CNTVCT_EL0, CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTKCTL_EL1)`.
    pub const COUNTERS: u64 = 8;
    /// `(kind)`: waits, by WFI (0) or WFE (1).
    pub const WAIT: u64 = 9;
    /// `(table)`: turns on stage 1, caches included, with an identity map of 512 GiB in blocks, whose
    /// one table is at `table`.
    pub const STAGE1_ON: u64 = 10;
    /// Turns stage 1 off again.
    pub const STAGE1_OFF: u64 = 11;
    /// `(seed)`: fills the registers of EL1 and EL0 that have no effect while stage 1 is off.
    pub const REGISTERS_FILL: u64 = 12;
    /// `(seed) -> wrong`: compares them; a bit for each register that differs.
    pub const REGISTERS_CHECK: u64 = 13;
    /// `(seed)`: fills V0 to V31 and FPCR.
    pub const FP_FILL: u64 = 14;
    /// `(seed) -> wrong`: compares them; a bit for each register that differs, bit 32 for FPCR.
    pub const FP_CHECK: u64 = 15;
    /// `(ipa, access, value) -> value`: one load or store, see [`super::access`].
    pub const DEVICE: u64 = 16;
    /// `(space, first, count, results, code, data) -> executed`: see [`super::sweep`].
    pub const SWEEP: u64 = 17;
    /// `(instruction, value, code) -> (outcome, ESR_EL1, x0)`: executes one instruction with `value`
    /// in `x0`, from the page `code`. `outcome` as in [`super::sweep`].
    pub const EXECUTE: u64 = 19;
    /// `(seed) -> wrong`: fills x8 to x28, makes an `HVC` with REPORT, and compares: a bit a register.
    pub const GENERAL: u64 = 20;
    /// `(function, x1, x2, x3, smc) -> (x0 to x3)`: a call by `HVC #0`, or `SMC #0` where `smc` is not 0.
    pub const CALL: u64 = 21;
    /// `(ipa, page_count, versions, index, count, control)`: checks and writes pages again and again, without
    /// an exit, until [`super::control::STOP`]: see [`super::ledger`].
    pub const LEDGER: u64 = 22;
    /// `(ipa, count, stride_bytes, shown, control)`: reads `count` doublewords, `stride_bytes` from each to the
    /// next, again and again, without an exit, and stores what it saw to as many doublewords from `shown` on. Counts rounds as
    /// SPIN does; the last is a whole one that began when [`super::control::STOP`] was not 0.
    pub const MIRROR: u64 = 23;
    /// `(ipa, trace, count) -> wrong`: goes through pages as `count` doublewords from `trace` on say: see
    /// [`super::trace`].
    pub const STREAM: u64 = 24;
}

/// A stream of accesses: each entry is the number of a page, and says whether it is written.
///
/// The first doubleword of a page that was written has the page's number plus 1 in its upper half, and how often it was
/// written in its lower. The guest compares the number, and whoever knows the stream the count.
pub mod trace {
    /// The page is written.
    pub const WRITE: u64 = 1 << 63;

    /// Returns what a page holds before it was written for the first time, but for memory that is new.
    pub const fn stamp(page: u64) -> u64 {
        (page + 1) << 32
    }
}

/// Kinds of touches.
pub mod touch {
    /// Reads.
    pub const READ: u64 = 0;
    /// Writes.
    pub const WRITE: u64 = 1;
    /// Calls: the page has to hold [`RET`] there.
    pub const EXECUTE: u64 = 2;
    /// The instruction `ret`.
    pub const RET: u32 = 0xd65f_03c0;
}

/// Doublewords of a page through which suite and spinning payload talk.
pub mod control {
    /// Rounds done, written by the payload.
    pub const ROUNDS: usize = 0;
    /// Not 0: stop, written by the suite.
    pub const STOP: usize = 1;
    /// The value last seen, written by the payload.
    pub const VALUE: usize = 2;
    /// Doublewords that did not hold what the ledger says, counted by the payload.
    pub const WRONG: usize = 3;
    /// The address of the first of them.
    pub const WRONG_ADDRESS: usize = 4;
    /// What it held.
    pub const WRONG_VALUE: usize = 5;
    /// How many there are.
    pub const WORDS: usize = 6;
}

/// Pages with a version each, in a ledger that is never taken away.
///
/// Of `count` vCPUs, number `index` owns each page whose number is `index` modulo `count`. It goes through
/// them, a few neighbours for several rounds, checks all of each and writes some. `versions` has
/// one doubleword a page: how often the page was written as a whole.
pub mod ledger {
    /// Pages visited in a round.
    pub const VISITS: u64 = 16;
    /// Rounds for which a vCPU stays with the same pages.
    pub const SAME_ROUNDS: u64 = 8;

    /// Returns what a doubleword holds in a version of its page: 0 before the first.
    pub const fn content(address: u64, version: u64) -> u64 {
        if version == 0 { 0 } else { super::pattern(address, version) }
    }
}

/// Single loads and stores, for emulated devices: `log2(size) | flags`.
pub mod access {
    /// The bits for log2 of the size in bytes.
    pub const SIZE_MASK: u64 = 3;
    /// A load that extends the sign.
    pub const SIGNED: u64 = 1 << 2;
    /// A signed load into a 64-bit register.
    pub const WIDE: u64 = 1 << 3;
    /// A store.
    pub const STORE: u64 = 1 << 4;
}

/// The encoding sweep: every encoding of a space is executed, and its outcome noted in a byte.
///
/// System registers (op0 2 and 3) are read, then written with the complement of what was read, then
/// with what was read; those that can't be read, with all ones and then with zero. The low half of
/// the byte is the outcome of the read, the high half the worst outcome of the writes. System
/// instructions (op0 1) are executed with an address in `x0` (high half) and in their form with
/// a result (low half).
pub mod sweep {
    /// Instructions with op0 = 1: 16,384 of them.
    pub const SPACE_INSTRUCTIONS: u64 = 1;
    /// Registers with op0 = 2.
    pub const SPACE_DEBUG: u64 = 2;
    /// Registers with op0 = 3.
    pub const SPACE_REGISTERS: u64 = 3;
    /// Encodings of a space: op1, CRn, CRm, op2 from the top bit down.
    pub const COUNT: u64 = 1 << 14;

    /// It had no exception.
    pub const COMPLETED: u64 = 0;
    /// It was undefined (EC 0x00).
    pub const UNDEFINED: u64 = 1;
    /// It was trapped to EL1 as an access to FP or SIMD (EC 0x07).
    pub const FP_TRAP: u64 = 2;
    /// It was trapped to EL1 (EC 0x18).
    pub const TRAPPED: u64 = 3;
    /// It had another exception.
    pub const OTHER: u64 = 4;
    /// It was not executed.
    pub const SKIPPED: u64 = 15;

    /// Splits the index of an encoding into (op1, CRn, CRm, op2).
    pub const fn fields(index: u64) -> (u64, u64, u64, u64) {
        (index >> 11 & 7, index >> 7 & 15, index >> 3 & 15, index & 7)
    }
}

/// Returns what FILL stores at an address: a mix of address and seed that no other has.
pub const fn pattern(address: u64, seed: u64) -> u64 {
    scramble(address ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Scrambles a number; a bijection (the finalizer of splitmix64).
pub const fn scramble(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    #[test]
    fn indices_split_into_their_fields() {
        // CNTVCT_EL0 is op1 3, CRn 14, CRm 0, op2 2 (Arm ARM, D24.10).
        assert_eq!(super::sweep::fields(3 << 11 | 14 << 7 | 2), (3, 14, 0, 2));
        assert_eq!(super::sweep::fields((1 << 14) - 1), (7, 15, 15, 7));
    }

    #[test]
    fn patterns_differ_by_address_and_by_seed() {
        assert_ne!(super::pattern(0x1000, 1), super::pattern(0x1008, 1));
        assert_ne!(super::pattern(0x1000, 1), super::pattern(0x1000, 2));
    }
}
