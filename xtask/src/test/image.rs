//! Reads the instructions of the release firmware.
//!
//! Four promises are about instructions and not about source text: that the atomic at the heart of
//! ageing is a load-exclusive/store-exclusive loop, whatever the compiler thinks of the CPU; that EL2
//! leaves the host's FP and SIMD registers alone outside of the one place that switches them; that barriers and
//! TLB invalidations come in the order that the table in `barriers.rs` has; and that no sequence is among them
//! which a Cortex-A53 gets wrong (`cortex_a53.rs`).

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};

use super::flow::Instruction;
use super::instructions::{Access, Class, classify};
use super::{Context, barriers, cortex_a53, tally::Tally};
use crate::build::Profile;

/// The functions that clear access flags, kept out of line under these names.
const AGEING: [&str; 2] = ["verdigris_test_and_clear_young", "verdigris_test_and_clear_young_of_8"];
/// How the names of functions begin that may touch FP and SIMD registers.
const FP_PREFIX: &str = "fp_";

/// Checks the release image.
pub fn test(context: &Context, tally: &mut Tally) -> Result<()> {
    let firmware = context.lab()?.firmware(Profile::Release)?;
    let bytes = std::fs::read(&firmware.elf)?;
    let elf = object::File::parse(&*bytes)?;
    let code = Code::read(&elf)?;
    tally.judge("test_and_clear_young is an exclusive loop", &check_ageing(&code));
    tally.judge("no FP or SIMD instruction outside the switch", &check_floating_point(&code));
    let cortex_a53 = cortex_a53::check(&code.instructions);
    tally.judge("no sequence that a Cortex-A53 gets wrong", &cortex_a53);
    barriers::check(&code, tally);
    Ok(())
}

/// The instructions of an image, without the data between them.
pub(super) struct Code {
    instructions: Vec<Instruction>,
    /// Start, size and name of functions, by address.
    functions: Vec<(u64, u64, String)>,
}

impl Code {
    fn read(elf: &object::File) -> Result<Self> {
        let mut instructions = Vec::new();
        let marks = mapping_symbols(elf);
        for section in elf.sections().filter(|section| section.kind() == SectionKind::Text) {
            let data = section.data()?;
            for (at, bytes) in data.chunks_exact(4).enumerate() {
                let address = section.address() + 4 * at as u64;
                if is_code(&marks, address) {
                    let word = u32::from_le_bytes(bytes.try_into().expect("4 bytes"));
                    instructions.push((address, word));
                }
            }
        }
        ensure!(!instructions.is_empty(), "the image has no code, or no mapping symbols");
        let symbols = elf.symbols().filter(|symbol| is_text(elf, symbol));
        let functions = symbols.filter_map(|symbol| {
            let name =
                symbol.name().ok().filter(|name| !name.starts_with('$') && !name.is_empty())?;
            Some((symbol.address(), symbol.size(), name.to_owned()))
        });
        let mut functions: Vec<_> = functions.collect();
        functions.sort();
        Ok(Self { instructions, functions })
    }

    fn function(&self, name: &str) -> Result<&[Instruction]> {
        let found = self.functions.iter().find(|(_, _, own)| own == name);
        let (start, size, _) =
            found.with_context(|| format!("the image has no function {name}"))?;
        ensure!(*size > 0, "{name} has no size");
        Ok(self.between(*start, start + size))
    }

    fn between(&self, start: u64, end: u64) -> &[Instruction] {
        let from = self.instructions.partition_point(|(address, _)| *address < start);
        let to = self.instructions.partition_point(|(address, _)| *address < end);
        &self.instructions[from..to]
    }

    /// Returns the names and instructions of all functions. One of assembly, which has no size, ends where
    /// the next symbol is.
    pub(super) fn functions(&self) -> impl Iterator<Item = (&str, &[Instruction])> {
        self.functions.iter().enumerate().map(|(at, (start, size, name))| {
            let next = self.functions[at..].iter().find(|(address, ..)| address > start);
            let open_end = next.map_or(u64::MAX, |(address, ..)| *address);
            let end = if *size > 0 { start + size } else { open_end };
            (name.as_str(), self.between(*start, end))
        })
    }

    /// Names the function that begins at an address.
    pub(super) fn begins(&self, address: u64) -> Option<&str> {
        let at = self.functions.binary_search_by_key(&address, |(start, ..)| *start).ok()?;
        Some(&self.functions[at].2)
    }

    /// Names the function that an address is in.
    fn name(&self, address: u64) -> &str {
        let after = self.functions.partition_point(|(start, ..)| *start <= address);
        after.checked_sub(1).map_or("?", |at| &self.functions[at].2)
    }
}

/// Collects the symbols that tell code from data (ELF for the Arm 64-bit architecture, 5.5.4).
fn mapping_symbols(elf: &object::File) -> Vec<(u64, bool)> {
    // Sections that aren't loaded have such symbols too, with addresses of their own.
    let symbols = elf.symbols().filter(|symbol| is_text(elf, symbol));
    let marks = symbols.filter_map(|symbol| match symbol.name().ok()? {
        name if name == "$x" || name.starts_with("$x.") => Some((symbol.address(), true)),
        name if name == "$d" || name.starts_with("$d.") => Some((symbol.address(), false)),
        _ => None,
    });
    let mut marks: Vec<_> = marks.collect();
    marks.sort();
    marks
}

/// Tells whether a symbol is of code; labels of assembly have no type that says so.
fn is_text(elf: &object::File, symbol: &object::Symbol) -> bool {
    let section = symbol.section_index().and_then(|index| elf.section_by_index(index).ok());
    section.is_some_and(|section| section.kind() == SectionKind::Text)
}

fn is_code(marks: &[(u64, bool)], address: u64) -> bool {
    let after = marks.partition_point(|(start, _)| *start <= address);
    after.checked_sub(1).is_some_and(|at| marks[at].1)
}

fn check_ageing(code: &Code) -> Result<()> {
    for name in AGEING {
        let pairs = exclusive_pairs(code.function(name)?)?;
        ensure!(pairs > 0, "{name} has no load-exclusive/store-exclusive pair");
    }
    Ok(())
}

/// Counts the pairs; each load-exclusive must be followed by its store-exclusive.
fn exclusive_pairs(function: &[Instruction]) -> Result<usize> {
    let mut open: Option<Access> = None;
    let mut pairs = 0;
    for (address, word) in function {
        match classify(*word) {
            Class::SingleAtomic => bail!("at {address:#x}: {word:#010x} is no exclusive access"),
            Class::LoadExclusive(access) => {
                ensure!(open.is_none(), "at {address:#x}: a load-exclusive within a pair");
                open = Some(access);
            }
            Class::StoreExclusive(access) => {
                ensure!(
                    open == Some(access),
                    "at {address:#x}: a store-exclusive to another address"
                );
                (open, pairs) = (None, pairs + 1);
            }
            Class::FloatingPoint | Class::Other => {}
        }
    }
    ensure!(open.is_none(), "a load-exclusive has no store-exclusive");
    Ok(pairs)
}

fn check_floating_point(code: &Code) -> Result<()> {
    let mut found = Vec::new();
    for (address, word) in &code.instructions {
        let name = code.name(*address);
        if classify(*word) == Class::FloatingPoint && !name.starts_with(FP_PREFIX) {
            found.push(format!("{address:#x} in {name}: {word:#010x}"));
        }
    }
    ensure!(
        found.is_empty(),
        "{} instructions: {}",
        found.len(),
        found[..found.len().min(10)].join(", ")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LDXR: u32 = 0xc85f_7c01;
    const STXR: u32 = 0xc802_7c01;
    const STXR_OTHER_BASE: u32 = 0xc802_7c61;
    const LDCLR: u32 = 0xf821_1002;
    const NOP: u32 = 0xd503_201f;
    const FMOV: u32 = 0x9e66_0000;

    fn function(words: &[u32]) -> Vec<Instruction> {
        words.iter().enumerate().map(|(at, word)| (4 * at as u64, *word)).collect()
    }

    #[test]
    fn pairs_are_counted_and_broken_ones_refused() {
        let count = |words: &[u32]| exclusive_pairs(&function(words));
        assert_eq!(count(&[LDXR, NOP, STXR, NOP]).unwrap(), 1);
        assert_eq!(count(&[LDXR, STXR, LDXR, STXR]).unwrap(), 2);
        assert_eq!(count(&[NOP]).unwrap(), 0);
        for broken in [
            &[LDXR, LDXR, STXR][..],
            &[LDXR, STXR_OTHER_BASE],
            &[STXR],
            &[LDXR, NOP],
            &[LDXR, STXR, LDCLR],
        ] {
            assert!(count(broken).is_err(), "{broken:x?}");
        }
    }

    #[test]
    fn fp_registers_are_for_the_switch_alone() {
        let functions = vec![(0, 8, "fp_save".to_owned()), (8, 8, "other".to_owned())];
        let mut code = Code { instructions: function(&[FMOV, NOP, NOP, NOP]), functions };
        assert!(check_floating_point(&code).is_ok());
        code.instructions = function(&[NOP, NOP, NOP, FMOV]);
        let error = check_floating_point(&code).unwrap_err().to_string();
        assert!(error.contains("0xc in other"), "{error}");
    }

    #[test]
    fn data_between_code_is_not_read_as_code() {
        let marks = [(0, true), (8, false), (16, true)];
        let code: Vec<_> = (0..20).step_by(4).map(|at| is_code(&marks, at)).collect();
        assert_eq!(code, [true, true, false, false, true]);
        assert!(!is_code(&[], 0));
    }
}
