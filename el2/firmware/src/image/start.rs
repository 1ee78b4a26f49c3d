//! The boot flow in Rust: from a device tree to a running host. See *Boot* in ARCHITECTURE.md.
//!
//! Whatever is wrong with what the loader left ends in one sentence on the console that says what to
//! change, and a machine that stops: nothing has been started by then.
#![allow(unsafe_code)]

use core::fmt::Display;
use core::slice;

use log::{LevelFilter, error, info, warn};
use verdigris_abi::Pa;
use verdigris_core::cpu::{self, IdRegisters};
use verdigris_core::options::{LogLevel, Options};

use verdigris_platform::layout::{self, Kept};
use verdigris_platform::tree::declared_bytes;
use verdigris_platform::{BOARDS, ImageHeader, Machine, Region, host_tree, placement};

use super::percpu::PerCpu;
use super::recover::try_read;
use super::{
    banner, cache, console, crash, host, identify, memory, mmu, percpu, power, room, system, vmids,
};

/// How much of the device tree must be readable to learn its size.
const TREE_HEADER_BYTES: u64 = 64;

/// Continues after `boot.S`, on the boot CPU's stack, with the image mapped and nothing else.
pub extern "C" fn main(tree_address: u64) -> ! {
    let boot = percpu::this();
    boot.stack_top.set(verdigris_linker::boot_stack_top());
    boot.crash_stack_top.set(verdigris_linker::crash_stack_top());
    boot.affinity.set(power::own_affinity());
    // Until the tree says otherwise, errors go to the UART of the first board.
    expect("the console", console::open(BOARDS[0].uart));
    console::set_level(LevelFilter::Warn);

    let tree = tree_bytes(tree_address);
    let machine = expect("the device tree", verdigris_platform::parse(tree));
    expect("the console", console::open(machine.uart));
    let options = apply_options(&machine);
    if try_read!("s2_0_c7_c14_6").is_some_and(cpu::lets_el2_be_halted) {
        warn!(
            "debug authentication is on: the host can halt CPUs inside EL2 (DBGAUTHSTATUS_EL1.NSID)"
        );
    }
    let id = identify::this_cpu();
    expect("this CPU", system::init(&id, &options));
    admit(boot, id);

    room::plan(&machine, options.hot_gib);
    let kept = plan(&machine);
    let host_parts = check_placement(&machine, kept.region, tree_address, tree.len() as u64);
    map_memory(&machine);
    expect("memory", memory::init(&machine, kept));
    expect("the CPUs", power::init(&machine, boot));
    vmids::init();
    host::init(&machine, kept.region);
    host::prepare_cpu(boot);
    edit_tree(&machine, &kept, tree_address, tree.len());
    banner::print(&machine, kept.region);
    host::enter(host_parts.kernel.start().0, host_parts.tree.start().0)
}

/// Continues after `boot.S` on a CPU that the host asked for.
pub extern "C" fn secondary_main(percpu: &PerCpu) -> ! {
    if percpu.cpu.get().is_none() {
        admit(percpu, identify::this_cpu());
    }
    host::prepare_cpu(percpu);
    let start = power::arrived(percpu);
    host::enter(start.entry.0, start.context)
}

/// Lets this CPU run beside the others, or switches it off: the boot CPU always passes.
fn admit(percpu: &PerCpu, id: IdRegisters) {
    match system::admit(id) {
        Ok(cpu) => {
            percpu.parts.set(cpu.parts);
            percpu.cpu.call_once(|| cpu);
        }
        Err(refusal) => power::refuse(percpu, refusal),
    }
}

/// Ends the boot with a reason.
fn fail(what: &str, reason: impl Display) -> ! {
    error!("{what}: {reason}");
    error!("the host was not started; the machine stops");
    crash::stop_quietly()
}

/// Unwraps a step of the boot, or ends it with the reason.
pub fn expect<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(reason) => fail(what, reason),
    }
}

/// Maps the device tree and returns it, up to the size that its header declares.
fn tree_bytes(address: u64) -> &'static [u8] {
    if address == 0 || !address.is_multiple_of(8) {
        fail(
            "the device tree",
            format_args!("x0 was {address:#x}: start the raw Image, not an ELF"),
        );
    }
    let mapped = mmu::map_identity(address, TREE_HEADER_BYTES, mmu::DATA);
    expect("the device tree", mapped);
    // SAFETY: just mapped; the loader left it to whoever runs first, and no other CPU runs.
    let header = unsafe { slice::from_raw_parts(address as *const u8, TREE_HEADER_BYTES as usize) };
    let bytes = expect("the device tree", declared_bytes(header));
    let mapped = mmu::map_identity(address, bytes as u64, mmu::DATA);
    expect("the device tree", mapped);
    // SAFETY: as above, for the size that the loader declared.
    unsafe { slice::from_raw_parts(address as *const u8, bytes) }
}

fn apply_options(machine: &Machine) -> Options {
    let options = Options::parse(&machine.command_line, |problem| warn!("{problem}"));
    console::set_level(match options.log {
        LogLevel::Off => LevelFilter::Off,
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    });
    crash::set_action(options.crash);
    options
}

/// Decides which memory the firmware keeps.
fn plan(machine: &Machine) -> Kept {
    let image = region(verdigris_linker::image_start(), verdigris_linker::image_end());
    let needed =
        |memory: &[Region]| memory::needed_bytes(memory, room::region(), machine.cpus.len());
    expect("memory", layout::plan(&machine.memory, image, needed))
}

/// Checks where the loader put the host's parts.
fn check_placement(machine: &Machine, kept: Region, tree: u64, bytes: u64) -> placement::Host {
    let Some(kernel) = machine.kernel else {
        fail("the host", placement::PlacementError::NoKernel)
    };
    let header = region(kernel.start().0, kernel.start().0 + ImageHeader::BYTES as u64);
    let outside =
        placement::PlacementError::OutsideMemory { part: placement::Part::Kernel, at: kernel };
    if !machine.is_memory(header) || header.overlaps(kept) {
        fail("the host", outside);
    }
    let mapped = mmu::map_identity(header.start().0, header.bytes(), mmu::DATA);
    expect("the host", mapped);
    // SAFETY: RAM, just mapped, that the loader filled; nobody else runs.
    let bytes_of_header =
        unsafe { slice::from_raw_parts(header.start().0 as *const u8, ImageHeader::BYTES) };
    let image = expect("the host", ImageHeader::parse(bytes_of_header));
    let tree = region(tree, tree + bytes);
    expect("the host", placement::check(machine, kept, tree, &image))
}

/// Maps all RAM at EL2, but for the image, which has its own rights, and what may not be mapped.
fn map_memory(machine: &Machine) {
    let image = region(verdigris_linker::image_start(), verdigris_linker::image_end());
    let no_map = machine.reserved.iter().filter(|reserved| reserved.no_map);
    for &bank in machine.memory.iter() {
        bank.for_each_outside(no_map.clone().map(|r| r.region).chain([image]), |part| {
            let mapped = mmu::map_identity(part.start().0, part.bytes(), mmu::DATA);
            expect("memory", mapped);
        });
    }
}

/// Edits the device tree in place into the one that the host sees.
fn edit_tree(machine: &Machine, kept: &Kept, address: u64, bytes: usize) {
    // SAFETY: the tree is mapped writable; the earlier view of it is not used any more.
    let tree = unsafe { slice::from_raw_parts_mut(address as *mut u8, bytes) };
    expect("the host's device tree", host_tree::edit(tree, machine, kept.region));
    // A host may read it with its caches off.
    cache::clean(Pa(address), bytes as u64);
    info!("device tree edited at {address:#x}");
}

fn region(start: u64, end: u64) -> Region {
    Region::new(Pa(start), Pa(end)).expect("symbols and sizes are in order")
}
