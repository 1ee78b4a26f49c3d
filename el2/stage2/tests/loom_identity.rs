//! The host's map: a page is taken and given back while another CPU of the host reads it, and walkers walk.
//!
//! The block is two pages. One CPU takes page 0, which splits it, and gives the page back, which makes it
//! again and frees the table. The TLB holds one translation of page 0. Walks and completed invalidations are
//! serialised by a lock: an invalidation is complete only when the walks under way are.
#![cfg(loom)]
#![allow(unsafe_code)]

mod loom_support;

use loom::sync::atomic::{Ordering, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;
use loom_support::{PAGE, model};
use verdigris_stage2::{
    Attributes, Config, Descriptor, Entry, Geometry, HostFault, Identity, Ipa, Level, Pa,
    PageSource, Root, Table, TableMemory, TablePage, Tlb,
};

const TABLES: u64 = 0x1_0000_0000;
const ZERO: Pa = Pa(0x77_0000);

/// What hardware and pool remember.
#[derive(Default)]
struct Outside {
    /// The translation of page 0 that a TLB holds.
    held: Descriptor,
    /// What stood in the last-level table for page 0 when the table was freed.
    freed: Option<Descriptor>,
}

struct Host {
    tables: [Table; 2],
    map: Identity,
    writer: Mutex<()>,
    outside: Mutex<Outside>,
}

impl Host {
    fn new() -> Arc<Self> {
        let table = || std::array::from_fn(|_| Entry::new(Descriptor::INVALID));
        // SAFETY: the first table is never handed out.
        let root = unsafe { Root::new(Pa(TABLES), Geometry::tiny()) };
        let host = Arc::new(Self {
            tables: [table(), table()],
            map: Identity::new(root, Config::default(), ZERO),
            writer: Mutex::new(()),
            outside: Mutex::default(),
        });
        host.map.map(&*host, Ipa(0), Ipa(2 * PAGE), Attributes::HOST_RAM).unwrap();
        host
    }

    /// Walks for page 0 as the hardware does, and caches what it finds.
    fn walk(&self) {
        let mut outside = self.outside.lock().unwrap();
        let root = self.tables[0][0].read();
        let leaf = match root.table_below(Level::L2) {
            Some(_) => {
                assert_eq!(outside.freed, None, "a walk through a table that is free");
                self.tables[1][0].read()
            }
            None => root,
        };
        if leaf.is_valid() {
            outside.held = leaf;
        }
    }

    fn held(&self) -> Descriptor {
        self.outside.lock().unwrap().held
    }
}

impl TableMemory for Host {
    fn table(&self, page: TablePage) -> &Table {
        &self.tables[((page.pa().0 - TABLES) / PAGE) as usize]
    }
}

impl PageSource for Host {
    fn alloc(&self) -> Option<TablePage> {
        // SAFETY: one block is split once, so the page is handed out once.
        Some(unsafe { TablePage::new(Pa(TABLES + PAGE)) })
    }

    fn free(&self, _: TablePage) {
        let now = self.tables[1][0].read();
        assert_eq!(self.outside.lock().unwrap().freed.replace(now), None, "freed twice");
    }
}

impl Tlb for Host {
    fn enter(&self) {}
    fn leave(&self) {}
    fn ipa(&self, _: Ipa, _: Option<Level>) {}
    fn range(&self, _: Ipa, _: u64, _: Option<Level>) {}
    fn stage1(&self) {}
    fn vmid(&self) {}
    fn local(&self, _: Ipa) {}
    fn dsb_ishst(&self) {
        fence(Ordering::SeqCst);
    }
    /// Each one ends a part of an invalidation: of page 0 in all that this test does.
    fn dsb_ish(&self) {
        fence(Ordering::SeqCst);
        self.outside.lock().unwrap().held = Descriptor::INVALID;
    }
    fn repeat(&self) {}
    fn isb(&self) {}
}

/// Takes page 0 and gives it back. Meanwhile no TLB has it, and afterwards none has the zeroes.
fn lend(host: &Host) {
    {
        let _guard = host.writer.lock().unwrap();
        host.map.take_page(host, Ipa(0)).unwrap();
    }
    assert!(!host.held().is_writable(), "the host reaches a page that was taken");
    {
        let _guard = host.writer.lock().unwrap();
        host.map.give_page(host, Ipa(0), Attributes::HOST_RAM).unwrap();
    }
    let held = host.held();
    assert!(!held.is_valid() || held.is_writable(), "the host reads zeroes in its own page");
}

fn scenario(preemptions: usize, fault: fn(&Host) -> HostFault) {
    model(None, preemptions, move || {
        let host = Host::new();
        let spawn = |act: fn(&Host, fn(&Host) -> HostFault)| {
            let host = host.clone();
            thread::spawn(move || act(&host, fault))
        };
        let reader = spawn(|host, fault| assert_eq!(fault(host), HostFault::Retry));
        let walker = spawn(|host, _| host.walk());
        lend(&host);
        reader.join().unwrap();
        walker.join().unwrap();
        let freed = host.outside.lock().unwrap().freed.expect("the block is whole again");
        assert_eq!(host.tables[1][0].read(), freed, "a free table was written");
        assert!(host.tables[0][0].read().is_writable());
    });
}

#[test]
fn a_page_is_lent_while_it_is_read() {
    scenario(3, |host| {
        let _guard = host.writer.lock().unwrap();
        host.map.fault(host, Ipa(0), true)
    });
}

#[test]
#[should_panic(expected = "a free table was written")]
fn faults_need_the_lock() {
    scenario(3, |host| host.map.fault(host, Ipa(0), true));
}
