//! The calls on a VM's stage 2 that return what pages went through, or change the shape of its tables.

use verdigris_abi::{Status, call, flags};

use crate::bits::Bits;
use crate::firmware::whole_range;
use crate::pages::PAGE;
use crate::raw::{Registers, raw};
use crate::vm::Vm;

/// What a step of an invalidation returned.
pub struct Step {
    /// Pages done in all.
    pub done: u64,
    /// Final dirty bits, from the page on that was next before.
    pub dirty: Vec<bool>,
}

impl Vm {
    /// Tells which pages were written since the last time, and arms them anew.
    pub fn harvest(&self, ipa: u64, page_count: u64) -> Vec<bool> {
        self.harvest_to(ipa, page_count, Bits::Registers)
    }

    /// As `harvest`, with a choice of where the bits go.
    pub fn harvest_to(&self, ipa: u64, page_count: u64, to: Bits) -> Vec<bool> {
        let mode = to.flag(flags::AGE_TO_BUFFER);
        let bits = to.collect(page_count, |done, wanted| {
            let at = ipa + done * PAGE as u64;
            raw().call(call::HARVEST, &[self.handle(), at, wanted, mode, to.address()])
        });
        bits.expect("a range of the VM's can be harvested")
    }

    /// Unmaps a range: which of its pages were dirty.
    pub fn unmap_dirty(&self, ipa: u64, page_count: u64, to: Bits) -> Vec<bool> {
        let wants = dirty_flags(to);
        let bits = to.collect(page_count, |done, wanted| {
            let at = ipa + done * PAGE as u64;
            raw().call(call::UNMAP, &[self.handle(), at, wanted, wants, 0, to.address()])
        });
        bits.expect("a range of the VM's can be unmapped")
    }

    /// Makes one call of INVALIDATE_BEGIN that wants dirty bits: the first, or one that resumes.
    pub fn begin_dirty_step(
        &self,
        ipa: u64,
        page_count: u64,
        resume: Option<u64>,
        to: Bits,
    ) -> Status<Step> {
        let resumes = if resume.is_some() { flags::BEGIN_RESUME } else { 0 };
        let done = resume.unwrap_or(0);
        let arguments =
            [self.handle(), ipa, page_count, resumes | dirty_flags(to), done, to.address()];
        step(done, to, &raw().call(call::INVALIDATE_BEGIN, &arguments))
    }

    /// Begins an invalidation, and goes on until the range is unmapped: which pages were dirty.
    pub fn begin_dirty(&self, ipa: u64, page_count: u64, to: Bits) -> Vec<bool> {
        let mut dirty = Vec::new();
        let mut resume = None;
        while (dirty.len() as u64) < page_count {
            let step = self.begin_dirty_step(ipa, page_count, resume, to);
            let step = step.expect("begin never fails");
            dirty.extend(step.dirty);
            resume = Some(step.done);
        }
        dirty
    }

    /// Ends an invalidation of which `done` pages are done: which of the others were dirty.
    pub fn end_dirty(
        &self,
        ipa: u64,
        page_count: u64,
        mut done: u64,
        to: Bits,
    ) -> Status<Vec<bool>> {
        let mut dirty = Vec::new();
        loop {
            let arguments = [self.handle(), ipa, page_count, done, dirty_flags(to), to.address()];
            let step = step(done, to, &raw().call(call::INVALIDATE_END, &arguments))?;
            dirty.extend(step.dirty);
            done = step.done;
            if done == page_count {
                return Ok(dirty);
            }
        }
    }

    /// Splits blocks: into pages, or with MAP_BLOCK_2M into blocks of 2 MiB.
    pub fn split(&self, ipa: u64, page_count: u64, level: u64) -> Status {
        whole_range(page_count, |done, left| {
            let at = ipa + done * PAGE as u64;
            raw().value(call::SPLIT, &[self.handle(), at, left, level])
        })
    }

    /// Makes blocks of pages, MAP_BLOCK_2M or MAP_BLOCK_1G. The error is of the first that can't be one.
    pub fn collapse(&self, ipa: u64, page_count: u64, level: u64) -> Status {
        whole_range(page_count, |done, left| {
            let at = ipa + done * PAGE as u64;
            raw().value(call::COLLAPSE, &[self.handle(), at, left, level])
        })
    }

    /// Gives empty tables of a range back to the VM's pool.
    pub fn reclaim_tables(&self, ipa: u64, page_count: u64) -> Status {
        whole_range(page_count, |done, left| {
            let at = ipa + done * PAGE as u64;
            raw().value(call::TABLES_RECLAIM, &[self.handle(), at, left])
        })
    }

    /// Invalidates the whole VM, unless that has been done since a flag was cleared.
    pub fn flush(&self) -> Status {
        raw().call(call::FLUSH, &[self.handle()]).status()
    }
}

fn dirty_flags(to: Bits) -> u64 {
    flags::UNMAP_DIRTY | to.flag(flags::UNMAP_TO_BUFFER)
}

/// Reads one step's answer: its bits begin at page `before`.
fn step(before: u64, to: Bits, reply: &Registers) -> Status<Step> {
    reply.status()?;
    let done = reply.0[1];
    assert!(done >= before, "progress went back");
    Ok(Step { done, dirty: to.read(reply, done - before) })
}
