//! Where in memory the host's kernel and its ramdisk are loaded.
//!
//! From the bottom of RAM: the firmware and what it keeps, the device tree 128 MiB up (QEMU's
//! choice), the kernel 256 MiB up, the ramdisk after it. Fixed offsets, and not the tightest
//! packing: the same addresses on every machine make logs comparable.

use anyhow::{Result, bail, ensure};

/// Where RAM begins on QEMU's `virt` board.
pub const RAM_BASE: u64 = 0x4000_0000;
/// Where the host's kernel is loaded by the guest loader.
pub const KERNEL_ADDRESS: u64 = 0x5000_0000;
/// Alignment that the arm64 boot protocol asks of the kernel's base.
const ALIGN_BYTES: u64 = 2 << 20;
/// Offset from the base of RAM that QEMU adds when an image asks for less than a page.
const QEMU_TEXT_OFFSET_BYTES: u64 = 2 << 20;

/// The header of an arm64 Linux image (Documentation/arch/arm64/booting.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Where the image wants to be, from a 2 MiB aligned base.
    pub text_offset_bytes: u64,
    /// Memory that it takes once it runs, beyond the size of the file.
    pub image_size_bytes: u64,
}

impl ImageHeader {
    /// Size of the header.
    pub const BYTES: usize = 64;

    /// Reads the header of an image; fails where the magic number is missing.
    pub fn parse(image: &[u8]) -> Result<Self> {
        ensure!(image.len() >= Self::BYTES, "the image is shorter than its header");
        ensure!(&image[56..60] == b"ARM\x64", "no arm64 image: its magic number is missing");
        let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("8 bytes"));
        Ok(Self { text_offset_bytes: word(8), image_size_bytes: word(16) })
    }

    /// Returns the address at which QEMU's `-kernel` loads the image.
    pub fn load_address(self) -> u64 {
        let offset = self.text_offset_bytes;
        RAM_BASE + if offset < 4096 { offset + QEMU_TEXT_OFFSET_BYTES } else { offset }
    }
}

/// Chooses the address of the ramdisk; fails where kernel and ramdisk do not fit in memory.
pub fn ramdisk_address(memory_bytes: u64, kernel: ImageHeader, ramdisk_bytes: u64) -> Result<u64> {
    let after = KERNEL_ADDRESS + kernel.text_offset_bytes + kernel.image_size_bytes;
    let address = after.next_multiple_of(ALIGN_BYTES) + ALIGN_BYTES;
    // The kernel also needs room to run in.
    let end = address + ramdisk_bytes.next_multiple_of(ALIGN_BYTES) + (64 << 20);
    let needed = end - RAM_BASE;
    if needed > memory_bytes {
        bail!(
            "{} MiB of memory are too few: this host needs {} MiB",
            memory_bytes >> 20,
            needed >> 20
        );
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text_offset: u64, image_size: u64) -> Vec<u8> {
        let mut image = vec![0; 64];
        image[8..16].copy_from_slice(&text_offset.to_le_bytes());
        image[16..24].copy_from_slice(&image_size.to_le_bytes());
        image[56..60].copy_from_slice(&0x644d_5241_u32.to_le_bytes());
        image
    }

    #[test]
    fn header_is_read_and_checked() {
        let parsed = ImageHeader::parse(&header(0x8_0000, 0x2b2_0000)).unwrap();
        assert_eq!(
            parsed,
            ImageHeader { text_offset_bytes: 0x8_0000, image_size_bytes: 0x2b2_0000 }
        );
        let mut wrong = header(0, 0);
        wrong[56] = 0;
        assert!(ImageHeader::parse(&wrong).is_err());
        assert!(ImageHeader::parse(&wrong[..63]).is_err());
    }

    #[test]
    fn small_text_offset_becomes_two_mebibytes_more() {
        let at = |offset| ImageHeader::parse(&header(offset, 4096)).unwrap().load_address();
        assert_eq!(at(0), 0x4020_0000);
        assert_eq!(at(0x1000), 0x4000_1000);
        assert_eq!(at(0x8_0000), 0x4008_0000);
    }

    #[test]
    fn ramdisk_stands_behind_the_running_kernel() {
        let kernel = ImageHeader { text_offset_bytes: 0, image_size_bytes: 0x2b2_0000 };
        assert_eq!(ramdisk_address(1 << 30, kernel, 8 << 20).unwrap(), 0x52e0_0000);
        let refused = ramdisk_address(256 << 20, kernel, 8 << 20).unwrap_err().to_string();
        assert!(refused.contains("256 MiB of memory are too few"), "{refused}");
    }
}
