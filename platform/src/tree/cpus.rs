//! CPUs.

use verdigris_abi::MAX_CPUS;

use super::error::Error;
use super::node::{self, Node, Tree};
use crate::list::{Full, List};
use crate::machine::Cpu;

const LIMIT: usize = MAX_CPUS as usize;

/// Reads the children of `/cpus`.
pub fn cpus(tree: &Tree<'_>) -> Result<List<Cpu, LIMIT>, Error> {
    let parent = node::child(&node::root(tree)?, "cpus")?.ok_or(Error::Missing("/cpus"))?;
    let cells = node::cells(&parent)?;
    let mut cpus = List::default();
    let mut without_psci = None;
    for child in parent.children()?.iter() {
        let child = child?;
        if is_cpu(&child)? {
            let mpidr = read_mpidr(&child, cells.address)?;
            add(&mut cpus, mpidr)?;
            if node::string(&child, "enable-method")? != Some("psci") {
                without_psci = Some(mpidr);
            }
        }
    }
    match (cpus.len(), without_psci) {
        (0, _) => Err(Error::Missing("CPU in /cpus")),
        // A single CPU runs already; QEMU doesn't say how to start it.
        (1, _) | (_, None) => Ok(cpus),
        (_, Some(mpidr)) => Err(Error::CpuWithoutPsci { mpidr }),
    }
}

fn add(cpus: &mut List<Cpu, LIMIT>, mpidr: u64) -> Result<(), Error> {
    if cpus.iter().any(|cpu| cpu.mpidr == mpidr) {
        return Err(Error::SameCpu { mpidr });
    }
    cpus.push(Cpu { mpidr }).map_err(|Full| Error::TooMany { what: "CPUs", limit: LIMIT })
}

/// Tells whether a child of `/cpus` is a CPU that works: one that is only `disabled` can be started.
fn is_cpu(node: &Node<'_>) -> Result<bool, Error> {
    let failed = node::string(node, "status")?.is_some_and(|status| status.starts_with("fail"));
    Ok(node::string(node, "device_type")? == Some("cpu") && !failed)
}

fn read_mpidr(node: &Node<'_>, address_cells: u32) -> Result<u64, Error> {
    let reg = node::property(node, "reg")?.ok_or(Error::Missing("reg of a CPU"))?;
    let mpidr = node::number(reg).filter(|_| reg.len() == address_cells as usize * 4);
    mpidr.filter(|mpidr| mpidr & !Cpu::AFFINITY == 0).ok_or(Error::Invalid("reg of a CPU"))
}
