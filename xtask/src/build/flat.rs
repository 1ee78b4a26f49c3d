//! Makes the flat image that loaders take out of an ELF file that is linked from address 0.

use anyhow::{Result, bail, ensure};
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// Lays out the loadable segments by their physical address; what no segment fills is zero.
///
/// Zero-initialised memory at the end is left out: the image says itself how much memory it takes.
pub fn flatten(elf: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(elf)?;
    let endian = header.endian()?;
    ensure!(endian == Endianness::Little, "the ELF file is not little-endian");
    let mut image = Vec::new();
    for segment in header.program_headers(endian, elf)? {
        if segment.p_type(endian) != PT_LOAD || segment.p_filesz(endian) == 0 {
            continue;
        }
        let start = usize::try_from(segment.p_paddr(endian))?;
        let Ok(data) = segment.data(endian, elf) else { bail!("a segment reaches past the file") };
        ensure!(start < 1 << 30, "a segment is linked at {start:#x}, not from address 0");
        let end = start + data.len();
        image.resize(image.len().max(end), 0);
        image[start..end].copy_from_slice(data);
    }
    ensure!(!image.is_empty(), "the ELF file has nothing to load");
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes an ELF file by the layout of the System V ABI: header, program headers, data.
    fn elf(segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
        file.extend([0u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
        file.extend([0, 0, 0, 0, 64, 0, 56, 0, segments.len() as u8, 0, 64, 0, 0, 0, 0, 0]);
        let mut offset = 64 + 56 * segments.len() as u64;
        for (address, data, memory_bytes) in segments {
            file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
            let words = [offset, 0xffff_0000, *address, data.len() as u64, *memory_bytes, 8];
            file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
            offset += data.len() as u64;
        }
        file.extend(segments.iter().flat_map(|(_, data, _)| *data));
        file
    }

    #[test]
    fn segments_go_to_their_physical_addresses() {
        let file = elf(&[(8, b"late", 4), (0, b"head", 4), (64, b"", 4096)]);
        assert_eq!(flatten(&file).unwrap(), b"head\0\0\0\0late");
    }

    #[test]
    fn what_is_linked_elsewhere_is_refused() {
        assert!(flatten(&elf(&[(0x4020_0000, b"x", 1)])).is_err());
        assert!(flatten(&elf(&[])).is_err());
        assert!(flatten(b"no ELF file at all").is_err());
    }
}
