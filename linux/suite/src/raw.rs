//! The raw hypercall device: layouts of its ioctls (`linux/driver/verdigris_raw.h`), and calls.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::OnceLock;

use verdigris_abi::{Error, Status};

use crate::sys;

/// Where the driver offers the device.
pub const PATH: &str = "/dev/verdigris-raw";

const MAGIC: u32 = 0xe2;
const READ: u32 = 2;
const WRITE: u32 = 1;

const fn request<T>(direction: u32, number: u32) -> u32 {
    direction << 30 | (size_of::<T>() as u32) << 16 | MAGIC << 8 | number
}

const CALL: u32 = request::<Registers>(READ | WRITE, 0);
const PAGES_ALLOC: u32 = request::<PagesRequest>(READ | WRITE, 1);
const PAGES_FREE: u32 = request::<u64>(WRITE, 2);
const SNAPSHOT: u32 = request::<Snapshot>(READ, 3);
const TOUCH: u32 = request::<Touch>(READ | WRITE, 4);
/// Shift of an allocation's id in the offset of mmap.
pub const ID_SHIFT: u32 = 32;

/// x0 to x17, before or after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Registers(pub [u64; 18]);

impl Registers {
    /// Reads the status in x0.
    pub fn status(&self) -> Status {
        match self.0[0].cast_signed() {
            0 => Ok(()),
            code => Err(Error::from_code(code).unwrap_or_else(|| panic!("unknown status {code}"))),
        }
    }
}

/// What PAGES_ALLOC takes.
#[repr(C)]
struct PagesRequest {
    order: u32,
    count: u32,
    addresses: u64,
    id: u64,
}

/// What TOUCH takes.
#[repr(C)]
struct Touch {
    id: u64,
    page: u64,
    offset: u32,
    write: u32,
    value: u64,
}

/// A register in a [`Snapshot`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Register {
    name: [u8; 24],
    value: u64,
}

impl Register {
    const NONE: Self = Self { name: [0; 24], value: 0 };
}

impl Register {
    fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(self.name.len());
        std::str::from_utf8(&self.name[..end]).unwrap_or("?")
    }
}

impl std::fmt::Debug for Register {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={:#x}", self.name(), self.value)
    }
}

/// The host's registers on one CPU.
#[repr(C)]
pub struct Snapshot {
    cpu: u32,
    count: u32,
    registers: [Register; 48],
}

/// The open device.
pub struct Raw {
    file: File,
}

/// Returns the device, opened at first use and until the process ends.
pub fn raw() -> &'static Raw {
    static RAW: OnceLock<Raw> = OnceLock::new();
    RAW.get_or_init(|| Raw::open().unwrap_or_else(|error| panic!("{PATH}: {error}")))
}

impl Raw {
    /// Opens the device.
    pub fn open() -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().read(true).write(true).open(PATH)? })
    }

    /// Makes a call with x0 to x17 as they are given.
    pub fn exchange(&self, mut registers: Registers) -> Registers {
        // SAFETY: integers only; the driver follows none of them.
        unsafe { sys::ioctl(&self.file, CALL, &mut registers) }.expect("calls have no errors");
        registers
    }

    /// Makes a call with vector registers loaded; returns them as they are afterwards.
    pub fn exchange_with_vectors(
        &self,
        registers: &mut Registers,
        vectors: &sys::VectorRegisters,
    ) -> sys::VectorRegisters {
        // SAFETY: integers only; the driver follows none of them.
        unsafe { sys::vectors_across_ioctl(&self.file, CALL, registers, vectors) }
    }

    /// Makes a call with a function and arguments from x1 on; the rest is 0.
    pub fn call(&self, function: u32, arguments: &[u64]) -> Registers {
        let mut registers = Registers([0; 18]);
        registers.0[0] = function.into();
        registers.0[1..=arguments.len()].copy_from_slice(arguments);
        self.exchange(registers)
    }

    /// Makes a call and returns x1, or the error.
    pub fn value(&self, function: u32, arguments: &[u64]) -> Status<u64> {
        let registers = self.call(function, arguments);
        registers.status().map(|()| registers.0[1])
    }

    /// Allocates `count` chunks of 2^`order` pages: an id and the address of each chunk.
    pub fn allocate(&self, order: u32, count: u32) -> io::Result<(u64, Vec<u64>)> {
        let mut addresses = vec![0u64; count as usize];
        let pointer = addresses.as_mut_ptr().expose_provenance() as u64;
        let mut request = PagesRequest { order, count, addresses: pointer, id: 0 };
        // SAFETY: integers only; the driver stores `count` of them at `addresses`, which has as many.
        unsafe { sys::ioctl(&self.file, PAGES_ALLOC, &mut request)? };
        Ok((request.id, addresses))
    }

    /// Frees an allocation.
    pub fn free(&self, mut id: u64) -> io::Result<()> {
        // SAFETY: an integer.
        unsafe { sys::ioctl(&self.file, PAGES_FREE, &mut id) }
    }

    /// Reads a doubleword of an allocation by the kernel's own map, or writes one. An error if that faults.
    pub fn touch(&self, id: u64, page: usize, word: usize, value: Option<u64>) -> io::Result<u64> {
        let (write, value) = (value.is_some().into(), value.unwrap_or(0));
        let mut touch = Touch { id, page: page as u64, offset: word as u32 * 8, write, value };
        // SAFETY: integers only; the page is one of an allocation, and whoever maps it sees it change.
        unsafe { sys::ioctl(&self.file, TOUCH, &mut touch)? };
        Ok(touch.value)
    }

    /// Maps all pages of an allocation.
    pub fn map(&self, id: u64, byte_count: usize) -> io::Result<sys::Mapping> {
        sys::Mapping::new(&self.file, id << ID_SHIFT, byte_count)
    }

    /// Reads a register of the host's by its name in the snapshot.
    pub fn register(&self, name: &str) -> Option<u64> {
        let (_, registers) = self.snapshot();
        registers.iter().find(|register| register.name() == name).map(|register| register.value)
    }

    /// Reads the host's registers on the current CPU.
    pub fn snapshot(&self) -> (u32, Vec<Register>) {
        let mut snapshot = Snapshot { cpu: 0, count: 0, registers: [Register::NONE; 48] };
        // SAFETY: integers only.
        unsafe { sys::ioctl(&self.file, SNAPSHOT, &mut snapshot) }
            .expect("snapshots have no errors");
        (snapshot.cpu, snapshot.registers[..snapshot.count as usize].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    // The numbers are those that the C header gives on arm64, worked out from its _IOWR and friends.
    #[test]
    fn requests_are_the_headers() {
        assert_eq!(CALL, 0xc090_e200);
        assert_eq!(PAGES_ALLOC, 0xc018_e201);
        assert_eq!(PAGES_FREE, 0x4008_e202);
        assert_eq!(SNAPSHOT, 0x8608_e203);
        assert_eq!(TOUCH, 0xc020_e204);
    }

    #[test]
    fn layouts_are_the_headers() {
        assert_eq!(size_of::<Registers>(), 144);
        assert_eq!(offset_of!(PagesRequest, addresses), 8);
        assert_eq!(offset_of!(PagesRequest, id), 16);
        assert_eq!(offset_of!(Register, value), 24);
        assert_eq!(offset_of!(Snapshot, registers), 8);
    }

    #[test]
    fn status_tells_errors() {
        let mut registers = Registers([0; 18]);
        assert_eq!(registers.status(), Ok(()));
        registers.0[0] = 0xffff_ffff_ffff_fffa;
        assert_eq!(registers.status(), Err(Error::Retry));
    }
}
