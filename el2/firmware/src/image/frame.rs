//! What an exception entry saves of the host: the registers that a call may change or Rust clobber.

use core::mem::{offset_of, size_of};

/// Registers of the host, as `vectors.S` stores them.
#[repr(C, align(16))]
pub struct Frame {
    /// x0 to x18.
    pub x: [u64; 19],
    /// x29, the frame pointer.
    pub x29: u64,
    /// x30, the link register.
    pub x30: u64,
    /// Keeps the key on a 16-byte boundary.
    _reserved: u64,
    /// The host's key for return addresses, low and high half.
    pub key: [u64; 2],
}

/// Bytes of stack that a frame takes.
pub const SIZE: usize = size_of::<Frame>();
/// Where the key stands in it.
pub const KEY_OFFSET: usize = offset_of!(Frame, key);

const _: () = assert!(SIZE == 192 && KEY_OFFSET == 176);
const _: () = assert!(offset_of!(Frame, x29) == 152 && offset_of!(Frame, x30) == 160);
