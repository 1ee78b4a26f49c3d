//! What the firmware says of itself at boot, whatever the log level.

use verdigris_platform::{Machine, Region};

use super::{console, memory, system};

/// Prints version, features, errata, memory and CPUs.
pub fn print(machine: &Machine, kept: Region) {
    let selection = system::selection();
    let masked = selection.found.beyond(selection.used);
    console::print(format_args!(
        "verdigris {} at EL2 on {}, {} CPUs, {} MiB of RAM\n\
         verdigris: features: {}\n",
        env!("CARGO_PKG_VERSION"),
        machine.board.name,
        machine.cpus.len(),
        machine.memory_bytes() >> 20,
        selection.used,
    ));
    if !masked.is_empty() {
        console::print(format_args!("verdigris: masked:   {masked}\n"));
    }
    console::print(format_args!(
        "verdigris: errata:   {}\n\
         verdigris: memory:   keeps {} ({} KiB), {} pages free\n",
        selection.errata,
        kept,
        kept.bytes() >> 10,
        memory::pool().free_pages(),
    ));
}
