//! Taking memory away: the cold half without an invalidation, some hot pages with theirs, and both come back
//! when the guest wants them.

use verdigris_abi::{Stat, flags};

use super::{Demo, PAGES, heat};
use crate::firmware::{Features, Statistics};
use crate::guest::DATA;
use crate::pages::PAGE;
use crate::vcpu::Fault;
use crate::vm::RW;

/// Hot pages that are taken, for comparison.
const HOT: usize = 512;

impl Demo {
    /// Takes the coldest half, page by page, as a host that swaps does, then some that the guest uses.
    pub fn reclaim(&self, features: &Features) {
        let (touched, _) = self.touch();
        self.age(flags::AGE_FLUSH_ALL);
        let ages = self.set.ages(&self.buffer);
        let mut cold: Vec<usize> = (0..PAGES).collect();
        cold.sort_by_key(|&page| std::cmp::Reverse(ages[page]));
        cold.truncate(PAGES / 2);
        let flushes = self.take(&cold);
        println!("\nThe colder half is taken away, a call for each page; blank is gone:");
        print_what_is_left(&ages, &touched, &cold);
        println!("  {} cold pages: {flushes}", cold.len());
        let (_, back) = self.touch();
        let young = self.guest.test_age(DATA, PAGES as u64);
        let hot: Vec<_> = (0..PAGES).filter(|&page| young[page]).take(HOT).collect();
        println!(
            "The guest goes on, and gets back the {back} pages of them that it touches. Then,"
        );
        println!("  {:>4} hot pages: {}", hot.len(), self.take(&hot));
        if !features.has(flags::FEATURE_FLUSH_EPOCH) {
            println!("  (This firmware leaves none out.)");
        }
    }

    /// Unmaps pages one by one, and tells what that took.
    fn take(&self, pages: &[usize]) -> String {
        let before = self.guest.statistics();
        for page in pages {
            self.guest.unmap(DATA + (page * PAGE) as u64, 1).expect("a page of the guest's");
        }
        let now = self.guest.statistics();
        let since = |stat| Statistics::since(&now, &before, stat);
        let kinds = [Stat::TlbiIpa, Stat::TlbiRange, Stat::TlbiStage1, Stat::TlbiVmid];
        let instructions: u64 = kinds.map(since).iter().sum();
        let (skipped, done) = (since(Stat::FlushesSkipped), since(Stat::FlushesDone));
        format!("invalidations left out {skipped}, done {done}: {instructions} TLBI instructions")
    }

    /// Maps a page again that the guest wants.
    pub fn give_back(&self, fault: &Fault) {
        let page = ((fault.page() - DATA) >> 12) as usize;
        let address = self.memory.address(page);
        self.guest
            .map(fault.page(), address, 1, RW, fault.sequence)
            .expect("nothing is in its way");
    }
}

fn print_what_is_left(ages: &[u8], touched: &[bool], taken: &[usize]) {
    let mut gone = vec![false; PAGES];
    taken.iter().for_each(|&page| gone[page] = true);
    let (mut left, mut right) = (heat::heat(ages), heat::cells(touched));
    heat::blank(&mut left, &gone);
    heat::blank(&mut right, &gone);
    heat::print(&left, &right);
}
