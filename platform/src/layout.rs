//! Plans which memory the firmware keeps for itself.
//!
//! One range, from the start of RAM over the firmware's image to a 2 MiB boundary behind it. It is at
//! the start because the loader puts the firmware there and the host's kernel doesn't mind; it is one
//! because one hole costs the host's stage 2 the fewest tables and the device tree one edit. How long
//! it has to be depends on RAM (the ownership table counts pages), hence the function.

use core::fmt;

use verdigris_abi::Pa;

use crate::region::Region;

/// Size in bytes of the blocks that the host's stage 2 is built of next to the firmware.
pub const BLOCK_BYTES: u64 = 2 << 20;
/// A gap in front of the firmware up to this size is kept too: the host could not do much with it.
const MAX_GAP_BYTES: u64 = 32 << 20;

/// The memory that the firmware keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// All of it: 2 MiB blocks, but for a start of RAM that is none.
    pub region: Region,
    /// What lies below the image; may be empty.
    pub below: Region,
    /// What lies above the image: at least the bytes that were asked for.
    pub above: Region,
}

/// Why no memory can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// The firmware's image is not in RAM.
    OutsideMemory {
        /// Where it is.
        image: Region,
    },
    /// The RAM behind the image is too short.
    TooLittle {
        /// How many bytes are missing.
        missing_bytes: u64,
    },
}

/// Plans the memory to keep around `image`, with at least `needed_bytes(memory)` behind it.
pub fn plan(
    memory: &[Region],
    image: Region,
    needed_bytes: impl FnOnce(&[Region]) -> u64,
) -> Result<Kept, LayoutError> {
    let outside = LayoutError::OutsideMemory { image };
    let bank = *memory.iter().find(|bank| bank.contains(image)).ok_or(outside)?;
    let start = match image.start().0 - bank.start().0 {
        ..=MAX_GAP_BYTES => bank.start(),
        _ => image.start().align_down(BLOCK_BYTES),
    };
    // The host gets whole blocks of what follows: what is left of the last one is kept too.
    let end = image.end().0.saturating_add(needed_bytes(memory));
    let end = end.checked_next_multiple_of(BLOCK_BYTES).unwrap_or(u64::MAX);
    let missing_bytes = end.saturating_sub(bank.end().0);
    let too_little = LayoutError::TooLittle { missing_bytes };
    if missing_bytes != 0 {
        return Err(too_little);
    }
    let part = |from, to| Region::new(from, to).ok_or(too_little);
    Ok(Kept {
        region: part(start, Pa(end))?,
        below: part(start, image.start())?,
        above: part(image.end(), Pa(end))?,
    })
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutsideMemory { image } => {
                write!(f, "the firmware at {image} is not in RAM: load it elsewhere")
            }
            Self::TooLittle { missing_bytes } => {
                let mib = missing_bytes.div_ceil(1 << 20);
                write!(
                    f,
                    "the firmware lacks {mib} MiB of memory behind it: add RAM, or load it lower"
                )
            }
        }
    }
}

impl core::error::Error for LayoutError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(start: u64, end: u64) -> Region {
        Region::new(Pa(start), Pa(end)).unwrap()
    }

    /// QEMU `virt` with 1 GiB, and the firmware where it loads an Image.
    const IMAGE: (u64, u64) = (0x4020_0000, 0x4030_5000);

    fn plan_1g(needed_bytes: u64) -> Result<Kept, LayoutError> {
        let memory = [region(0x4000_0000, 0x8000_0000)];
        plan(&memory, region(IMAGE.0, IMAGE.1), |_| needed_bytes)
    }

    #[test]
    fn keeps_the_start_of_memory_up_to_a_block() {
        let kept = plan_1g(0x80_0000).unwrap();
        assert_eq!(kept.region, region(0x4000_0000, 0x40c0_0000));
        assert_eq!(kept.below, region(0x4000_0000, 0x4020_0000));
        assert_eq!(kept.above, region(0x4030_5000, 0x40c0_0000));
        assert!(kept.above.bytes() >= 0x80_0000);
    }

    #[test]
    fn needed_bytes_may_depend_on_memory() {
        let memory = [region(0x4000_0000, 0x8000_0000), region(0x1_0000_0000, 0x2_0000_0000)];
        let bytes = |memory: &[Region]| memory.iter().map(|bank| bank.bytes() / 4096).sum();
        let kept = plan(&memory, region(IMAGE.0, IMAGE.1), bytes).unwrap();
        // 5 GiB are 0x14_0000 pages; 0x4030_5000 + 0x14_0000 = 0x4044_5000.
        assert_eq!(kept.region, region(0x4000_0000, 0x4060_0000));
    }

    #[test]
    fn far_from_the_start_only_the_image_and_what_follows_is_kept() {
        let memory = [region(0x4000_0000, 0x8000_0000)];
        let kept = plan(&memory, region(0x7c01_0000, 0x7c10_0000), |_| 0x1000).unwrap();
        assert_eq!(kept.region, region(0x7c00_0000, 0x7c20_0000));
        assert_eq!(kept.below, region(0x7c00_0000, 0x7c01_0000));
    }

    #[test]
    fn tells_what_is_missing() {
        let error = plan_1g(0x4000_0000).unwrap_err();
        assert_eq!(error, LayoutError::TooLittle { missing_bytes: 0x40_0000 });
        assert!(std::format!("{error}").contains("lacks 4 MiB"));
        assert!(plan_1g(u64::MAX).is_err());
        let elsewhere = plan(&[region(0, 0x4000_0000)], region(IMAGE.0, IMAGE.1), |_| 0);
        assert!(matches!(elsewhere, Err(LayoutError::OutsideMemory { .. })));
    }
}
