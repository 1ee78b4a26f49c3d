//! Working sets: for how many rounds each page was idle, kept by the firmware.

use verdigris_abi::{Error, WORKING_SET_BUCKET_STARTS, flags};
use verdigris_guest::{program, touch};

use super::support::bytes;
use crate::firmware::{PageState, page_state};
use crate::guest::{DATA, Guest};
use crate::ktap::test_table;
use crate::pages::Pages;
use crate::vm::RW;
use crate::working_set::WorkingSet;

test_table! { "suite", 30:
    ages_count_rounds, histogram_adds_up, buckets_begin_where_they_say, ages_survive_unmapping,
    idle_ages_saturate, ages_of_parts_and_modes, ages_of_a_block, sizes_of_working_sets,
    working_sets_apart, regions_come_back, working_set_of_running_guests,
}

const ALL: u64 = flags::AGE_FLUSH_ALL;
const NEVER: u8 = 255;

/// A guest with pages, and their working set.
struct Scene {
    // First, so that its region is there until the VM has ended.
    guest: Guest,
    set: WorkingSet,
    data: Pages,
    buffer: Pages,
}

impl Scene {
    fn new(page_count: usize) -> Self {
        let guest = Guest::new(1);
        let data = guest.with_data(page_count, RW);
        let set = WorkingSet::create(&guest, DATA, page_count as u64).expect("a fresh range");
        Self { guest, set, data, buffer: Pages::single(1) }
    }

    fn page_count(&self) -> u64 {
        self.data.count() as u64
    }

    fn touch(&self, stride: u64) {
        let arguments = [DATA, self.page_count(), stride, touch::READ, 0];
        self.guest.cpu(0).call(program::TOUCH, &arguments);
    }

    fn age(&self) {
        self.guest.age_by_buffer(DATA, self.page_count(), ALL, &self.buffer);
    }

    fn ages(&self) -> Vec<u8> {
        self.set.ages(&self.buffer)
    }

    #[track_caller]
    fn assert_ages(&self, what: &str, rule: impl Fn(usize) -> u8) {
        let ages = self.ages();
        for (page, &age) in ages.iter().enumerate() {
            assert_eq!(age, rule(page), "{what}: page {page}");
        }
    }
}

fn ages_count_rounds() {
    let scene = Scene::new(300);
    scene.assert_ages("before the first age", |_| NEVER);
    scene.age();
    scene.assert_ages("all were mapped young", |_| 0);
    for round in 1..6 {
        scene.touch(4);
        scene.age();
        scene.assert_ages("touched or not", |page| if page % 4 == 0 { 0 } else { round });
    }
    scene.guest.test_age(DATA, 300);
    scene.assert_ages("a test is no round", |page| if page % 4 == 0 { 0 } else { 5 });
}

fn histogram_adds_up() {
    const PAGES: usize = 5000;
    let scene = Scene::new(PAGES);
    scene.age();
    for round in 1..5 {
        scene.touch(1 << round);
        scene.age();
        let histogram = scene.set.histogram();
        assert_eq!(histogram.iter().sum::<u64>(), PAGES as u64, "round {round}");
        let hot = PAGES.div_ceil(1 << round) as u64;
        assert_eq!(histogram[0], hot, "round {round}: touched in it");
    }
    let some = scene.set.histogram_of(64, 64);
    assert_eq!(some.iter().sum::<u64>(), 64, "of a part");
    // Multiples of 16 were touched in round 4, other multiples of 8 in round 3, and so on.
    assert_eq!(some[..5], [4, 4, 8, 16, 32]);
}

fn buckets_begin_where_they_say() {
    let scene = Scene::new(256);
    scene.age();
    // Page n is touched in each of the first 255 - n rounds: so in the end it is n rounds old.
    for round in 0..255 {
        scene.guest.cpu(0).call(program::TOUCH, &[DATA, 255 - round, 1, touch::READ, 0]);
        scene.age();
    }
    let ages = scene.ages();
    assert_eq!(ages, (0..=255).collect::<Vec<u8>>());
    let histogram = scene.set.histogram();
    for (bucket, &start) in WORKING_SET_BUCKET_STARTS.iter().enumerate() {
        let end = WORKING_SET_BUCKET_STARTS.get(bucket + 1).map_or(256, |&next| u32::from(next));
        let inside = |age: &&u8| (u32::from(start)..end).contains(&u32::from(**age));
        assert_eq!(histogram[bucket], ages.iter().filter(inside).count() as u64, "from {start}");
    }
}

fn ages_survive_unmapping() {
    let scene = Scene::new(64);
    scene.age();
    scene.guest.unmap(DATA, 32).expect("mappings");
    scene.assert_ages("unmapping is no round", |_| 0);
    for _ in 0..3 {
        scene.age();
    }
    scene.assert_ages("gone pages are idle", |_| 3);
    let sequence = scene.guest.sequence(0);
    scene.guest.map(DATA, scene.data.address(0), 1, RW, sequence).expect("a fresh number");
    scene.guest.cpu(0).call(program::READ, &[DATA + bytes(40)]);
    scene.age();
    scene.assert_ages("back, and touched", |page| if [0, 40].contains(&page) { 0 } else { 4 });
}

fn idle_ages_saturate() {
    let scene = Scene::new(65);
    for _ in 0..300 {
        scene.guest.age(DATA, 65, flags::AGE_NO_FLUSH);
    }
    scene.assert_ages("for 299 rounds", |_| NEVER);
    scene.guest.age(DATA, 65, ALL);
    scene.assert_ages("and no more", |_| NEVER);
    scene.touch(64);
    scene.age();
    scene.assert_ages("young again", |page| if page % 64 == 0 { 0 } else { NEVER });
}

/// A round is a round of the pages that it was about, in whatever mode, by whatever answer.
fn ages_of_parts_and_modes() {
    let scene = Scene::new(200);
    scene.age();
    for (first, count) in [(0, 1), (63, 2), (64, 64), (7, 150), (199, 1)] {
        let before = scene.ages();
        scene.guest.age(DATA + bytes(first), count as u64, flags::AGE_FLUSH_YOUNG);
        let is_inside = |page: usize| (first..first + count).contains(&page);
        scene.assert_ages("a part", |page| before[page] + u8::from(is_inside(page)));
    }
    let before = scene.ages();
    scene.guest.age_by_buffer(DATA, 200, flags::AGE_NO_FLUSH, &scene.buffer);
    scene.assert_ages("by a buffer", |page| before[page] + 1);
    // A range that is larger than the working set.
    scene.guest.age(DATA - bytes(50), 300, ALL);
    scene.assert_ages("from outside", |page| before[page] + 2);
}

fn ages_of_a_block() {
    let guest = Guest::new(1);
    let block = Pages::chunks(9, 1);
    guest.map(DATA, block.address(0), 512, RW | flags::MAP_BLOCK_2M, 0).expect("a fresh block");
    let set = WorkingSet::create(&guest, DATA, 512).expect("a fresh range");
    let buffer = Pages::single(1);
    for expected in [0, 1, 2] {
        guest.age(DATA, 512, ALL);
        assert_eq!(set.ages(&buffer), [expected; 512]);
    }
    guest.cpu(0).call(program::READ, &[DATA + bytes(99)]);
    guest.age(DATA, 512, ALL);
    assert_eq!(set.ages(&buffer), [0; 512], "a block was touched");
}

fn sizes_of_working_sets() {
    let guest = Guest::new(1);
    let buffer = Pages::single(1);
    for page_count in [1, 63, 64, 65, 4095, 4096, 4097, 10_000] {
        let set = WorkingSet::create(&guest, DATA + bytes(3), page_count).expect("a fresh range");
        assert_eq!(set.ages(&buffer), vec![NEVER; page_count as usize]);
        assert_eq!(set.histogram()[15], page_count);
        let (region, pages) = set.destroy().expect("it was created");
        assert_eq!((region, pages), (set.region().address(0), page_count.div_ceil(4096)));
    }
}

fn working_sets_apart() {
    let guest = Guest::new(1);
    let _data = guest.with_data(512, RW);
    let buffer = Pages::single(1);
    let at = |index: usize| DATA + bytes(index * 64);
    let create = |index: usize| WorkingSet::create(&guest, at(index), 64);
    let sets: Vec<_> = (0..8).map(|index| create(index).expect("up to eight")).collect();
    assert_eq!(create(9).err(), Some(Error::Limit), "a ninth");
    sets[3].destroy().expect("it was created");
    assert_eq!(sets[3].destroy(), Err(Error::NoEntry), "twice");
    for first in [at(3) - bytes(1), at(2), at(4) - bytes(63)] {
        let overlapping = WorkingSet::create(&guest, first, 64);
        assert_eq!(overlapping.err(), Some(Error::Exists), "from {first:#x}");
    }
    guest.age(DATA, 512, ALL);
    for (index, set) in sets.iter().enumerate().filter(|(index, _)| *index != 3) {
        assert_eq!(set.ages(&buffer), [0; 64], "working set {index}");
    }
    let fresh = create(3).expect("free again");
    assert_eq!(fresh.ages(&buffer), [NEVER; 64], "what another left");
}

fn regions_come_back() {
    let scene = Scene::new(5000);
    let region = |index: usize| page_state(scene.set.region().address(index));
    for index in 0..2 {
        assert_eq!(
            (region(index).owner, region(index).vm),
            (flags::OWNER_VM, scene.guest.handle())
        );
    }
    scene.age();
    scene.set.destroy().expect("it was created");
    for index in 0..2 {
        assert_eq!(region(index), PageState::FREE);
        assert!(scene.set.region().is_zero(index), "page {index} is not zeroed");
    }
    let guest = Guest::new(1);
    let set = WorkingSet::create(&guest, DATA, 5000).expect("a fresh range");
    drop(guest);
    assert_eq!(page_state(set.region().address(0)), PageState::FREE, "the VM has ended");
}

/// Pages that a vCPU touches all the time stay at 0, and the others grow older.
fn working_set_of_running_guests() {
    let scene = Scene::new(256);
    scene.age();
    let cpu = super::support::spread(1)[0];
    let spinner = scene.guest.spin(0, cpu, program::SPIN, &[DATA, 256, 8, touch::READ]);
    for round in 1..40 {
        spinner.wait_a_round();
        scene.age();
        scene.assert_ages("hot and cold", |page| if page % 8 == 0 { 0 } else { round });
    }
    assert!(spinner.stop().done().is_some());
}
