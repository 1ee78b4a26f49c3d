//! What calls invalidate, and what tables take.

use verdigris_abi::{Stat, flags};
use verdigris_guest::{program, touch};

use super::{Bench, Leaf, MOST_PAGES, TABLE_PAGES, figure};
use crate::guest::DATA;
use crate::pages::PAGE;
use crate::vm::{IPA_BITS, Vm};

/// Pages of the range whose invalidations are counted.
const PAGES: u64 = 512;
/// Pages of which every second one goes, one call each, as reclaim takes them.
const COLD_RANGE: u64 = 1 << 14;

impl Bench {
    /// Counts invalidations of calls, and table pages.
    pub fn flushes(&self) {
        self.of_calls();
        self.of_cold_pages();
        for leaf in [Leaf::Page, Leaf::Block] {
            self.tables(leaf);
        }
    }

    /// Counts the invalidations of an action.
    fn invalidations(&self, action: impl FnOnce()) -> u64 {
        let before = self.guest.statistics();
        action();
        let now = self.guest.statistics();
        let kinds = [Stat::TlbiIpa, Stat::TlbiRange, Stat::TlbiStage1, Stat::TlbiVmid];
        kinds.iter().map(|stat| now.since(&before, *stat)).sum()
    }

    fn of_calls(&self) {
        let young = || {
            self.guest.age(DATA, PAGES, flags::AGE_FLUSH_ALL);
            self.guest.cpu(0).call(program::TOUCH, &[DATA, PAGES, 1, touch::WRITE, 0]);
        };
        let age = |mode| move || _ = self.guest.age(DATA, PAGES, mode);
        let calls: [(&str, &dyn Fn()); 6] = [
            ("age-no-flush", &age(flags::AGE_NO_FLUSH)),
            ("age-flush-young", &age(flags::AGE_FLUSH_YOUNG)),
            ("age-flush-all", &age(flags::AGE_FLUSH_ALL)),
            ("harvest", &|| _ = self.guest.harvest(DATA, PAGES)),
            ("write-protect", &|| self.guest.write_protect(DATA, PAGES).expect("a good range")),
            ("unmap", &|| self.guest.unmap(DATA, PAGES).expect("a good range")),
        ];
        for (name, call) in calls {
            self.map_anew(Leaf::Page, PAGES);
            young();
            figure(&format!("invalidations/{name}"), self.invalidations(call) as f64);
        }
    }

    /// Takes cold pages one by one, after the invalidation of the epoch that found them cold.
    fn of_cold_pages(&self) {
        self.map_anew(Leaf::Page, COLD_RANGE);
        for _ in 0..2 {
            self.guest.age_by_buffer(DATA, COLD_RANGE, flags::AGE_FLUSH_ALL, &self.buffer);
        }
        let before = self.guest.statistics();
        let mut instructions = 0;
        let count = self.invalidations(|| {
            for page in (0..COLD_RANGE).step_by(2) {
                let unmap = || self.guest.unmap(DATA + page * PAGE as u64, 1).expect("a page");
                instructions += self.meter.count(unmap);
            }
        });
        let reclaimed = (COLD_RANGE / 2) as f64;
        let gone = self.guest.statistics().since(&before, Stat::LeavesUnmapped);
        assert_eq!(gone, COLD_RANGE / 2, "pages reclaimed");
        figure("invalidations/cold-page", count as f64 / reclaimed);
        figure("reclaim-cold-page", instructions as f64 / reclaimed);
    }

    /// Counts tables in a VM that never had others: those on their way back to the pool count as used.
    fn tables(&self, leaf: Leaf) {
        let vm = Vm::bare(IPA_BITS).expect("a VM can be created");
        vm.donate(TABLE_PAGES);
        let used = || vm.statistics().get(Stat::TablePages);
        let before = used();
        self.map_into(&vm, leaf, MOST_PAGES, 0);
        let bytes = (used() - before) * PAGE as u64;
        figure(&format!("table-bytes-per-gib/{}", leaf.name()), bytes as f64);
    }
}
