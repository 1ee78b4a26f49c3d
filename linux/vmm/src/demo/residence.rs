//! Where this process's pages are (Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::PAGE_BYTES;

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: nobody has used it.
    Nowhere,
    /// In memory.
    Memory,
    /// In swap.
    Swap,
}

/// Asks for the pages of a range of addresses.
pub fn pages(memory: &Range<u64>) -> Result<Vec<Place>> {
    const ENTRY_BYTES: usize = 8;
    let page_count = (memory.end - memory.start) as usize / PAGE_BYTES;
    let mut bytes = vec![0; page_count * ENTRY_BYTES];
    let offset = memory.start / PAGE_BYTES as u64 * ENTRY_BYTES as u64;
    let file = File::open("/proc/self/pagemap").context("no pagemap")?;
    file.read_exact_at(&mut bytes, offset).context("the pagemap can't be read")?;
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
    Ok(bytes.chunks_exact(ENTRY_BYTES).map(|bytes| place(word(bytes))).collect())
}

/// Decodes an entry: bit 63 is set for a page in memory, bit 62 for one in swap.
fn place(entry: u64) -> Place {
    match entry >> 62 {
        0 => Place::Nowhere,
        1 => Place::Swap,
        _ => Place::Memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_tell_where_a_page_is() {
        assert_eq!(place(0x0080_0000_0000_0000), Place::Nowhere);
        assert_eq!(place(0x4080_0000_0000_1234), Place::Swap);
        assert_eq!(place(0x8180_0000_0004_1234), Place::Memory);
    }
}
