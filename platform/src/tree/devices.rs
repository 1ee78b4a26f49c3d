//! The devices that the firmware itself needs: UART, PSCI, interrupt controller, timer.

use verdigris_abi::{PAGE_SIZE, Pa};

use super::error::Error;
use super::node::{self, Cells, Node, Tree};
use crate::list::List;
use crate::machine::{Conduit, Gic, GicVersion, MAX_DEBUG_FRAMES, Timer};
use crate::region::Region;

const PL011: &[&str] = &["arm,pl011"];
const GIC_V2: &[&str] = &["arm,cortex-a15-gic", "arm,gic-400", "arm,cortex-a7-gic"];
const GIC_V3: &[&str] = &["arm,gic-v3"];
/// Version 0.1 ("arm,psci") chose its own function numbers: no Arm v8 machine has it alone.
const PSCI: &[&str] = &["arm,psci-0.2", "arm,psci-1.0"];
/// External debug registers, and the cross triggers that halt CPUs (Linux, bindings/arm/arm,coresight-*.yaml).
pub(crate) const DEBUG: &[&str] =
    &["arm,coresight-cpu-debug", "arm,coresight-cti", "arm,coresight-cti-v8-arch"];
const TIMER: &[&str] = &["arm,armv8-timer"];

/// A node whose `reg` holds addresses that the CPUs use.
struct Device<'a> {
    node: Node<'a>,
    /// How its `reg` is written.
    cells: Cells,
}

/// Calls `visit` with each enabled node at CPU addresses until it returns something.
///
/// Those are the children of the root, and of each bus among them whose `ranges` is empty.
fn find_device<'a, T>(
    tree: &Tree<'a>,
    mut visit: impl FnMut(&Device<'a>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    find_any_device(tree, |device| match node::is_enabled(&device.node)? {
        true => visit(device),
        false => Ok(None),
    })
}

/// Does the same for disabled ones too.
fn find_any_device<'a, T>(
    tree: &Tree<'a>,
    mut visit: impl FnMut(&Device<'a>) -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    // For each depth, how the node there writes its children's `reg`; `None` where it translates.
    let mut buses = [None; 17];
    buses[0] = Some(node::cells(&node::root(tree)?)?);
    for entry in tree.all_nodes()? {
        // The root is not among them: its children are at depth 1.
        let (depth, node) = entry?;
        let parent = depth.checked_sub(1).and_then(|parent| buses.get(parent).copied().flatten());
        if let Some(cells) = parent
            && let Some(found) = visit(&Device { node, cells })?
        {
            return Ok(Some(found));
        }
        let passes_addresses = node::property(&node, "ranges")?.is_some_and(<[u8]>::is_empty);
        if let Some(bus) = buses.get_mut(depth) {
            let reachable = passes_addresses && parent.is_some();
            *bus = if reachable { Some(node::cells(&node)?) } else { None };
        }
    }
    Ok(None)
}

/// Finds the first node that is compatible with one of `wanted`.
fn find_compatible<'a>(tree: &Tree<'a>, wanted: &[&str]) -> Result<Option<Device<'a>>, Error> {
    find_device(tree, |device| {
        let found = node::is_compatible(&device.node, wanted)?;
        Ok(found.then_some(Device { node: device.node, cells: device.cells }))
    })
}

fn base(device: &Device<'_>, what: &'static str) -> Result<Pa, Error> {
    let reg = node::property(&device.node, "reg")?.ok_or(Error::Missing(what))?;
    let first = device.cells.regions(reg, what)?.next().ok_or(Error::Missing(what))?;
    Ok(first?.start())
}

/// Finds the PL011 that `/chosen/stdout-path` names, or else the first.
pub fn uart(tree: &Tree<'_>) -> Result<Option<Pa>, Error> {
    let stdout = stdout_name(tree)?;
    let named = find_device(tree, |device| {
        let name = device.node.name()?;
        let is_stdout = stdout.is_some_and(|stdout| match stdout.split_once('@') {
            Some((base, address)) => (base, Some(address)) == (name.name, name.unit_address),
            None => stdout == name.name,
        });
        match is_stdout && node::is_compatible(&device.node, PL011)? {
            true => Ok(Some(base(device, "reg of a PL011")?)),
            false => Ok(None),
        }
    })?;
    match named {
        Some(found) => Ok(Some(found)),
        None => {
            find_compatible(tree, PL011)?.map(|found| base(&found, "reg of a PL011")).transpose()
        }
    }
}

/// Returns the name of the node that `/chosen/stdout-path` leads to: its last component.
fn stdout_name<'a>(tree: &Tree<'a>) -> Result<Option<&'a str>, Error> {
    let root = node::root(tree)?;
    let Some(chosen) = node::child(&root, "chosen")? else { return Ok(None) };
    let Some(path) = node::string(&chosen, "stdout-path")? else { return Ok(None) };
    // Options of the line may follow a colon.
    let mut path = path.split(':').next().unwrap_or_default();
    if !path.starts_with('/') {
        let Some(aliases) = node::child(&root, "aliases")? else { return Ok(None) };
        path = node::string(&aliases, path)?.unwrap_or_default();
    }
    Ok(path.rsplit('/').next().filter(|name| !name.is_empty()))
}

/// Reads how PSCI is called.
pub fn psci(tree: &Tree<'_>) -> Result<Option<Conduit>, Error> {
    let Some(device) = find_compatible(tree, PSCI)? else { return Ok(None) };
    match node::string(&device.node, "method")? {
        Some("smc") => Ok(Some(Conduit::Smc)),
        Some("hvc") => Ok(Some(Conduit::Hvc)),
        _ => Err(Error::Invalid("method of PSCI")),
    }
}

/// Reads the interrupt controller.
pub fn gic(tree: &Tree<'_>) -> Result<Gic, Error> {
    let (device, version) = match find_compatible(tree, GIC_V3)? {
        Some(device) => (device, GicVersion::V3),
        None => match find_compatible(tree, GIC_V2)? {
            Some(device) => (device, GicVersion::V2),
            None => return Err(Error::Missing("interrupt controller (arm,gic-v3 or GICv2)")),
        },
    };
    let reg = node::property(&device.node, "reg")?.ok_or(Error::Missing("reg of the GIC"))?;
    let mut frames = List::default();
    for frame in device.cells.regions(reg, "reg of the GIC")? {
        frames.push(frame?).map_err(|_| Error::TooMany { what: "frames of the GIC", limit: 8 })?;
    }
    let interrupt_cells = node::cell(&device.node, "#interrupt-cells")?.unwrap_or(3);
    if !(3..=8).contains(&interrupt_cells) {
        return Err(Error::Invalid("#interrupt-cells of the GIC"));
    }
    let interrupt_cells = interrupt_cells as usize;
    let own = node::property(&device.node, "interrupts")?.unwrap_or_default();
    Ok(Gic { version, frames, interrupt_cells, maintenance: intid(own, interrupt_cells, 0) })
}

/// Returns the INTID of the entry at `index` of an `interrupts` property of the GIC binding.
fn intid(interrupts: &[u8], cells: usize, index: usize) -> Option<u32> {
    let entry = interrupts.chunks_exact(cells * 4).nth(index)?;
    let (kind, number) = (node::number(&entry[..4])?, node::number(&entry[4..8])?);
    match (kind, number) {
        // SPIs count from INTID 32, PPIs from INTID 16.
        (0, 0..988) => Some(number as u32 + 32),
        (1, 0..16) => Some(number as u32 + 16),
        _ => None,
    }
}

/// Reads the interrupts of the generic timer.
///
/// The order is the binding's: secure EL1, non-secure EL1, virtual, EL2. Names override it.
pub fn timer(tree: &Tree<'_>) -> Result<Timer, Error> {
    let missing = Error::Missing("timer (arm,armv8-timer)");
    let timer = find_compatible(tree, TIMER)?.ok_or(missing)?.node;
    let cells = gic(tree)?.interrupt_cells;
    let missing = Error::Missing("interrupts of the timer");
    let interrupts = node::property(&timer, "interrupts")?.ok_or(missing)?;
    let names = node::property(&timer, "interrupt-names")?;
    let at = |index: usize, name: &str| {
        let index = match names {
            Some(names) => node::strings(names).position(|found| found == name)?,
            None => index,
        };
        intid(interrupts, cells, index)
    };
    Ok(Timer { physical: at(1, "phys"), virt: at(2, "virt"), hypervisor: at(3, "hyp-phys") })
}

/// Lists where the debug registers of CPUs are, also those that the tree disables: they are there all the same.
pub fn debug_frames(tree: &Tree<'_>) -> Result<List<Region, MAX_DEBUG_FRAMES>, Error> {
    let mut frames: List<Region, MAX_DEBUG_FRAMES> = List::default();
    find_any_device(tree, |device| {
        if !node::is_compatible(&device.node, DEBUG)? {
            return Ok(None::<()>);
        }
        let reg = node::property(&device.node, "reg")?.unwrap_or_default();
        for region in device.cells.regions(reg, "reg of a CPU's debug registers")? {
            add_frame(&mut frames, region?)?;
        }
        Ok(None)
    })?;
    Ok(frames)
}

/// Adds a range, in whole pages; to the last one where it goes on from there.
fn add_frame(frames: &mut List<Region, MAX_DEBUG_FRAMES>, region: Region) -> Result<(), Error> {
    let what = "ranges of CPUs' debug registers";
    let end = region.end().0.checked_next_multiple_of(PAGE_SIZE).map(Pa);
    let end = end.ok_or(Error::Invalid(what))?;
    let mut start = region.start().align_down(PAGE_SIZE);
    if let Some(last) = frames.last().copied()
        && last.end() == start
    {
        frames.remove(frames.len() - 1);
        start = last.start();
    }
    let region = Region::new(start, end).ok_or(Error::Invalid(what))?;
    frames.push(region).map_err(|_| Error::TooMany { what, limit: MAX_DEBUG_FRAMES })
}
