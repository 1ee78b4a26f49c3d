//! One line at a time to the board's UART, which QEMU never keeps waiting.

/// The data register of the PL011.
const UART: *mut u32 = 0x0900_0000 as *mut u32;

/// A line, ended when it is dropped.
pub struct Line;

impl Line {
    /// Begins a line.
    pub fn new(text: &str) -> Self {
        put(text);
        Self
    }

    /// Adds a name and a number.
    pub fn word(self, name: &str, value: u64) -> Self {
        put(name);
        put("0x");
        for shift in (0..16).rev() {
            let digit = (value >> (4 * shift) & 0xf) as u8;
            byte(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
        self
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        put("\r\n");
    }
}

fn put(text: &str) {
    text.bytes().for_each(byte);
}

fn byte(byte: u8) {
    // SAFETY: the data register of the UART.
    unsafe { UART.write_volatile(byte.into()) };
}
