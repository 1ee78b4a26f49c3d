//! Recognises the few classes of A64 instructions that the image is checked for.
//!
//! Masks are from the encoding tables of the Arm ARM (DDI 0487, chapter C4): small enough to be
//! checked by eye against it, which a disassembler's text is not.

/// A class of instructions that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A load-exclusive (LDXR, LDAXR and pairs): size and base register.
    LoadExclusive(Access),
    /// A store-exclusive (STXR, STLXR and pairs): size and base register.
    StoreExclusive(Access),
    /// An atomic of FEAT_LSE, LSE128, LS64 or THE: what the baseline does not have.
    SingleAtomic,
    /// Anything that reads or writes V, Z or P registers, or ZA.
    FloatingPoint,
    /// Anything else.
    Other,
}

/// What an exclusive instruction accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// log2 of the size in bytes.
    pub size: u32,
    /// Whether it is a pair.
    pub pair: bool,
    /// The register that holds the address; 31 is SP.
    pub base: u32,
}

/// Classifies an instruction.
pub fn classify(word: u32) -> Class {
    if is_floating_point(word) {
        return Class::FloatingPoint;
    }
    // C4.1.94 "Load/store exclusive register", "... pair", "Compare and swap (pair)":
    // size 001000 o2 L o1 Rs o0 Rt2 Rn Rt
    if word & 0x3f00_0000 == 0x0800_0000 {
        return exclusive(word);
    }
    // "Atomic memory operations": size 111 V=0 00 A R 1 Rs o3 opc 00 Rn Rt. LDAPR stands among
    // them (o3 = 1, opc = 100, A = 1, R = 0), but is a plain load.
    let is_atomic = word & 0x3f20_0c00 == 0x3820_0000 && word & 0x3fff_fc00 != 0x38bf_c000;
    // "128-bit atomic memory operations", "RCW compare and swap (pair)", "RCW atomics":
    // 0 S 011001 A R 1 ...
    let is_wide_atomic = word & 0xbf20_0000 == 0x1920_0000;
    if is_atomic || is_wide_atomic { Class::SingleAtomic } else { Class::Other }
}

fn exclusive(word: u32) -> Class {
    let bit = |n: u32| word >> n & 1 == 1;
    let (o2, load, o1, size) = (bit(23), bit(22), bit(21), word >> 30);
    let access = Access { size, pair: o1, base: word >> 5 & 31 };
    match (o2, o1) {
        // CAS and CASP: o1 is 1, and o2 is 1 or the size that of no pair.
        (true, true) => Class::SingleAtomic,
        (false, true) if size < 2 => Class::SingleAtomic,
        // LDAR, STLR and their kind.
        (true, false) => Class::Other,
        (false, _) if load => Class::LoadExclusive(access),
        (false, _) => Class::StoreExclusive(access),
    }
}

fn is_floating_point(word: u32) -> bool {
    // C4.1: op0 is bits 28 to 25.
    match word >> 25 & 0xf {
        // "Data Processing - Scalar Floating-Point and Advanced SIMD": x111.
        0b0111 | 0b1111 => true,
        // "Loads and Stores": x1x0, of which V (bit 26) marks those of V registers.
        op0 if op0 & 0b0101 == 0b0100 => word >> 26 & 1 == 1,
        // "SVE": 0010. "SME": 0000 with bit 31 set (with bit 31 clear it is UDF and reserved).
        0b0010 => true,
        0b0000 => word >> 31 == 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodings as an independent assembler (GNU as) writes them.
    #[test]
    fn instructions_are_told_apart() {
        let x0 = Access { size: 3, pair: false, base: 0 };
        for (word, class, text) in [
            (0xc85f_7c01, Class::LoadExclusive(x0), "ldxr x1, [x0]"),
            (0xc85f_fc01, Class::LoadExclusive(x0), "ldaxr x1, [x0]"),
            (0xc802_7c01, Class::StoreExclusive(x0), "stxr w2, x1, [x0]"),
            (0xc802_fc01, Class::StoreExclusive(x0), "stlxr w2, x1, [x0]"),
            (
                0x885f_7fe1,
                Class::LoadExclusive(Access { size: 2, pair: false, base: 31 }),
                "ldxr w1, [sp]",
            ),
            (0xc87f_0801, Class::LoadExclusive(Access { pair: true, ..x0 }), "ldxp x1, x2, [x0]"),
            (0xc8df_fc01, Class::Other, "ldar x1, [x0]"),
            (0xc89f_fc01, Class::Other, "stlr x1, [x0]"),
            (0xf8bf_c001, Class::Other, "ldapr x1, [x0]"),
            (0xf940_0001, Class::Other, "ldr x1, [x0]"),
            (0xa9bf_7bfd, Class::Other, "stp x29, x30, [sp, #-16]!"),
            (0xd503_3f5f, Class::Other, "clrex"),
            (0xc8a1_7c02, Class::SingleAtomic, "cas x1, x2, [x0]"),
            (0x4820_7c02, Class::SingleAtomic, "casp x0, x1, x2, x3, [x0]"),
            (0xf821_1002, Class::SingleAtomic, "ldclr x1, x2, [x0]"),
            (0xf821_101f, Class::SingleAtomic, "stclr x1, [x0]"),
            (0xf8e1_8002, Class::SingleAtomic, "swpal x1, x2, [x0]"),
            (0x1921_1002, Class::SingleAtomic, "ldclrp x2, x1, [x0]"),
            (0x3dc0_0000, Class::FloatingPoint, "ldr q0, [x0]"),
            (0xad00_0400, Class::FloatingPoint, "stp q0, q1, [x0]"),
            (0xfc40_0400, Class::FloatingPoint, "ldr d0, [x0], #0"),
            (0x1e60_4020, Class::FloatingPoint, "fmov d0, d1"),
            (0x9e66_0000, Class::FloatingPoint, "fmov x0, d0"),
            (0x4e20_1c00, Class::FloatingPoint, "and v0.16b, v0.16b, v0.16b"),
            (0x4c40_7000, Class::FloatingPoint, "ld1 {v0.16b}, [x0]"),
            (0x0420_e3e0, Class::FloatingPoint, "cntb x0"),
            (0xa400_a000, Class::FloatingPoint, "ld1b {z0.b}, p0/z, [x0]"),
            (0x8580_4000, Class::FloatingPoint, "ldr z0, [x0]"),
            (0xc008_00ff, Class::FloatingPoint, "zero {za}"),
            (0x0000_0000, Class::Other, "udf #0"),
            (0x9400_0000, Class::Other, "bl"),
            (0x8b02_0020, Class::Other, "add x0, x1, x2"),
            (0xd53b_4400, Class::Other, "mrs x0, fpcr"),
        ] {
            assert_eq!(classify(word), class, "{text}: {word:#010x}");
        }
    }
}
