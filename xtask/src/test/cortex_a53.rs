//! Looks for the two sequences of instructions that a Cortex-A53 up to r0p4 gets wrong.
//!
//! The compiler breaks up the one (`fix-cortex-a53-835769`, in `build/firmware.rs`) and the linker the other
//! (`--fix-cortex-a53-843419`, in the firmware's `build.rs`); neither sees what stands in assembly. So the image is
//! read. Descriptions: Cortex-A53 MPCore Software Developers Errata Notice, 835769 and 843419. Masks are from the
//! encoding tables of the Arm ARM (DDI 0487, chapter C4).

use anyhow::{Result, ensure};

use super::flow::Instruction;

/// Checks all instructions of an image, in the order of their addresses.
pub fn check(code: &[Instruction]) -> Result<()> {
    for (erratum, find) in [
        ("835769", find_accumulate as fn(&[Instruction]) -> Vec<u64>),
        ("843419", find_page_addresses),
    ] {
        let found = find(code);
        let list: Vec<_> = found.iter().take(10).map(|at| format!("{at:#x}")).collect();
        ensure!(found.is_empty(), "{erratum}: {} places: {}", found.len(), list.join(", "));
    }
    Ok(())
}

/// Finds a load, store or prefetch with a 64-bit multiply-accumulate behind it, which may get a wrong sum.
fn find_accumulate(code: &[Instruction]) -> Vec<u64> {
    let pairs = code.windows(2).filter(|pair| pair[0].0 + 4 == pair[1].0);
    let wrong = pairs.filter(|pair| is_memory(pair[0].1) && accumulates(pair[1].1));
    wrong.map(|pair| pair[1].0).collect()
}

/// Finds an ADRP in one of the last two words of a page, a load or store behind it, and one or two instructions
/// later a load or store on the register that ADRP wrote: that may use a wrong address.
fn find_page_addresses(code: &[Instruction]) -> Vec<u64> {
    let starts = code.windows(3).enumerate().filter(|(_, words)| {
        let (address, word) = words[0];
        let is_last = matches!(address & 0xfff, 0xff8 | 0xffc);
        is_last && is_adrp(word) && words[2].0 == address + 8 && is_memory(words[1].1)
    });
    let wrong = starts.filter(|(at, words)| {
        let base = words[0].1 & 31;
        let uses = |word: u32| is_unsigned_offset(word) && word >> 5 & 31 == base;
        let fourth = code.get(at + 3).filter(|(address, _)| *address == words[0].0 + 12);
        let reaches = !is_branch(words[2].1) && fourth.is_some_and(|(_, word)| uses(*word));
        uses(words[2].1) || reaches
    });
    wrong.map(|(_, words)| words[0].0).collect()
}

/// C4.1: "Loads and Stores", op0 (28:25) x1x0.
const fn is_memory(word: u32) -> bool {
    word >> 25 & 0b0101 == 0b0100
}

/// C4.1.94 "Load/store register (unsigned immediate)": size 111 V 01 opc imm12 Rn Rt.
const fn is_unsigned_offset(word: u32) -> bool {
    word & 0x3b00_0000 == 0x3900_0000
}

/// C4.1.93 "PC-rel. addressing" with op = 1.
const fn is_adrp(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}

/// C4.1.88 "Branches": B and BL, B.cond, CBZ and CBNZ, TBZ and TBNZ, and by register.
const fn is_branch(word: u32) -> bool {
    word & 0x7c00_0000 == 0x1400_0000
        || word & 0xff00_0000 == 0x5400_0000
        || word & 0x7c00_0000 == 0x3400_0000
        || word & 0xfe00_0000 == 0xd600_0000
}

/// C4.1.95 "Data-processing (3 source)" with sf = 1: MADD, MSUB, SMADDL and their kin; with Ra (14:10) = 31
/// nothing is added, and SMULH and UMULH have 31 there.
const fn accumulates(word: u32) -> bool {
    word & 0xff00_0000 == 0x9b00_0000 && word >> 10 & 31 != 31
}

#[cfg(test)]
mod tests {
    use super::*;

    // As an independent assembler (GNU as) writes them.
    const NOP: u32 = 0xd503_201f;
    const LDR_X1_X0: u32 = 0xf940_0001;
    const STP_X29_X30: u32 = 0xa9bf_7bfd;
    const MADD_X2_X3_X4_X5: u32 = 0x9b04_1462;
    const MUL_X2_X3_X4: u32 = 0x9b04_7c62;
    const MADD_W2_W3_W4_W5: u32 = 0x1b04_1462;
    const UMADDL_X2_W3_W4_X5: u32 = 0x9ba4_1462;
    const UMULH_X2_X3_X4: u32 = 0x9bc4_7c62;
    const ADRP_X0: u32 = 0x9000_0000;
    const STR_X1_X0_8: u32 = 0xf900_0401;
    const STR_X1_X3_8: u32 = 0xf900_0461;
    const B: u32 = 0x1400_0001;

    fn at(start: u64, words: &[u32]) -> Vec<Instruction> {
        words.iter().enumerate().map(|(index, word)| (start + 4 * index as u64, *word)).collect()
    }

    #[test]
    fn sums_behind_accesses_are_found() {
        for (words, expected) in [
            (&[LDR_X1_X0, MADD_X2_X3_X4_X5][..], 1),
            (&[STP_X29_X30, UMADDL_X2_W3_W4_X5], 1),
            (&[LDR_X1_X0, NOP, MADD_X2_X3_X4_X5], 0),
            (&[LDR_X1_X0, MUL_X2_X3_X4], 0),
            (&[LDR_X1_X0, MADD_W2_W3_W4_W5], 0),
            (&[LDR_X1_X0, UMULH_X2_X3_X4], 0),
            (&[NOP, MADD_X2_X3_X4_X5], 0),
        ] {
            assert_eq!(find_accumulate(&at(0x1000, words)).len(), expected, "{words:x?}");
        }
        // Data between them: they don't follow each other.
        assert!(find_accumulate(&[(0, LDR_X1_X0), (8, MADD_X2_X3_X4_X5)]).is_empty());
    }

    #[test]
    fn page_addresses_at_the_end_of_a_page_are_found() {
        for (start, words, expected) in [
            (0xff8, &[ADRP_X0, STP_X29_X30, STR_X1_X0_8][..], 1),
            (0xffc, &[ADRP_X0, STP_X29_X30, STR_X1_X0_8], 1),
            (0xff4, &[ADRP_X0, STP_X29_X30, STR_X1_X0_8], 0),
            (0x1000, &[ADRP_X0, STP_X29_X30, STR_X1_X0_8], 0),
            (0xff8, &[ADRP_X0, STP_X29_X30, NOP, STR_X1_X0_8], 1),
            (0xff8, &[ADRP_X0, STP_X29_X30, B, STR_X1_X0_8], 0),
            (0xff8, &[ADRP_X0, STP_X29_X30, NOP, NOP, STR_X1_X0_8], 0),
            (0xff8, &[ADRP_X0, STP_X29_X30, STR_X1_X3_8, NOP], 0),
            (0xff8, &[ADRP_X0, NOP, STR_X1_X0_8], 0),
        ] {
            let found = find_page_addresses(&at(start, words));
            assert_eq!(found.len(), expected, "{start:#x}: {words:x?}");
        }
    }
}
