//! The guest: what it may do, it can do; what it may not, goes to the host.

use super::judge::Warrant;
use super::{HOT, World};
use crate::agent::Reached;
use crate::machine::CPUS;
use verdigris_stage2::Access;

impl World {
    /// Lets the guest access a hot address.
    pub(super) fn guest(&mut self) {
        let slot = self.choices.below(HOT as u64) as usize;
        let access =
            self.choices.pick(&[Access::Read, Access::Write, Access::Write, Access::Execute]);
        let cpu = self.choices.below(4) as usize;
        let cpu = if self.machine.is_inside(cpu) { (cpu + 1) % CPUS } else { cpu };
        self.machine.vmids.enter(&self.machine);
        let ipa = self.machine.tlb.borrow().hot().nth(slot).expect("a hot address");
        let page = ipa / 4096;
        self.note("guest", page, 1, access as u64);
        let reached = self.machine.agent.access(&self.machine, slot, cpu, access);
        let leaf = self.space.at(page).map(|(_, leaf)| leaf);
        let allowed = leaf.is_some_and(|leaf| leaf.allows(access));
        let expected = if allowed { Reached::Done } else { Reached::Host(leaf.is_some()) };
        assert_eq!(reached, expected, "page {page:#x}: {access:?} of {leaf:x?}");
        self.judge(Warrant { local: vec![page], ..Warrant::none() });
        self.touch(page, page + 1);
    }
}
