//! EL2's own pages: the pool, and the one place where a page becomes a pointer.
//!
//! The pool covers what the firmware kept of RAM. A page leaves it zeroed and comes back once: the
//! allocator underneath keeps its lists inside free pages and trusts its caller, so range, alignment
//! and double frees are checked here, against one bit a page.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use buddy_system_allocator::Heap;
use spin::Once;
use spin::mutex::TicketMutex;
use verdigris_abi::{Error, PAGE_SIZE, Pa, Status};
use verdigris_core::call::{LeafSize, PaRange, VmHandle};
use verdigris_core::ownership::{Near, Ownership};
use verdigris_platform::layout::Kept;
use verdigris_platform::{Machine, Region};
use verdigris_stage2::{Identity, Level, Table, TablePage};

use super::recover::{self, Interrupted};
use super::{cache, host, mmu, percpu, room};

/// Largest allocation is 2^(ORDER - 1) bytes.
const ORDER: usize = 40;

/// The pool of EL2's pages.
pub struct Pool {
    range: Range<u64>,
    /// One bit a page of `range`: 1 while it is handed out.
    used: &'static [AtomicU64],
    heap: TicketMutex<Heap<ORDER>>,
    free_pages: AtomicUsize,
}

static POOL: Once<Pool> = Once::new();
static OWNERSHIP: Once<Ownership<'static>> = Once::new();

/// Table pages that maps of devices and unaligned edges of RAM take beside those for RAM itself.
const EXTRA_TABLES: u64 = 64;
/// Memory for what is not counted below: vectors of state for each CPU, a root table, slack.
const FIXED_BYTES: u64 = 2 << 20;
/// A stack, a crash stack and the private data of a CPU.
const CPU_BYTES: u64 = 4 * percpu::STACK_BYTES;

/// Returns how much memory the firmware needs behind its image on a machine.
pub fn needed_bytes(memory: &[Region], room: Region, cpu_count: usize) -> u64 {
    let ram: u64 = memory.iter().map(|bank| bank.bytes()).sum();
    let host_tables = Identity::split_tables(ram + room.bytes(), memory.len() as u64 + 1);
    let tables = host_tables + mmu::tables_for(room) + EXTRA_TABLES;
    ownership_bytes(memory, room) + tables * PAGE_SIZE + cpu_count as u64 * CPU_BYTES + FIXED_BYTES
}

fn ownership_bytes(memory: &[Region], room: Region) -> u64 {
    // RAM that is too scattered for the table is refused when the table is made.
    Ownership::memory_needed(known(memory, room).as_slice())
        .unwrap_or(0)
        .next_multiple_of(PAGE_SIZE)
}

/// Lists all that is to have words in the ownership table.
fn known(memory: &[Region], room: Region) -> Ranges {
    Ranges::of(memory.iter().copied().chain([room]), Region::whole_pages)
}

/// A list of page ranges, before there is memory to allocate one in.
struct Ranges {
    items: [PaRange; 32],
    count: usize,
}

impl Ranges {
    /// Collects regions, rounded to pages by `round`; what does not fit the list is left out.
    fn of(regions: impl Iterator<Item = Region>, round: impl Fn(Region) -> Option<Region>) -> Self {
        let nothing = PaRange::new(0, 1).expect("page 0 is a page");
        let mut list = Self { items: [nothing; 32], count: 0 };
        for region in regions.filter_map(round).take(list.items.len()) {
            if let Ok(range) = PaRange::new(region.start().0, region.bytes() / PAGE_SIZE) {
                list.items[list.count] = range;
                list.count += 1;
            }
        }
        list
    }

    fn as_slice(&self) -> &[PaRange] {
        &self.items[..self.count]
    }
}

/// Widens a region to whole pages.
fn outwards(region: Region) -> Option<Region> {
    let end = region.end().0.checked_next_multiple_of(PAGE_SIZE)?;
    Region::new(region.start().align_down(PAGE_SIZE), Pa(end))
}

/// Hands what the firmware keeps to the pool and makes the ownership table, once.
pub fn init(machine: &Machine, kept: Kept) -> Result<(), Error> {
    let range = kept.above.whole_pages().expect("the layout keeps memory behind the image");
    let room = room::region();
    let bytes = ownership_bytes(&machine.memory, room);
    // SAFETY: the start of the kept memory, mapped and used by nobody; the pool gets what is behind.
    let words = unsafe { take_slice::<AtomicU32>(range.start().0, bytes) };
    init_pool(range.start().0 + bytes..range.end().0);
    let known = known(&machine.memory, room);
    let ram = Ranges::of(machine.memory.iter().copied(), Region::whole_pages);
    let reserved = Ranges::of(machine.reserved_for_good(), outwards);
    let (ram, reserved) = (ram.as_slice(), reserved.as_slice());
    let table = Ownership::with_room(known.as_slice(), ram, reserved, words)?;
    mmu::link_tables(room, || pool().take(1))?;
    for page in kept.region.start().page()..kept.region.end().page() {
        match table.keep_for_el2(&PaRange::new(page * PAGE_SIZE, 1)?) {
            // Reserved memory inside is nobody's already.
            Ok(()) | Err(Error::NotOwner) => {}
            Err(error) => return Err(error),
        }
    }
    OWNERSHIP.call_once(|| table);
    Ok(())
}

/// Returns the table of who owns each page.
pub fn ownership() -> &'static Ownership<'static> {
    OWNERSHIP.get().expect("the ownership table is made before it is asked")
}

/// Takes a share in memory of the host's that a VM maps.
pub fn share(pa: Pa, level: Level) -> Status {
    ownership().share(pa, leaf_size(level))
}

/// Gives a share back.
pub fn unshare(pa: Pa, level: Level) {
    ownership().unshare(pa, leaf_size(level));
}

/// Makes ready to give back the shares of many leaves of a level.
#[inline(always)]
pub const fn near(level: Level) -> Near<'static> {
    Near::new(leaf_size(level))
}

#[inline(always)]
const fn leaf_size(level: Level) -> LeafSize {
    match level {
        Level::L1 => LeafSize::Block1G,
        Level::L2 => LeafSize::Block2M,
        Level::L0 | Level::L3 => LeafSize::Page,
    }
}

/// Donates pages of the host's to a VM: afterwards they are zero, and no CPU of the host reaches them.
/// On an error nothing has changed.
pub fn donate(start: Pa, count: u64, vm: VmHandle) -> Status {
    for index in 0..count {
        let page = Pa(start.0 + index * PAGE_SIZE);
        if let Err(error) = donate_page(page, vm) {
            // Nothing has been written yet: the host finds its pages as they were.
            return_pages(start, index, vm);
            return Err(error);
        }
    }
    zero(start, count);
    Ok(())
}

/// The owner changes first, in one step that no share survives; then the host's leaf goes; and the
/// caller uses the page only when that invalidation is complete.
fn donate_page(page: Pa, vm: VmHandle) -> Status {
    ownership().donate(page, vm)?;
    host::take_page(page).inspect_err(|_| {
        ownership().give_back(page, vm).expect("the page was donated just now");
    })
}

/// Gives pages of a VM back to the host, zeroed.
pub fn give_back(start: Pa, count: u64, vm: VmHandle) {
    zero(start, count);
    cache::clean_invalidate(start, count * PAGE_SIZE);
    return_pages(start, count, vm);
}

/// Maps pages of a VM for the host, and makes them its own again.
fn return_pages(start: Pa, count: u64, vm: VmHandle) {
    for index in 0..count {
        let page = Pa(start.0 + index * PAGE_SIZE);
        host::give_page(page);
        ownership().give_back(page, vm).expect("a VM gives back what it was given");
    }
}

/// Tells whether a page that EL2 maps can be read. The caller remembers what it was entered by.
pub fn answers(page: Pa) -> bool {
    // SAFETY: mapped at its own address and aligned; the word is thrown away.
    unsafe { recover::load(page.0 as *const u64) }.is_some()
}

/// Zeroes pages that EL2 or a VM owns and nobody uses.
pub fn zero(start: Pa, count: u64) {
    // SAFETY: the caller took the pages from their owner; all RAM is mapped at its own address.
    unsafe { (start.0 as *mut u8).write_bytes(0, (count * PAGE_SIZE) as usize) };
}

/// A page of the host's that EL2 may use for the length of a call, because it holds a share in it.
///
/// What the host calls RAM may be poisoned, or not answer. A word that can't be read is the host's loss, not
/// EL2's end.
pub struct HostPage {
    page: Pa,
    /// The call's registers, for when a word can't be read.
    call: Interrupted,
}

impl HostPage {
    /// 64-bit words of a page.
    pub const WORDS: usize = PAGE_SIZE as usize / 8;

    /// Takes the page. NOT_OWNER: it is not the host's.
    pub fn take(page: Pa) -> Status<Self> {
        ownership().share(page, LeafSize::Page)?;
        Ok(Self { page, call: Interrupted::remember() })
    }

    /// Room for a copy of the page.
    pub const ROOM: [MaybeUninit<u64>; Self::WORDS] =
        [const { MaybeUninit::uninit() }; Self::WORDS];

    /// Copies the first words of the page, each read once: the host may write others the next moment.
    /// NOT_OWNER: there is no such memory, or it is broken.
    pub fn copy<'a>(&self, count: usize, room: &'a mut [MaybeUninit<u64>]) -> Status<&'a [u64]> {
        assert!(count <= Self::WORDS, "a page has 512 words");
        let room = &mut room[..count];
        // SAFETY: as in `write`; `room` is EL2's own, and long enough. `take` has remembered the call.
        if !unsafe { recover::copy(self.word_at(0), room.as_mut_ptr().cast(), count) } {
            self.call.restore();
            return Err(Error::NotOwner);
        }
        // SAFETY: all of it has just been written, and `MaybeUninit` has the layout of what it holds.
        Ok(unsafe { slice::from_raw_parts(room.as_ptr().cast(), room.len()) })
    }

    /// Writes a 64-bit word of the page.
    #[inline]
    pub fn write(&mut self, index: usize, word: u64) {
        let word_at = self.word_at(index);
        // SAFETY: mapped RAM of the host's, which can't be donated while the share is held. The host
        // may write it too, so the store is volatile and no reference is made.
        unsafe { word_at.write_volatile(word) };
    }

    /// Sets bits in a 64-bit word of the page.
    pub fn set_bits(&mut self, index: usize, bits: u64) {
        let word_at = self.word_at(index);
        // SAFETY: as in `write`. What the host makes of the word meanwhile, it makes of its own answer.
        let word = unsafe { recover::load(word_at) }.unwrap_or_else(|| {
            self.call.restore();
            0
        });
        // SAFETY: as above.
        unsafe { word_at.write_volatile(word | bits) };
    }

    /// Zeroes the first words, and what else of their cache lines is in the page; returns where they are, for
    /// as long as it is held. They are the host's too, so they are written by volatile stores alone.
    pub fn zeroed(&mut self, word_count: usize) -> *mut [u64; Self::WORDS] {
        assert!(word_count <= Self::WORDS, "a page has 512 words");
        if !cache::zero(self.page, word_count as u64 * 8) {
            (0..word_count).for_each(|index| self.write(index, 0));
        }
        self.page.0 as *mut _
    }

    #[inline(always)]
    fn word_at(&self, index: usize) -> *mut u64 {
        assert!(index < Self::WORDS, "a page has 512 words");
        (self.page.0 as *mut u64).wrapping_add(index)
    }
}

impl Drop for HostPage {
    fn drop(&mut self) {
        ownership().unshare(self.page, LeafSize::Page);
    }
}

/// Hands a range of kept RAM to the pool. The range is page-aligned, mapped and used by nobody.
fn init_pool(range: Range<u64>) {
    let pages = (range.end - range.start) / PAGE_SIZE;
    let bitmap_pages = pages.div_ceil(PAGE_SIZE * 8);
    // SAFETY: the start of the range, which the heap is not told of.
    let used = unsafe { take_slice::<AtomicU64>(range.start, bitmap_pages * PAGE_SIZE) };
    let range = range.start + bitmap_pages * PAGE_SIZE..range.end;
    let mut heap = Heap::empty();
    // SAFETY: mapped, unused memory, given up for good.
    unsafe { heap.add_to_heap(range.start as usize, range.end as usize) };
    let free_pages = AtomicUsize::new(((range.end - range.start) / PAGE_SIZE) as usize);
    POOL.call_once(|| Pool { range, used, heap: TicketMutex::new(heap), free_pages });
}

/// Pages of the largest root: sixteen concatenated tables.
const ROOT_PAGES: usize = 16;
#[repr(align(65536))]
struct EmptyRoot(
    #[expect(dead_code, reason = "the walker alone reads it")] [u64; ROOT_PAGES * 512],
);
static EMPTY_ROOT: EmptyRoot = EmptyRoot([0; ROOT_PAGES * 512]);

/// Returns the address of a root without entries, for any shape of a tree.
pub fn empty_root() -> Pa {
    Pa((&raw const EMPTY_ROOT) as u64)
}

#[repr(align(4096))]
struct ZeroPage(#[expect(dead_code, reason = "the host alone reads it")] [u8; PAGE_SIZE as usize]);
// Among the constants, which EL2 can't write.
#[unsafe(link_section = ".rodata.zero_page")]
static ZERO_PAGE: ZeroPage = ZeroPage([0; PAGE_SIZE as usize]);

/// Returns the page of zeroes that the host reads where memory isn't its own.
pub fn zero_page() -> Pa {
    let page = Pa((&raw const ZERO_PAGE) as u64);
    // Where FEAT_S2FWB is missing, the host may read it past the caches.
    cache::clean(page, PAGE_SIZE);
    page
}

/// Views a page as a table.
///
/// # Safety
/// The page is mapped RAM that is used as a table and as nothing else while the reference lives.
pub unsafe fn as_table(page: TablePage) -> &'static Table {
    // SAFETY: the caller's word; a page is aligned for a table, and entries are atomics.
    unsafe { &*(page.pa().0 as *const Table) }
}

/// Views pages as words that several CPUs may use at once.
///
/// # Safety
/// The pages are mapped RAM that was donated to a VM, and nothing else uses them while the reference
/// lives.
pub unsafe fn as_words<'a>(start: Pa, page_count: u64) -> &'a [AtomicU64] {
    // SAFETY: the caller's word; a page is aligned for a word, and any bits are one.
    unsafe {
        slice::from_raw_parts(start.0 as *const AtomicU64, (page_count * PAGE_SIZE / 8) as usize)
    }
}

/// Returns the pool.
pub fn pool() -> &'static Pool {
    POOL.get().expect("the page pool is set up before its first use")
}

/// Makes a zeroed slice of a range of memory.
///
/// # Safety
/// The range is mapped RAM of EL2's own, aligned for `T`, and used by nobody else from now on; all
/// zeroes are a valid `T`.
pub unsafe fn take_slice<T>(start: u64, bytes: u64) -> &'static [T] {
    // SAFETY: the caller's word.
    unsafe {
        (start as *mut u8).write_bytes(0, bytes as usize);
        slice::from_raw_parts(start as *const T, bytes as usize / size_of::<T>())
    }
}

impl Pool {
    /// Takes `count` contiguous pages, zeroed, aligned to `count` rounded up to a power of two.
    pub fn take(&self, count: u64) -> Option<Pa> {
        let bytes = count.next_power_of_two() * PAGE_SIZE;
        let layout = Layout::from_size_align(bytes as usize, bytes as usize).ok()?;
        let start = self.heap.lock().alloc(layout).ok()?.as_ptr() as u64;
        assert!(self.range.start <= start && start + bytes <= self.range.end, "page out of range");
        // SAFETY: the heap handed these bytes out; they are mapped, and nobody else has them.
        unsafe { (start as *mut u8).write_bytes(0, bytes as usize) };
        for page in 0..bytes / PAGE_SIZE {
            assert!(self.mark(start + page * PAGE_SIZE, true), "page handed out twice");
        }
        self.free_pages.fetch_sub((bytes / PAGE_SIZE) as usize, Ordering::Relaxed);
        Some(Pa(start))
    }

    /// Gives back `count` pages that [`Pool::take`] returned together.
    pub fn give(&self, start: Pa, count: u64) {
        let bytes = count.next_power_of_two() * PAGE_SIZE;
        assert!(start.is_aligned(bytes), "pages given back at another boundary than taken");
        for page in 0..bytes / PAGE_SIZE {
            assert!(self.mark(start.0 + page * PAGE_SIZE, false), "page given back twice");
        }
        let layout = Layout::from_size_align(bytes as usize, bytes as usize)
            .expect("a layout that was valid when the pages were taken");
        let pointer = NonNull::new(start.0 as *mut u8).expect("no page of the pool is at 0");
        // SAFETY: the marks say that these pages were handed out and not yet given back.
        unsafe { self.heap.lock().dealloc(pointer, layout) };
        self.free_pages.fetch_add((bytes / PAGE_SIZE) as usize, Ordering::Relaxed);
    }

    /// Returns how many pages are free.
    pub fn free_pages(&self) -> usize {
        self.free_pages.load(Ordering::Relaxed)
    }

    /// Changes a page's mark; tells whether it was the opposite before.
    fn mark(&self, page: u64, used: bool) -> bool {
        assert!(self.range.contains(&page), "page out of the pool's range");
        let (word, bit) = self.place(page);
        let old = if used {
            self.used[word].fetch_or(bit, Ordering::Relaxed)
        } else {
            self.used[word].fetch_and(!bit, Ordering::Relaxed)
        };
        (old & bit == 0) == used
    }

    fn place(&self, page: u64) -> (usize, u64) {
        let index = (page - self.range.start) / PAGE_SIZE;
        ((index / 64) as usize, 1 << (index % 64))
    }
}
