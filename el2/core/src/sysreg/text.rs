//! Prints the tables as the document `docs/registers.md`: the code is the source, the text its copy.

use core::fmt;

use super::row::{Direction, Emulation, Fate, Place, Register};
use super::{INSTRUCTIONS, INVISIBLE, SWITCHED, TRAPPED};

/// Displays all tables in Markdown.
pub struct Tables;

const HEAD: &str = "\
# What becomes of a guest's system registers

Generated from the tables in `el2/core/src/sysreg`; a test fails when the two differ, and writes this file
anew when `UPDATE_DOCS=1` is set. Every register that EL1 or EL0 can write, of Armv8.0 to Armv9.5, is in exactly one table: *switched* (the
guest has its own), *trapped* (the access comes to EL2), or *invisible* (the access reaches the CPU's own, and the reason why
the host is neither changed nor shown). What no table names is UNDEFINED for a guest. Encodings are op0, op1, CRn, CRm, op2, with the
range where they vary, `*` where it has gaps. \"Needs\" names the feature that brings a register; without it, it is UNDEFINED.
";

const DEBUG_NOTE: &str = "\
\"Kept\" means that EL2 holds the value for the guest and answers each access; the CPU's own registers get the values while the guest
has debugging on (MDSCR_EL1.MDE is 1 and its OS lock is off), and the host's are put back when the run ends.
";

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEAD)?;
        table(f, "Switched", "where", SWITCHED)?;
        table(f, "Trapped", "by, and then", TRAPPED)?;
        write!(f, "\n{DEBUG_NOTE}")?;
        table(f, "Invisible", "because", INVISIBLE)?;
        table(f, "System instructions", "outcome", INSTRUCTIONS)
    }
}

fn table(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    fate: &str,
    rows: &'static [Register],
) -> fmt::Result {
    writeln!(
        f,
        "\n## {title}\n| name | encoding | access | needs | {fate} |\n|---|---|---|---|---|"
    )?;
    rows.iter().try_for_each(|row| {
        write!(f, "| `{}` | {} | {} | {} | ", row.name, Numbers(row), direction(row), row.needs)?;
        outcome(f, &row.fate)?;
        f.write_str(" |\n")
    })
}

/// Displays the numbers of an encoding, with their range where they vary.
struct Numbers(&'static Register);

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(row) = self;
        let encoding = row.encoding;
        write!(f, "{}, {}", encoding.op0(), encoding.op1())?;
        let parts = [
            (encoding.crn(), row.varies >> 7 & 15),
            (encoding.crm(), row.varies >> 3 & 15),
            (encoding.op2(), row.varies & 7),
        ];
        parts.iter().try_for_each(|&(number, varies)| match varies {
            0 => write!(f, ", {number}"),
            // Low bits only: consecutive numbers.
            1 | 3 | 7 | 15 => write!(f, ", {number}-{}", u16::from(number) + varies),
            _ => f.write_str(", *"),
        })
    }
}

fn direction(row: &Register) -> &'static str {
    match row.direction {
        Direction::ReadWrite => "RW",
        Direction::ReadOnly => "RO",
        Direction::WriteOnly => "WO",
    }
}

fn outcome(f: &mut fmt::Formatter<'_>, fate: &Fate) -> fmt::Result {
    match fate {
        Fate::Switched(Place::Slot(slot)) => write!(f, "slot {}, {slot:?}", *slot as usize),
        Fate::Switched(Place::View(slot)) => write!(f, "a view of {slot:?}"),
        Fate::Switched(Place::SpEl0) => f.write_str("general registers"),
        Fate::Switched(Place::Pstate) => f.write_str("PSTATE"),
        Fate::Switched(Place::Fp) => f.write_str("FP/SIMD registers, at first use"),
        Fate::Trapped(control, how) => {
            let control = (control.register, control.field, u8::from(control.set), how);
            write!(f, "{}.{} = {}: {}", control.0, control.1, control.2, emulation(*control.3))
        }
        Fate::Invisible(why) => f.write_str(why),
    }
}

const fn emulation(how: Emulation) -> &'static str {
    match how {
        Emulation::Undefined => "UNDEFINED",
        Emulation::Id => "masked value",
        Emulation::ZeroIgnore => "reads as zero, writes are ignored",
        Emulation::Debug(_) => "kept",
        Emulation::OsLock => "sets the guest's own OS lock",
        Emulation::OsLockStatus => "the guest's own OS lock",
    }
}
