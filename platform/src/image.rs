//! The header of an arm64 Linux kernel image (`Documentation/arch/arm64/booting.rst`).
//!
//! The file is shorter than what the kernel uses: `image_size` counts the zeroed data behind it too,
//! and what lies there when the kernel starts is overwritten. So a check of the file alone proves
//! nothing; [`ImageHeader::span_bytes`] is what must be free.

use core::fmt;

/// What the first 64 bytes of a kernel image say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Distance of the image from a 2 MiB boundary, in bytes.
    pub text_offset: u64,
    /// Memory that the kernel needs from its start on, in bytes.
    pub image_bytes: u64,
}

/// Why a file is no kernel that can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It is shorter than the header.
    TooShort,
    /// It is packed by gzip.
    Gzip,
    /// It is an EFI program that unpacks a kernel.
    CompressedEfi,
    /// It lacks the magic number.
    NoMagic,
    /// It is a big-endian kernel.
    BigEndian,
    /// It does not tell its size, as kernels before 3.17.
    NoSize,
}

impl ImageHeader {
    /// How many bytes of the file [`ImageHeader::parse`] reads.
    pub const BYTES: usize = 64;

    /// Reads the header at the start of a kernel image.
    pub fn parse(file: &[u8]) -> Result<Self, ImageError> {
        let header = file.first_chunk::<{ Self::BYTES }>().ok_or(ImageError::TooShort)?;
        if header.starts_with(&[0x1f, 0x8b]) {
            return Err(ImageError::Gzip);
        }
        if header[..8] == *b"MZ\0\0zimg" {
            return Err(ImageError::CompressedEfi);
        }
        if header[56..60] != *b"ARM\x64" {
            return Err(ImageError::NoMagic);
        }
        if header[24] & 1 != 0 {
            return Err(ImageError::BigEndian);
        }
        let image = Self { text_offset: read_u64(header, 8), image_bytes: read_u64(header, 16) };
        if image.image_bytes == 0 { Err(ImageError::NoSize) } else { Ok(image) }
    }

    /// Returns how many bytes must be free where a file of `file_bytes` bytes was loaded.
    pub fn span_bytes(&self, file_bytes: u64) -> u64 {
        self.image_bytes.max(file_bytes)
    }
}

fn read_u64(header: &[u8; ImageHeader::BYTES], offset: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&header[offset..offset + 8]);
    u64::from_le_bytes(value)
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "the kernel module is shorter than the header of an arm64 Image",
            Self::Gzip => "the kernel module is packed by gzip: unpack it before it is loaded",
            Self::CompressedEfi => {
                "the kernel module is a compressed EFI program: load the Image that is packed in it"
            }
            Self::NoMagic => {
                "the kernel module is no arm64 Image: its header lacks the magic number"
            }
            Self::BigEndian => "the kernel module is big-endian: load a little-endian one",
            Self::NoSize => "the kernel module does not tell its size: load Linux 3.17 or later",
        })
    }
}

impl core::error::Error for ImageError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as Debian's 6.12 kernel has it: an EFI stub, text_offset 0.
    fn header() -> [u8; 64] {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&[0x4d, 0x5a, 0x40, 0xfa]);
        header[16..24].copy_from_slice(&0x2b2_0000_u64.to_le_bytes());
        header[24] = 0x0a;
        header[56..60].copy_from_slice(&0x644d_5241_u32.to_le_bytes());
        header
    }

    #[test]
    fn reads_the_header_of_a_kernel() {
        let image = ImageHeader::parse(&header()).unwrap();
        assert_eq!((image.text_offset, image.image_bytes), (0, 0x2b2_0000));
        assert_eq!(image.span_bytes(0x2a1_cfc0), 0x2b2_0000);
        assert_eq!(image.span_bytes(0x300_0000), 0x300_0000);
    }

    #[test]
    fn names_what_is_wrong() {
        let broken = |offset: usize, value: &[u8]| {
            let mut header = header();
            header[offset..offset + value.len()].copy_from_slice(value);
            ImageHeader::parse(&header).unwrap_err()
        };
        assert_eq!(ImageHeader::parse(&header()[..63]), Err(ImageError::TooShort));
        assert_eq!(broken(0, &[0x1f, 0x8b]), ImageError::Gzip);
        assert_eq!(broken(0, b"MZ\0\0zimg"), ImageError::CompressedEfi);
        assert_eq!(broken(56, &[0]), ImageError::NoMagic);
        assert_eq!(broken(24, &[0x0b]), ImageError::BigEndian);
        assert_eq!(broken(16, &[0; 8]), ImageError::NoSize);
    }
}
