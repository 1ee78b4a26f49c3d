//! Writes to an Arm PL011 UART by polling.
//!
//! The host owns the same UART and programs it as it likes: the driver relies on no setting but that
//! transmitting is on, changes nothing else, and gives up on a byte rather than wait for ever.

#![allow(unsafe_code)]

use core::fmt;
use core::ptr::NonNull;

use tock_registers::interfaces::{ReadWriteable, Readable, Writeable};
use tock_registers::registers::ReadWrite;
use tock_registers::{register_bitfields, register_structs};

register_bitfields! {u32,
    /// UARTFR, the flag register (Arm DDI 0183, section 3.3.3).
    Flags [
        /// The UART is sending.
        BUSY OFFSET(3) NUMBITS(1) [],
        /// The transmit FIFO is full.
        TXFF OFFSET(5) NUMBITS(1) [],
    ],
    /// UARTCR, the control register (section 3.3.8).
    Control [
        /// The UART is on.
        UARTEN OFFSET(0) NUMBITS(1) [],
        /// Transmitting is on.
        TXE OFFSET(8) NUMBITS(1) [],
    ],
}

register_structs! {
    /// The registers that are used.
    Registers {
        (0x00 => data: ReadWrite<u32>),
        (0x04 => _reserved0),
        (0x18 => flags: ReadWrite<u32, Flags::Register>),
        (0x1c => _reserved1),
        (0x30 => control: ReadWrite<u32, Control::Register>),
        (0x34 => @END),
    }
}

/// How often a flag is read before a byte is given up: far longer than 32 bytes take at 9600 baud.
const MAX_POLLS: u32 = 1 << 22;

/// A PL011.
#[derive(Debug)]
pub struct Pl011 {
    registers: NonNull<Registers>,
    /// Whether the last byte was given up, so that the next one isn't waited for as long.
    stuck: bool,
}

// SAFETY: the registers are the same from every CPU, and `new`'s caller answers for other users.
unsafe impl Send for Pl011 {}

impl Pl011 {
    /// Size in bytes of the registers.
    pub const BYTES: usize = 0x1000;

    /// Makes a driver for the UART whose registers are mapped at `base`.
    ///
    /// # Safety
    ///
    /// For as long as the value lives, `base` is mapped for reading and writing as device memory (with
    /// the MMU off, every address is), 4-byte aligned, and followed by the registers of a PL011. Others
    /// may use the same UART; what both send is then mixed.
    pub const unsafe fn new(base: NonNull<u8>) -> Self {
        Self { registers: base.cast(), stuck: false }
    }

    fn registers(&self) -> &Registers {
        // SAFETY: `new`'s caller promised registers there for the life of `self`; they have interior
        // mutability, so a shared reference allows others to change them.
        unsafe { self.registers.as_ref() }
    }

    /// Switches transmitting on where nobody has, leaving line settings as they are.
    pub fn enable(&mut self) {
        let control = &self.registers().control;
        if !control.matches_all(Control::UARTEN::SET + Control::TXE::SET) {
            control.modify(Control::UARTEN::SET + Control::TXE::SET);
        }
    }

    /// Sends a byte, or drops it where the UART takes none.
    pub fn write_byte(&mut self, byte: u8) {
        let polls = if self.stuck { 1 } else { MAX_POLLS };
        let ready = (0..polls).any(|_| !self.registers().flags.is_set(Flags::TXFF));
        self.stuck = !ready;
        if ready {
            self.registers().data.set(byte.into());
        }
    }

    /// Waits until all bytes are on the line, or the UART seems stuck.
    pub fn flush(&mut self) {
        let sent = (0..MAX_POLLS).any(|_| !self.registers().flags.is_set(Flags::BUSY));
        self.stuck |= !sent;
    }
}

impl fmt::Write for Pl011 {
    /// Sends a text, with a carriage return before each line feed.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.write_byte(b'\r');
            }
            self.write_byte(byte);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Registers as words in memory: UARTDR is word 0, UARTFR word 6, UARTCR word 12.
    fn with_words(words: &mut [u32; 0x400], test: impl FnOnce(&mut Pl011)) {
        // SAFETY: the words are writable, aligned, as long as the registers, and outlive the driver.
        let mut uart = unsafe { Pl011::new(NonNull::from(words).cast()) };
        test(&mut uart);
    }

    #[test]
    fn sends_a_byte_when_the_fifo_has_room() {
        let mut words = [0; 0x400];
        with_words(&mut words, |uart| uart.write_byte(b'V'));
        assert_eq!(words[0], 0x56);
        assert!(words[1..].iter().all(|word| *word == 0));
    }

    #[test]
    fn gives_up_when_the_fifo_stays_full_and_recovers() {
        let mut words = [0; 0x400];
        words[6] = 1 << 5;
        with_words(&mut words, |uart| {
            uart.write_byte(b'V');
            assert!(uart.stuck);
        });
        assert_eq!(words[0], 0);
        with_words(&mut words, |uart| {
            uart.stuck = true;
            uart.registers().flags.set(0);
            uart.write_byte(b'V');
            assert!(!uart.stuck);
        });
        assert_eq!(words[0], 0x56);
    }

    #[test]
    fn enabling_keeps_the_other_bits_of_the_control_register() {
        let mut words = [0; 0x400];
        words[12] = 0xc200;
        with_words(&mut words, Pl011::enable);
        assert_eq!(words[12], 0xc301);
    }

    #[test]
    fn lines_end_with_carriage_return_and_line_feed() {
        let mut words = [0; 0x400];
        with_words(&mut words, |uart| fmt::Write::write_str(uart, "x\n").unwrap());
        assert_eq!(words[0], 0x0a);
    }
}
