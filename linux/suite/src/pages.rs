//! Pages of the host's whose addresses we know: what is mapped for guests, and donated.

use verdigris_abi::PAGE_SIZE;

use crate::raw::raw;
use crate::sys::Mapping;

/// Bytes of a page, as an index.
pub const PAGE: usize = PAGE_SIZE as usize;

/// An allocation of pages: chunks that are contiguous and naturally aligned each.
pub struct Pages {
    id: u64,
    order: u32,
    chunks: Vec<u64>,
    mapping: Option<Mapping>,
}

impl Pages {
    /// Allocates zeroed single pages.
    pub fn single(count: usize) -> Self {
        Self::chunks(0, count)
    }

    /// Allocates `count` chunks of 2^`order` zeroed pages.
    pub fn chunks(order: u32, count: usize) -> Self {
        let count = u32::try_from(count).expect("a sensible number");
        let (id, chunks) = raw().allocate(order, count).expect("enough memory for the test");
        let byte_count = (count as usize) << order << 12;
        let mapping = Some(raw().map(id, byte_count).expect("pages can be mapped"));
        Self { id, order, chunks, mapping }
    }

    /// Returns the number of pages.
    pub fn count(&self) -> usize {
        self.chunks.len() << self.order
    }

    /// Returns the physical address of a page.
    pub fn address(&self, page: usize) -> u64 {
        let within = page & ((1 << self.order) - 1);
        self.chunks[page >> self.order] + (within * PAGE) as u64
    }

    /// Returns the address of each chunk and its number of pages.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, usize)> {
        self.chunks.iter().map(|&address| (address, 1 << self.order))
    }

    /// Returns physical addresses of all pages.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        (0..self.count()).map(|page| self.address(page))
    }

    fn mapping(&self) -> &Mapping {
        self.mapping.as_ref().expect("mapped until it is dropped")
    }

    /// Reads a doubleword; `word` is its index in the page.
    pub fn read(&self, page: usize, word: usize) -> u64 {
        self.mapping().read(page * PAGE + word * 8)
    }

    /// Writes a doubleword; `word` is its index in the page.
    pub fn write(&self, page: usize, word: usize, value: u64) {
        self.mapping().write(page * PAGE + word * 8, value);
    }

    /// Adds to a doubleword in one step.
    pub fn add(&self, page: usize, word: usize, value: u64) {
        self.mapping().add(page * PAGE + word * 8, value);
    }

    /// Reads a doubleword as the kernel does, or writes one.
    pub fn by_kernel(&self, page: usize, word: usize, value: Option<u64>) -> std::io::Result<u64> {
        raw().touch(self.id, page, word, value)
    }

    /// Has the kernel copy the first bytes of a file here, as for a `read` of a process.
    pub fn read_from(&self, page: usize, file: &std::fs::File) -> std::io::Result<usize> {
        self.mapping().read_from(page * PAGE, 8, file)
    }

    /// Copies bytes into the pages, from the first on.
    pub fn copy_from(&self, bytes: &[u8]) {
        for (index, word) in bytes.chunks(8).enumerate() {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.mapping().write(index * 8, u64::from_le_bytes(padded));
        }
    }

    /// Tells whether every byte of a page is zero.
    pub fn is_zero(&self, page: usize) -> bool {
        (0..PAGE / 8).all(|word| self.read(page, word) == 0)
    }

    /// Frees the pages now; fails while a VM uses one.
    pub fn free(mut self) -> std::io::Result<()> {
        self.mapping = None;
        let result = raw().free(self.id);
        self.id = 0;
        result
    }
}

impl Drop for Pages {
    /// Frees the pages if nobody uses them. Else they stay until the process ends, and the driver sees to them.
    fn drop(&mut self) {
        self.mapping = None;
        if self.id != 0 {
            _ = raw().free(self.id);
        }
    }
}
