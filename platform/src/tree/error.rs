//! Why a device tree can't be used.

use core::fmt;

/// Why a device tree can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It breaks the rules of the format.
    Malformed {
        /// Where, in bytes from its start.
        offset: usize,
        /// How.
        flaw: Flaw,
    },
    /// No board claims the `compatible` of its root.
    UnknownBoard,
    /// A node or property is missing.
    Missing(&'static str),
    /// A property has a length or value that makes no sense.
    Invalid(&'static str),
    /// It has more of something than fits.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many fit.
        limit: usize,
    },
    /// Two CPUs have the same `reg`.
    SameCpu {
        /// Its affinity fields.
        mpidr: u64,
    },
    /// One of several CPUs can't be started through PSCI.
    CpuWithoutPsci {
        /// Its affinity fields.
        mpidr: u64,
    },
}

/// How a device tree breaks the rules of its format (Devicetree Specification, chapter 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It ends too early.
    TooShort,
    /// Its magic number is wrong.
    Magic,
    /// It is of no version that this code reads (17).
    Version,
    /// It is larger than any tree may be.
    TooLarge,
    /// Its blocks lie outside it, overlap, or stand in an unusual order.
    Blocks,
    /// The list of memory reservations has no end.
    Reservations,
    /// A token is unknown or stands where it can't.
    Token,
    /// A name is missing, not printable, or has no end.
    Name,
    /// Nodes are nested too deep.
    Depth,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "it ends too early",
            Self::Magic => "the magic number is wrong",
            Self::Version => "its version is not 17",
            Self::TooLarge => "it is larger than 2 MiB",
            Self::Blocks => "its blocks are out of bounds or out of order",
            Self::Reservations => "the list of memory reservations has no end",
            Self::Token => "a token is unknown or misplaced",
            Self::Name => "a name is missing, not printable, or has no end",
            Self::Depth => "nodes are nested too deep",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { offset, flaw } => {
                write!(f, "the device tree is broken at byte {offset:#x}: {flaw}; load another one")
            }
            Self::UnknownBoard => f.write_str(
                "no board of this firmware claims the device tree's root: \
                 start the machine that it was built for, or add a board",
            ),
            Self::Missing(what) => write!(f, "the device tree has no {what}: add it"),
            Self::Invalid(what) => {
                write!(
                    f,
                    "the device tree's {what} has a length or value that makes no sense: correct it"
                )
            }
            Self::TooMany { what, limit } => {
                write!(f, "the device tree has more than {limit} {what}: start with fewer")
            }
            Self::SameCpu { mpidr } => {
                write!(f, "two CPUs of the device tree are {mpidr:#x}: give each its own reg")
            }
            Self::CpuWithoutPsci { mpidr } => {
                write!(
                    f,
                    "CPU {mpidr:#x} is not started by PSCI: leave it out, or start with one CPU"
                )
            }
        }
    }
}

impl core::error::Error for Error {}

impl From<fdt::FdtError> for Error {
    /// Converts what the reader found although the walk before it had not: its errors tell no place.
    fn from(_: fdt::FdtError) -> Self {
        Self::Malformed { offset: 0, flaw: Flaw::Token }
    }
}
