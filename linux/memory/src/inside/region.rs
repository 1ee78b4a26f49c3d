//! Host memory that backs guests, of any kind, and what Linux can be asked to do to it.
//!
//! A guest writes it at any moment, and tests take it away on purpose: so it is never lent as a Rust reference,
//! and all access is volatile.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{Error, Result};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

use super::sys::{self, BLOCK, PAGE, check};

/// Host memory, from a boundary of blocks.
pub struct Region {
    start: usize,
    bytes: usize,
    kind: Kind,
    file: Option<File>,
}

/// What a region is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Private anonymous memory in pages.
    Pages,
    /// Private anonymous memory that may be huge.
    Blocks,
    /// A shared file in memory.
    Shared,
    /// Huge pages set aside before.
    Huge,
}

/// All kinds that need nothing set aside.
pub const KINDS: [Kind; 3] = [Kind::Pages, Kind::Blocks, Kind::Shared];

/// Reserves addresses on a boundary of blocks, of which nobody else is given any.
fn reserve(bytes: usize) -> Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the kernel chooses an unused address.
    let start =
        unsafe { libc::mmap(ptr::null_mut(), bytes + BLOCK, libc::PROT_NONE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    Ok((start as usize).next_multiple_of(BLOCK))
}

impl Region {
    /// Makes a region.
    pub fn new(kind: Kind, bytes: usize) -> Result<Self> {
        assert!(bytes.is_multiple_of(PAGE));
        let file = match kind {
            Kind::Pages | Kind::Blocks => None,
            Kind::Shared | Kind::Huge => Some(sys::memfd(kind == Kind::Huge)?),
        };
        if let Some(file) = &file {
            file.set_len(bytes as u64)?;
        }
        let region = Self { start: reserve(bytes)?, bytes, kind, file };
        region.map(0..bytes)?;
        Ok(region)
    }

    /// Makes a second view of a shared region.
    pub fn alias(&self) -> Result<Self> {
        let file = self.file.as_ref().expect("a shared region").try_clone()?;
        let (start, bytes, kind) = (reserve(self.bytes)?, self.bytes, self.kind);
        let region = Self { start, bytes, kind, file: Some(file) };
        region.map(0..self.bytes)?;
        Ok(region)
    }

    /// Maps what a part consists of, to be huge or not as its kind wants it; what was mapped there is gone.
    pub fn map(&self, part: Range<usize>) -> Result<()> {
        let start = self.at(&part) as *mut libc::c_void;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let (kind, fd) = match &self.file {
            Some(file) => (libc::MAP_SHARED, file.as_raw_fd()),
            None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1),
        };
        let (flags, offset) = (kind | libc::MAP_FIXED, part.start as i64);
        // SAFETY: the addresses are this region's own, and no reference into them exists.
        let mapped = unsafe { libc::mmap(start, part.len(), protection, flags, fd, offset) };
        if mapped == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        match self.kind {
            Kind::Pages => self.advise(part, libc::MADV_NOHUGEPAGE),
            Kind::Blocks => self.advise(part, libc::MADV_HUGEPAGE),
            Kind::Shared | Kind::Huge => Ok(()),
        }
    }

    /// Unmaps a part. The addresses stay this region's own only until somebody else maps something: put it
    /// back by [`Region::map`] before anything allocates.
    pub fn unmap(&self, part: Range<usize>) -> Result<()> {
        // SAFETY: the addresses are this region's own, and no reference into them exists.
        check(unsafe { libc::munmap(self.at(&part) as *mut _, part.len()) }.into()).map(|_| ())
    }

    /// Moves the pages of one part to another, whose own are gone; what is moved leaves a hole behind, which
    /// is closed at once by new memory.
    pub fn move_pages(&self, from: Range<usize>, to: usize) -> Result<()> {
        let bytes = from.len();
        let target = self.at(&(to..to + bytes)) as *mut libc::c_void;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
        // SAFETY: both parts are this region's own, and no reference into them exists.
        let moved = unsafe { libc::mremap(self.at(&from) as *mut _, bytes, bytes, flags, target) };
        if moved == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(()) }
    }

    /// Changes what may be done to a part.
    pub fn protect(&self, part: Range<usize>, protection: i32) -> Result<()> {
        // SAFETY: as in `unmap`; an access that is denied ends the process, or the run of a vCPU.
        check(unsafe { libc::mprotect(self.at(&part) as *mut _, part.len(), protection) }.into())
            .map(|_| ())
    }

    /// Asks for something by madvise.
    pub fn advise(&self, part: Range<usize>, advice: i32) -> Result<()> {
        // SAFETY: whatever becomes of the content, only volatile accesses see it.
        check(unsafe { libc::madvise(self.at(&part) as *mut _, part.len(), advice) }.into())
            .map(|_| ())
    }

    /// Keeps all of it in memory.
    pub fn lock(&self) -> Result<()> {
        // SAFETY: numbers only.
        check(unsafe { libc::mlock(self.start as *const _, self.bytes) }.into()).map(|_| ())
    }

    /// Cuts a hole into the file behind it.
    pub fn punch(&self, part: Range<usize>) -> Result<()> {
        self.at(&part);
        sys::punch_hole(self.file.as_ref().expect("a shared region"), part.start, part.len())
    }

    /// Returns the file behind it.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// Returns its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many pages it has.
    pub fn pages(&self) -> usize {
        self.bytes / PAGE
    }

    /// Returns all of it as a part.
    pub fn all(&self) -> Range<usize> {
        0..self.bytes
    }

    /// Returns the address of a byte.
    pub fn address(&self, offset: usize) -> usize {
        self.start + offset
    }

    fn at(&self, part: &Range<usize>) -> usize {
        assert!(part.start <= part.end && part.end <= self.bytes, "{part:x?} is outside");
        self.start + part.start
    }

    fn word(&self, offset: usize) -> *mut u64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.bytes);
        (self.start + offset) as *mut u64
    }

    /// Reads a doubleword.
    pub fn read(&self, offset: usize) -> u64 {
        // SAFETY: aligned and inside of the mapping, which lives as long as self.
        unsafe { self.word(offset).read_volatile() }
    }

    /// Writes a doubleword.
    pub fn write(&self, offset: usize, value: u64) {
        // SAFETY: as in `read`; no Rust object lies there.
        unsafe { self.word(offset).write_volatile(value) }
    }

    /// Writes bytes, padded to doublewords.
    pub fn store(&self, offset: usize, bytes: &[u8]) {
        for (index, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write(offset + index * 8, u64::from_le_bytes(word));
        }
    }

    /// Reads a page.
    pub fn page(&self, page: usize) -> Vec<u64> {
        (0..PAGE / 8).map(|word| self.read(page * PAGE + word * 8)).collect()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the addresses are this object's, and no pointer into them was handed out. (Tests close the
        // holes that they cut.)
        unsafe { libc::munmap(self.start as *mut _, self.bytes) };
    }
}
