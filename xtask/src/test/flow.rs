//! Follows the paths through a function of the image, and says which leaves a barrier out.
//!
//! The compiler lays blocks out as it likes, so the order of addresses says nothing. What is checked is the
//! order on every path: a rule's *obligation* begins at an instruction (or where the function begins), the
//! rule's steps settle it one after the other, and no path may come to what the rule forbids before that.
//! Between the steps anything may stand. Branches go both ways whatever their condition.
//!
//! Masks are from the encoding tables of the Arm ARM (DDI 0487, chapter C4).

use std::collections::BTreeSet;

/// An instruction and where it is linked.
pub type Instruction = (u64, u32);

/// An instruction that a rule speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `dsb ish`, or stronger.
    DsbIsh,
    /// `dsb nsh`, or stronger.
    DsbNsh,
    /// `dsb sy`.
    DsbSy,
    /// `dsb ishst`, or stronger.
    DsbIshst,
    /// `dmb ish`, or stronger.
    DmbIsh,
    /// `isb`.
    Isb,
    /// `psb csync`.
    PsbCsync,
    /// `tsb csync`.
    TsbCsync,
    /// A SYS instruction (TLBI, IC, AT), with its name.
    Sys(&'static str, u32),
    /// Any TLBI.
    AnyTlbi,
    /// Any TLBI that other CPUs don't hear of.
    AnyLocalTlbi,
    /// Any DC to a point of coherency.
    AnyClean,
    /// A write of a system register, with its name.
    Msr(&'static str, u32),
    /// A read of a system register, with its name.
    Mrs(&'static str, u32),
    /// A store-release of 64 bits that is not exclusive.
    StoreRelease,
    /// An exclusive store of 64 bits that is a release.
    StoreReleaseExclusive,
    /// A load-acquire of 64 bits that is not exclusive.
    LoadAcquire,
    /// `smc`.
    Smc,
    /// `eret`.
    Eret,
    /// `ret`, or a branch out of the function.
    Return,
    /// A call of a function whose name has this part.
    Call(&'static str),
}

/// Encodes `S<op0>_<op1>_C<crn>_C<crm>_<op2>` as it stands in MSR, MRS and SYS.
pub const fn encoding(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

/// C4.1.89 "System instructions" and "System register move": bit 21 is L, the rest as [`encoding`].
const SYSTEM: u32 = 0xd500_0000;
const READ: u32 = 1 << 21;
const ALL_BUT_RT: u32 = !0x1f;

impl Mark {
    /// Tells whether an instruction is one of these; `callee` is what a BL or B calls.
    pub fn is(self, word: u32, callee: Option<&str>) -> bool {
        let barrier = |op2: u32, options: &[u32]| {
            word & 0xffff_f0ff == 0xd503_301f | op2 << 5 && options.contains(&(word >> 8 & 15))
        };
        match self {
            // CRm: 1111 SY, 1011 ISH, 0111 NSH; x10 in the low bits is stores alone, x01 loads alone.
            Self::DsbIsh => barrier(4, &[0b1111, 0b1011]),
            Self::DsbNsh => barrier(4, &[0b1111, 0b1011, 0b0111]),
            Self::DsbSy => barrier(4, &[0b1111]),
            Self::DsbIshst => barrier(4, &[0b1111, 0b1011, 0b1110, 0b1010]),
            Self::DmbIsh => barrier(5, &[0b1111, 0b1011]) || barrier(4, &[0b1111, 0b1011]),
            Self::Isb => word & 0xffff_f0ff == 0xd503_30df,
            // "Hints": HINT #17 and #18.
            Self::PsbCsync => word == 0xd503_223f,
            Self::TsbCsync => word == 0xd503_225f,
            Self::Sys(_, code) | Self::Msr(_, code) => word & ALL_BUT_RT == SYSTEM | code,
            Self::Mrs(_, code) => word & ALL_BUT_RT == SYSTEM | READ | code,
            Self::AnyTlbi => is_tlbi(word),
            Self::AnyLocalTlbi => is_tlbi(word) && is_local(word),
            // DC has CRn = 7; CRm 6, 10, 11, 14 are IVAC and ISW, CVAC and CSW, CVAU, CIVAC and CISW.
            Self::AnyClean => {
                word & 0xfff8_f000 == SYSTEM | encoding(1, 0, 7, 0, 0)
                    && [6, 10, 14].contains(&(word >> 8 & 15))
            }
            // size 001000 o2 L o1 Rs o0 Rt2 Rn Rt: o0 is acquire and release, o2 not exclusive.
            Self::StoreRelease => word & 0xffe0_8000 == 0xc880_8000,
            Self::StoreReleaseExclusive => word & 0xffe0_8000 == 0xc800_8000,
            Self::LoadAcquire => word & 0xffc0_8000 == 0xc8c0_8000,
            Self::Smc => word & 0xffe0_001f == 0xd400_0003,
            Self::Eret => word == 0xd69f_03e0,
            Self::Return => word & 0xffff_fc1f == 0xd65f_0000,
            Self::Call(part) => callee.is_some_and(|name| name.contains(part)),
        }
    }

    /// Names it as a reader of the table does.
    pub fn name(self) -> String {
        match self {
            Self::Sys(name, _) => name.to_owned(),
            Self::Msr(name, _) => format!("msr {name}"),
            Self::Mrs(name, _) => format!("mrs {name}"),
            Self::Call(name) => format!("call of {name}"),
            other => format!("{other:?}"),
        }
    }
}

/// SYS with CRn = 8.
fn is_tlbi(word: u32) -> bool {
    word & 0xfff8_f000 == SYSTEM | encoding(1, 0, 8, 0, 0)
}

/// By IPA CRm is 4 for this CPU alone (outer shareable forms, with op2 0, 3, 4, 7, aren't used) and 0 for
/// all; the others have 6 and 7, or 1 to 3 and 5 (Arm ARM C5.5).
fn is_local(word: u32) -> bool {
    matches!(word >> 8 & 15, 4 | 6 | 7)
}

/// A rule about the order of instructions on every path of a function.
#[derive(Clone, Copy)]
pub struct Order {
    /// What it is for, as it stands in a failure.
    pub why: &'static str,
    /// A part of the name of each function that it is about; the empty one is in all.
    pub inside: &'static str,
    /// Where an obligation begins; the function's first instruction where there is none.
    pub after: &'static [Mark],
    /// What settles it, in this order.
    pub steps: &'static [Mark],
    /// What no path may come to meanwhile.
    pub before: &'static [Mark],
    /// So many instructions begin an obligation, or are forbidden to come first, at least.
    pub at_least: usize,
}

/// A rule about instructions that follow each other with no branch and no other system instruction between.
#[derive(Clone, Copy)]
pub struct Straight {
    /// What it is for, as it stands in a failure.
    pub why: &'static str,
    /// A part of the name of each function that it is about; the empty one is in all.
    pub inside: &'static str,
    /// The instructions.
    pub marks: &'static [Mark],
    /// Whether they do so wherever the first of them stands.
    pub always: bool,
    /// So often at least.
    pub at_least: usize,
}

impl Straight {
    /// Counts where the marks stand in a function, and says where only the first one does.
    pub fn find(&self, function: &[Instruction]) -> (usize, Vec<u64>) {
        let starts =
            function.iter().enumerate().filter(|(_, (_, word))| self.marks[0].is(*word, None));
        let (whole, broken): (Vec<_>, Vec<_>) =
            starts.partition(|(at, _)| self.stands_at(&function[*at..]));
        (whole.len(), broken.into_iter().map(|(_, (address, _))| *address).collect())
    }

    fn stands_at(&self, from: &[Instruction]) -> bool {
        let counting = from.iter().filter(|(address, word)| {
            let is_system = word & 0xff00_0000 == SYSTEM;
            is_system || Mark::Smc.is(*word, None) || !matches!(next(*address, *word), Next::On)
        });
        let mut words = counting.map(|(_, word)| *word);
        self.marks.iter().all(|mark| words.next().is_some_and(|word| mark.is(word, None)))
    }
}

/// Where a path may go on after an instruction.
enum Next {
    /// The instruction behind it.
    On,
    /// There or behind it.
    Either(u64),
    /// There alone.
    To(u64),
    /// To any instruction that allows an indirect branch.
    Anywhere,
    /// Nowhere in this function.
    Nowhere,
}

fn next(address: u64, word: u32) -> Next {
    let to = |low: u32, bits: u32| {
        let offset = (u64::from(word >> low) << (64 - bits)) as i64 >> (64 - bits);
        address.wrapping_add_signed(4 * offset)
    };
    match word {
        _ if word & 0xfc00_0000 == 0x1400_0000 => Next::To(to(0, 26)),
        // B.cond and BC.cond; CBZ and CBNZ; TBZ and TBNZ.
        _ if word & 0xff00_0000 == 0x5400_0000 => Next::Either(to(5, 19)),
        _ if word & 0x7e00_0000 == 0x3400_0000 => Next::Either(to(5, 19)),
        _ if word & 0x7e00_0000 == 0x3600_0000 => Next::Either(to(5, 14)),
        // BR, by a table of the compiler's.
        _ if word & 0xffff_fc1f == 0xd61f_0000 => Next::Anywhere,
        // RET, ERET, BRK, UDF.
        _ if Mark::Return.is(word, None) || Mark::Eret.is(word, None) => Next::Nowhere,
        _ if word & 0xffe0_001f == 0xd420_0000 || word < 0x1_0000 => Next::Nowhere,
        _ => Next::On,
    }
}

/// Where BL goes.
fn called(address: u64, word: u32) -> Option<u64> {
    let offset = (i64::from(word << 6) << 32 >> 38) * 4;
    (word & 0xfc00_0000 == 0x9400_0000).then(|| address.wrapping_add_signed(offset))
}

/// `bti j` and `bti jc`.
const fn is_jump_target(word: u32) -> bool {
    matches!(word, 0xd503_249f | 0xd503_24df)
}

/// What the paths up to an instruction may have done: bit n for n steps done, the last for no obligation.
type States = u64;

/// Goes along the paths of one function.
pub struct Paths<'a, N> {
    pub function: &'a [Instruction],
    /// Names the function at an address.
    pub name: N,
}

impl<'a, N: Fn(u64) -> Option<&'a str>> Paths<'a, N> {
    /// Checks one function; returns how often the rule had something to say, or where a path breaks it.
    pub fn check(&self, rule: &Order) -> Result<usize, Vec<u64>> {
        let settled = rule.steps.len() as u32;
        let mut before: Vec<States> = vec![0; self.function.len()];
        let Some(first) = before.first_mut() else { return Ok(0) };
        *first = if rule.after.is_empty() { 1 } else { 1 << settled };
        let (mut work, mut broken) = (vec![0], BTreeSet::new());
        while let Some(at) = work.pop() {
            let (address, word) = self.function[at];
            let callee = called(address, word).and_then(&self.name);
            let owes = before[at] & !(1 << settled) != 0;
            let leaves = matches!(next(address, word), Next::To(to) if self.index(to).is_none());
            let is_in = |marks: &[Mark]| {
                marks.iter().any(|m| m.is(word, callee) || leaves && *m == Mark::Return)
            };
            if owes && is_in(rule.before) {
                broken.insert(address);
            }
            let after = self.step(rule, word, callee, before[at]);
            for to in self.successors(at, callee) {
                if before[to] | after != before[to] {
                    before[to] |= after;
                    work.push(to);
                }
            }
        }
        if !broken.is_empty() {
            return Err(broken.into_iter().collect());
        }
        let marks = if rule.after.is_empty() { rule.before } else { rule.after };
        Ok(self.count(marks, &before))
    }

    /// Counts the instructions on some path that are marks.
    fn count(&self, marks: &[Mark], reached: &[States]) -> usize {
        let hits = self.function.iter().zip(reached).filter(|&(&(address, word), &states)| {
            let callee = called(address, word).and_then(&self.name);
            states != 0 && marks.iter().any(|mark| mark.is(word, callee))
        });
        hits.count()
    }

    fn step(&self, rule: &Order, word: u32, callee: Option<&str>, before: States) -> States {
        if rule.after.iter().any(|mark| mark.is(word, callee)) {
            return 1;
        }
        let after = |done: usize| match rule.steps.get(done) {
            Some(mark) if mark.is(word, callee) => done + 1,
            _ => done,
        };
        let states = (0..=rule.steps.len()).filter(|&done| before & 1 << done != 0);
        states.fold(0, |states, done| states | 1 << after(done))
    }

    fn successors(&self, at: usize, callee: Option<&str>) -> Vec<usize> {
        let (address, word) = self.function[at];
        if callee.is_some_and(never_returns) {
            return Vec::new();
        }
        let on = (at + 1 < self.function.len()).then_some(at + 1);
        match next(address, word) {
            Next::On => on.into_iter().collect(),
            Next::Either(to) => on.into_iter().chain(self.index(to)).collect(),
            Next::To(to) => self.index(to).into_iter().collect(),
            Next::Anywhere => {
                let words = self.function.iter().enumerate();
                words.filter(|(_, (_, word))| is_jump_target(*word)).map(|(at, _)| at).collect()
            }
            Next::Nowhere => Vec::new(),
        }
    }

    fn index(&self, address: u64) -> Option<usize> {
        self.function.binary_search_by_key(&address, |(own, _)| *own).ok()
    }
}

/// Tells whether a function is one that ends in a panic: nothing is behind a call of it.
fn never_returns(name: &str) -> bool {
    ["9panicking", "_failed", "_fail", "panic_"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0xd503_201f;
    const ISB: u32 = 0xd503_3fdf;
    const DSB_ISH: u32 = 0xd503_3b9f;
    const DSB_ISHST: u32 = 0xd503_3a9f;
    const DSB_NSH: u32 = 0xd503_379f;
    const DMB_ISH: u32 = 0xd503_3bbf;
    const DMB_ISHLD: u32 = 0xd503_39bf;
    const RET: u32 = 0xd65f_03c0;
    const SMC: u32 = 0xd400_0003;
    const TLBI_VMALLE1: u32 = 0xd508_871f;
    const VTTBR: u32 = encoding(3, 4, 2, 1, 0);
    const MSR_VTTBR: u32 = 0xd51c_2109;

    fn check(words: &[u32], rule: &Order) -> Result<usize, Vec<u64>> {
        let function: Vec<_> =
            words.iter().enumerate().map(|(at, word)| (4 * at as u64, *word)).collect();
        let name = |address| (address == 0x100).then_some("core9panicking9panic_fmt");
        Paths { function: &function, name }.check(rule)
    }

    const RULE: Order = Order {
        why: "",
        inside: "",
        after: &[Mark::Msr("vttbr_el2", VTTBR)],
        steps: &[Mark::DsbNsh, Mark::Isb],
        before: &[Mark::Return, Mark::Smc],
        at_least: 1,
    };

    #[test]
    fn steps_come_in_their_order_and_anything_may_stand_between() {
        let good = [NOP, MSR_VTTBR, NOP, DSB_ISH, NOP, ISB, RET];
        assert_eq!(check(&good, &RULE), Ok(1));
        assert_eq!(check(&[NOP, RET], &RULE), Ok(0), "nothing to say");
        for (broken, at) in [
            (&[MSR_VTTBR, DSB_NSH, RET][..], 8),
            (&[MSR_VTTBR, ISB, RET], 8),
            (&[MSR_VTTBR, ISB, DSB_NSH, RET], 12),
            (&[DSB_NSH, ISB, MSR_VTTBR, RET], 12),
            (&[MSR_VTTBR, DSB_ISHST, ISB, RET], 12),
            (&[MSR_VTTBR, DSB_NSH, SMC, ISB, RET], 8),
            (&[MSR_VTTBR, DSB_NSH, ISB, MSR_VTTBR, RET], 16),
        ] {
            assert_eq!(check(broken, &RULE), Err(vec![at]), "{broken:x?}");
        }
    }

    #[test]
    fn each_way_of_a_branch_counts() {
        const CBZ_OVER_TWO: u32 = 0xb400_0060;
        const B_OVER_TWO: u32 = 0x1400_0003;
        const B_BACK_ONE: u32 = 0x17ff_ffff;
        let skipped = [MSR_VTTBR, CBZ_OVER_TWO, DSB_NSH, ISB, RET];
        assert_eq!(check(&skipped, &RULE), Err(vec![16]));
        let both = [MSR_VTTBR, DSB_NSH, CBZ_OVER_TWO, ISB, RET, ISB, RET];
        assert_eq!(check(&both, &RULE), Ok(1));
        let jumped = [MSR_VTTBR, B_OVER_TWO, DSB_NSH, ISB, RET];
        assert_eq!(check(&jumped, &RULE), Err(vec![16]));
        let unreached = [NOP, B_OVER_TWO, MSR_VTTBR, NOP, RET];
        assert_eq!(check(&unreached, &RULE), Ok(0));
        let out = [MSR_VTTBR, 0x1400_1000];
        assert_eq!(check(&out, &RULE), Err(vec![4]), "a tail call is a return");
        assert_eq!(check(&[MSR_VTTBR, NOP, B_BACK_ONE], &RULE), Ok(1), "for ever");
    }

    #[test]
    fn a_jump_by_table_goes_to_any_landing_and_a_panic_nowhere() {
        const BR: u32 = 0xd61f_0140;
        const BTI_J: u32 = 0xd503_249f;
        let table = [MSR_VTTBR, BR, BTI_J, DSB_NSH, ISB, RET, BTI_J, RET];
        assert_eq!(check(&table, &RULE), Err(vec![28]));
        // BL from 4 to 0x100.
        assert_eq!(check(&[MSR_VTTBR, 0x9400_003f, RET], &RULE), Ok(1));
        assert_eq!(check(&[MSR_VTTBR, 0x9400_003e, RET], &RULE), Err(vec![8]));
    }

    #[test]
    fn without_a_beginning_the_function_is_one() {
        let rule = Order { after: &[], before: &[Mark::Smc], steps: &[Mark::DsbIsh], ..RULE };
        assert_eq!(check(&[DSB_ISH, SMC, RET], &rule), Ok(1));
        assert_eq!(check(&[NOP, SMC, RET], &rule), Err(vec![4]));
    }

    #[test]
    fn straight_means_without_a_branch_or_another_of_its_kind() {
        let rule = Straight {
            why: "",
            inside: "",
            marks: &[Mark::DsbIsh, Mark::Smc],
            always: true,
            at_least: 1,
        };
        let find = |words: &[u32]| {
            let function: Vec<_> =
                words.iter().enumerate().map(|(at, word)| (4 * at as u64, *word)).collect();
            rule.find(&function)
        };
        const ADD: u32 = 0x8b02_0020;
        const CBZ: u32 = 0xb400_0060;
        assert_eq!(find(&[DSB_ISH, ADD, SMC, NOP, DSB_ISH, SMC]), (2, vec![]));
        for broken in [[DSB_ISH, ISB, SMC], [DSB_ISH, CBZ, SMC], [DSB_ISH, RET, SMC]] {
            assert_eq!(find(&broken), (0, vec![0]), "{broken:x?}");
        }
        assert_eq!(find(&[SMC]), (0, vec![]));
    }

    /// Encodings as an independent assembler (GNU as) writes them.
    #[test]
    fn marks_are_told_apart() {
        let vmalle1 = Mark::Sys("tlbi vmalle1", encoding(1, 0, 8, 7, 0));
        let all = [
            Mark::DsbIsh,
            Mark::DsbNsh,
            Mark::DsbSy,
            Mark::DsbIshst,
            Mark::DmbIsh,
            Mark::Isb,
            vmalle1,
            Mark::AnyTlbi,
            Mark::AnyLocalTlbi,
            Mark::AnyClean,
            Mark::StoreRelease,
            Mark::StoreReleaseExclusive,
            Mark::LoadAcquire,
            Mark::Smc,
            Mark::Eret,
            Mark::Return,
        ];
        use Mark::*;
        for (word, marks, text) in [
            (DSB_ISH, &[DsbIsh, DsbNsh, DsbIshst, DmbIsh][..], "dsb ish"),
            (DSB_NSH, &[DsbNsh], "dsb nsh"),
            (0xd503_3f9f, &[DsbIsh, DsbNsh, DsbSy, DsbIshst, DmbIsh], "dsb sy"),
            (DSB_ISHST, &[DsbIshst], "dsb ishst"),
            (DMB_ISH, &[DmbIsh], "dmb ish"),
            (DMB_ISHLD, &[], "dmb ishld"),
            (ISB, &[Isb], "isb"),
            (TLBI_VMALLE1, &[vmalle1, AnyTlbi, AnyLocalTlbi], "tlbi vmalle1"),
            (0xd508_831f, &[AnyTlbi], "tlbi vmalle1is"),
            (0xd50c_8429, &[AnyTlbi, AnyLocalTlbi], "tlbi ipas2e1, x9"),
            (0xd50c_8029, &[AnyTlbi], "tlbi ipas2e1is, x9"),
            (0xd50c_83bf, &[AnyTlbi], "tlbi vale2is, xzr"),
            (0xd508_751f, &[], "ic iallu"),
            (0xd50b_7a20, &[AnyClean], "dc cvac, x0"),
            (0xd50b_7e20, &[AnyClean], "dc civac, x0"),
            (0xd50b_7420, &[], "dc zva, x0"),
            (0xd508_7800, &[], "at s1e1r, x0"),
            (0x089f_fd3f, &[], "stlrb wzr, [x9]"),
            (0xc89f_fd3f, &[StoreRelease], "stlr xzr, [x9]"),
            (0xc80a_7d88, &[], "stxr w10, x8, [x12]"),
            (0xc80a_fd89, &[StoreReleaseExclusive], "stlxr w10, x9, [x12]"),
            (0xc8df_fc01, &[LoadAcquire], "ldar x1, [x0]"),
            (0xc85f_fc01, &[], "ldaxr x1, [x0]"),
            (SMC, &[Smc], "smc #0"),
            (0xd69f_03e0, &[Eret], "eret"),
            (RET, &[Return], "ret"),
            (NOP, &[], "nop"),
        ] {
            let own: Vec<_> = all.iter().copied().filter(|mark| mark.is(word, None)).collect();
            assert_eq!(own, marks, "{text}: {word:#010x}");
        }
        assert!(Msr("vttbr_el2", VTTBR).is(MSR_VTTBR, None));
        assert!(Mrs("vttbr_el2", VTTBR).is(0xd53c_2109, None));
        assert!(!Msr("vttbr_el2", VTTBR).is(0xd53c_2109, None));
    }
}
