//! Set: the page behind an IPA is another one, and the leaf's history stays with it.

use super::judge::Warrant;
use super::map::Asked;
use super::{World, memory_of};
use crate::space::Leaf;
use crate::walker::{bits, pages};
use verdigris_abi::flags::MAP_OLD;
use verdigris_stage2::{Attributes, Error, Ipa, Pa, Set};

impl World {
    /// Replaces one leaf, or maps it.
    pub(super) fn set(&mut self) {
        let asked = self.ask();
        let asked = Asked { pages: pages(asked.level), flags: asked.flags & !MAP_OLD, ..asked };
        let asked = if self.choices.one_in(2) { self.ask_for_leaf(asked) } else { asked };
        let request = Set {
            ipa: Ipa(asked.start * 4096),
            pa: Pa(asked.pa),
            level: asked.level(),
            attributes: Attributes::guest(asked.flags),
            sequence: asked.sequence,
        };
        self.note("set", asked.start, asked.pages, asked.pa);
        let answer = self.call(|machine| machine.vm().set(machine, &request));
        let (start, end) = (asked.start, asked.start + asked.pages);
        match answer {
            Ok(was_dirty) => self.expect_set(&asked, was_dirty),
            Err(error) => {
                let reason = match error {
                    Error::Retry => self.may_retry(start, end, asked.sequence),
                    Error::Exists => self.is_in_the_way(&asked, start),
                    error => self.may_fail(error, asked.level),
                };
                assert!(reason, "set had no reason for {error:?}");
                assert!(self.machine.record.borrow().removed.is_empty());
                self.judge(Warrant::none());
            }
        }
        self.touch(start, end);
    }

    /// Asks for another page behind a leaf that is there, if there is one near.
    fn ask_for_leaf(&mut self, asked: Asked) -> Asked {
        let near = self.space.overlapping(asked.start, asked.start + 512).next();
        let Some((start, leaf)) = near else {
            return asked;
        };
        let pa = memory_of(start, self.choices.below(3));
        Asked { start, pages: leaf.pages(), level: leaf.level, pa, ..asked }
    }

    fn expect_set(&mut self, asked: &Asked, was_dirty: bool) {
        self.absorb_writes();
        let page = asked.start;
        let end = page + asked.pages;
        assert!(!self.contract.must_refuse(page, end, asked.sequence), "set past an invalidation");
        let mut warrant = Warrant::none();
        let there = self.space.overlapping(page, end).next();
        match there {
            None => {
                assert!(!was_dirty, "nothing was there");
                self.space.insert(page, asked.leaf(page));
            }
            Some((first, old)) => {
                assert_eq!((first, old.level), (page, asked.level), "set over {old:x?}");
                self.expect_replaced(asked, old, was_dirty, &mut warrant);
            }
        }
        self.judge(warrant);
    }

    fn expect_replaced(
        &mut self,
        asked: &Asked,
        old: Leaf,
        was_dirty: bool,
        warrant: &mut Warrant,
    ) {
        let (page, new) = (asked.start, asked.leaf(asked.start));
        let mut next = Leaf {
            granted: new.granted && old.granted,
            writable: new.writable && old.granted && old.writable,
            noted: false,
            young: old.young,
            ..new
        };
        let same = old.pa == new.pa;
        // What is reported dirty now may be reported again.
        next.noted = same && old.noted && self.machine.walk(page).raw & bits::NOTED != 0;
        *self.space.leaf_mut(page).expect("it is there") = next;
        let sure = !self.is_disturbed(page, &old);
        // A page that stays, and stays dirty, can be told of later.
        let told = was_dirty || same && next.is_dirty();
        assert!(!sure || told == old.is_dirty(), "was dirty: {was_dirty}, {old:x?}, {next:x?}");
        if was_dirty {
            self.forget(page, page + new.pages());
        }
        let removed = std::mem::take(&mut self.machine.record.borrow_mut().removed);
        if same {
            assert!(removed.is_empty(), "the same page stays");
            let lost = old.granted && !next.granted
                || old.writable && !next.writable
                || old.exec && !next.exec;
            // It may have become writable at the last moment, and lost that again.
            if lost || !sure {
                self.warrant_change(warrant, page, old.level, sure.then_some(old.young));
            }
            if !lost || !sure {
                warrant.local.push(page);
            }
        } else {
            assert_eq!(removed.len(), 1, "the old leaf is reported once");
            assert_eq!((removed[0].ipa.0, removed[0].pa.0), (page * 4096, old.pa));
            self.check_report(page, &old, &removed[0]);
            self.warrant_removed(warrant, &removed);
        }
    }
}
