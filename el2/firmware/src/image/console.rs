//! The log: levels, one line a record, to the board's UART.
//!
//! The host uses the same UART, so what both write can mix within a line; that is the price of a
//! machine with one. Each record is formatted under the lock and starts with the firmware's name.
#![allow(unsafe_code)]

use core::fmt::{self, Write};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use spin::mutex::TicketMutex;
use verdigris_abi::Pa;
use verdigris_platform::pl011::Pl011;

use super::mmu::{self, MapError};

static CONSOLE: TicketMutex<Option<Pl011>> = TicketMutex::new(None);
/// The UART's address, for whoever can't wait for the lock.
static BASE: AtomicU64 = AtomicU64::new(0);

/// Opens the UART at a physical address. Can be called again with another one.
pub fn open(base: Pa) -> Result<(), MapError> {
    if BASE.load(Ordering::Relaxed) == base.0 {
        return Ok(());
    }
    mmu::map_identity(base.0, Pl011::BYTES as u64, mmu::DEVICE)?;
    BASE.store(base.0, Ordering::Relaxed);
    let mut uart = uart_at(base.0).expect("no UART is at address 0");
    uart.enable();
    *CONSOLE.lock() = Some(uart);
    Ok(())
}

/// Starts logging at a level.
pub fn set_level(level: LevelFilter) {
    static LOGGER: Logger = Logger;
    // Fails only if a logger is set already, and that is this one.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

fn uart_at(base: u64) -> Option<Pl011> {
    // SAFETY: `open` mapped the registers as device memory before it published the address; the host
    // shares the UART, which the driver allows.
    NonNull::new(base as *mut u8).map(|base| unsafe { Pl011::new(base) })
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str();
            print(format_args!("verdigris: {level}: {}\n", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Writes a text whatever the level: the banner, and errors that end the boot.
pub fn print(text: fmt::Arguments) {
    if let Some(uart) = CONSOLE.lock().as_mut() {
        let _ = uart.write_fmt(text);
    }
}

/// A console without lock, for the report of a crash.
pub struct Unlocked(Option<Pl011>);

/// Opens the console past its lock: whoever holds it may be what failed.
pub fn unlocked() -> Unlocked {
    Unlocked(uart_at(BASE.load(Ordering::Relaxed)))
}

impl Write for Unlocked {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.as_mut().map_or(Ok(()), |uart| uart.write_str(text))
    }
}
