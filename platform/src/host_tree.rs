//! Turns the machine's device tree into the one that the host sees.
//!
//! The host is an unmodified Linux, so whatever it may not use has to be gone from its tree: memory
//! that the firmware keeps, the virtual timer, which belongs to the guests, and the debug registers of CPUs. What the loader left
//! for the firmware (modules, and its own command line) is replaced by what it left for the host.
//! Everything else stays: PSCI, whose calls the firmware intercepts, and the seeds of `/chosen`.
//!
//! What is removed makes room first, so a tree without any slack can be edited if it held modules.

use crate::list::{List, Text};
use crate::machine::{MAX_REGIONS, Machine};
use crate::region::Region;
pub use crate::tree::edit::EditError;
use crate::tree::edit::{Editor, NodeAt};
use crate::tree::{Cells, DEBUG, Error, KERNEL, RAMDISK};

/// Longest command line of the host, in bytes: what arm64 Linux accepts.
pub const MAX_HOST_COMMAND_LINE_BYTES: usize = 2047;

/// Most modules, of any kind, that are taken out.
const MAX_MODULES: usize = 16;

type CommandLine = Text<MAX_HOST_COMMAND_LINE_BYTES>;

/// Edits a tree for the host, in place; `machine` was read from it.
///
/// `dtb` may be longer than the tree, which then may grow. On an error the tree is half edited.
pub fn edit(dtb: &mut [u8], machine: &Machine, kept: Region) -> Result<(), EditError> {
    let mut editor = Editor::new(dtb)?;
    hide_memory(&mut editor, kept)?;
    hide_virtual_timer(&mut editor, machine.gic.interrupt_cells)?;
    hide_debug_frames(&mut editor)?;
    edit_chosen(&mut editor, machine.ramdisk)
}

/// Takes out the debug registers of CPUs, which the host's stage 2 leaves out: its driver would meet an abort.
fn hide_debug_frames(editor: &mut Editor<'_>) -> Result<(), EditError> {
    let is_frame = |editor: &Editor<'_>, node| {
        for kind in DEBUG {
            if editor.has_string(node, "compatible", kind)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    while let Some(node) = editor.find(editor.root()?, |node| is_frame(editor, node))? {
        editor.remove_node(node)?;
    }
    Ok(())
}

fn chosen(editor: &Editor<'_>) -> Result<NodeAt, EditError> {
    editor.find_top("chosen")?.ok_or(EditError::Tree(Error::Missing("/chosen")))
}

fn edit_chosen(editor: &mut Editor<'_>, ramdisk: Option<Region>) -> Result<(), EditError> {
    let command_line = host_command_line(editor)?;
    remove_modules(editor)?;
    for name in ["bootargs", "linux,initrd-start", "linux,initrd-end"] {
        editor.remove_property(chosen(editor)?, name)?;
    }
    if let Some(ramdisk) = ramdisk {
        let (start, end) = (ramdisk.start().0.to_be_bytes(), ramdisk.end().0.to_be_bytes());
        editor.set_property(chosen(editor)?, "linux,initrd-end", &end)?;
        editor.set_property(chosen(editor)?, "linux,initrd-start", &start)?;
    }
    editor.set_string(chosen(editor)?, "bootargs", &command_line)
}

fn remove_modules(editor: &mut Editor<'_>) -> Result<(), EditError> {
    for _ in 0..=MAX_MODULES {
        match find_module(editor, &["multiboot,module", KERNEL, RAMDISK])? {
            Some(module) => editor.remove_node(module)?,
            None => return Ok(()),
        }
    }
    Err(Error::TooMany { what: "modules in /chosen", limit: MAX_MODULES }.into())
}

fn find_module(editor: &Editor<'_>, kinds: &[&str]) -> Result<Option<NodeAt>, EditError> {
    editor.find_child(chosen(editor)?, |child| {
        for kind in kinds {
            if editor.has_string(child, "compatible", kind)? {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// Reads the command line that the kernel's module brought.
fn host_command_line(editor: &Editor<'_>) -> Result<CommandLine, EditError> {
    let Some(module) = find_module(editor, &[KERNEL])? else { return Ok(Text::default()) };
    let value = editor.property(module, "bootargs")?.unwrap_or_default();
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let invalid = Error::Invalid("bootargs of the kernel module");
    let text = core::str::from_utf8(text).map_err(|_| invalid)?;
    let too_long = Error::TooMany {
        what: "bytes in the host's command line",
        limit: MAX_HOST_COMMAND_LINE_BYTES,
    };
    Ok(Text::new(text).map_err(|_| too_long)?)
}

/// Takes the memory that the firmware keeps out of every memory node.
fn hide_memory(editor: &mut Editor<'_>, kept: Region) -> Result<(), EditError> {
    let root = editor.root()?;
    let cells = Cells {
        address: cell(editor, root, "#address-cells")?.unwrap_or(2),
        size: cell(editor, root, "#size-cells")?.unwrap_or(1),
    };
    for _ in 0..=MAX_REGIONS {
        let Some((node, reg)) = find_memory_to_edit(editor, cells, kept)? else { return Ok(()) };
        let left = without(&reg, kept)?;
        if left.is_empty() {
            editor.remove_node(node)?;
            continue;
        }
        let mut value = [0; MAX_REGIONS * 16];
        let mut bytes = 0;
        for region in left.iter() {
            bytes += cells.write_entry(&mut value[bytes..], *region);
        }
        editor.set_property(node, "reg", &value[..bytes])?;
    }
    Err(too_many())
}

type Regions = List<Region, MAX_REGIONS>;

/// Finds a memory node that still has memory that the firmware keeps.
fn find_memory_to_edit(
    editor: &Editor<'_>,
    cells: Cells,
    kept: Region,
) -> Result<Option<(NodeAt, Regions)>, EditError> {
    let mut found = None;
    editor.find_child(editor.root()?, |node| {
        if !editor.has_string(node, "device_type", "memory")? {
            return Ok(false);
        }
        let reg = editor.property(node, "reg")?.unwrap_or_default();
        let mut regions = List::default();
        for region in cells.regions(reg, "reg of a memory node")? {
            regions.push(region?).map_err(|_| too_many())?;
        }
        let edit = regions.iter().any(|region| region.overlaps(kept));
        found = edit.then_some((node, regions));
        Ok(edit)
    })?;
    Ok(found)
}

fn without(regions: &[Region], kept: Region) -> Result<Regions, EditError> {
    let mut left = List::default();
    for part in regions.iter().flat_map(|region| region.without(kept)).flatten() {
        left.push(part).map_err(|_| too_many())?;
    }
    Ok(left)
}

fn too_many() -> EditError {
    Error::TooMany { what: "ranges in a memory node", limit: MAX_REGIONS }.into()
}

/// Leaves of the timer's interrupts those of the EL1 physical timer.
///
/// Linux uses the virtual timer if it finds one, and else, from EL1, the physical one. Without names
/// the order is the binding's: secure, non-secure, virtual, EL2.
fn hide_virtual_timer(editor: &mut Editor<'_>, cells: usize) -> Result<(), EditError> {
    let missing = EditError::Tree(Error::Missing("timer (arm,armv8-timer)"));
    let timer = |editor: &Editor<'_>| {
        let is_timer = |node| editor.has_string(node, "compatible", "arm,armv8-timer");
        editor.find(editor.root()?, is_timer)?.ok_or(missing)
    };
    let node = timer(editor)?;
    let invalid = EditError::Tree(Error::Invalid("interrupts of the timer"));
    let interrupts = editor.property(node, "interrupts")?.unwrap_or_default();
    let names = editor.property(node, "interrupt-names")?;
    let keep = match names {
        None => [Some(0), Some(1)],
        Some(names) => ["sec-phys", "phys"].map(|name| position(names, name)),
    };
    let mut value = [0; 2 * 8 * 4];
    let mut bytes = 0;
    for index in keep.into_iter().flatten() {
        let entry = interrupts.chunks_exact(cells * 4).nth(index).ok_or(invalid)?;
        value[bytes..bytes + entry.len()].copy_from_slice(entry);
        bytes += entry.len();
    }
    if keep[1].is_none() {
        return Err(invalid);
    }
    let named = names.is_some();
    editor.set_property(node, "interrupts", &value[..bytes])?;
    match (named, keep[0]) {
        (false, _) => Ok(()),
        (true, Some(_)) => {
            editor.set_property(timer(editor)?, "interrupt-names", b"sec-phys\0phys\0")
        }
        (true, None) => editor.set_property(timer(editor)?, "interrupt-names", b"phys\0"),
    }
}

fn position(names: &[u8], name: &str) -> Option<usize> {
    names.split(|byte| *byte == 0).position(|found| found == name.as_bytes())
}

fn cell(editor: &Editor<'_>, node: NodeAt, name: &str) -> Result<Option<u32>, EditError> {
    let value = editor.property(node, name)?;
    Ok(value.and_then(|value| Some(u32::from_be_bytes(value.try_into().ok()?))))
}

#[cfg(test)]
mod tests;
