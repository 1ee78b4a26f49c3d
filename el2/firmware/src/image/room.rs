//! Memory that comes after boot, and goes.
//!
//! The board says where it may come. At boot there is *room* for a part of that: words in the ownership table
//! that say "nobody's", tables of EL2's own map without entries, and pages in the pool for the tables that the
//! host's map would need. So to add memory takes no memory, and nothing that other CPUs look at moves.
//!
//! The order: memory that is added is mapped at EL2, read once a page, and only then the host's; memory that
//! goes is nobody's first. In between a share of the host's page is what keeps EL2's map of it: whoever holds
//! one keeps [`remove`] out.

use spin::mutex::TicketMutex;
use verdigris_abi::{Error, PAGE_SIZE, Pa, Status};
use verdigris_core::call::PaRange;
use verdigris_core::ownership::Owner;
use verdigris_platform::{Machine, Region};
use verdigris_stage2::Outcome;

use spin::Once;

use super::recover::Interrupted;
use super::{memory, mmu, sysreg};

const GIB: u64 = 1 << 30;
const BLOCK_BYTES: u64 = 2 << 20;
const BLOCK_PAGES: u64 = BLOCK_BYTES / PAGE_SIZE;

static ROOM: Once<Region> = Once::new();
/// Lets one call in at a time: the table says of each page whose it is, but not whether EL2 maps it.
static CHANGE: TicketMutex<()> = TicketMutex::new(());

/// Decides how much room there is to be: as much as there is RAM, where nothing was asked for.
pub fn plan(machine: &Machine, asked_gib: Option<u32>) -> Region {
    let window = machine.window_above();
    let ram_bytes = machine.memory_bytes().next_multiple_of(GIB);
    let wanted = asked_gib.map_or(ram_bytes, |gib| u64::from(gib) * GIB);
    let room = Region::with_size(window.start(), wanted.min(window.bytes())).unwrap_or_default();
    *ROOM.call_once(|| room)
}

/// Returns where the room is.
pub fn region() -> Region {
    ROOM.get().copied().unwrap_or_default()
}

/// Makes memory the host's, block by block, up to a pending interrupt. NOT_OWNER: there is no room, or no
/// memory answers.
pub fn add(range: &PaRange) -> Outcome {
    each_block(range, add_block)
}

/// Makes memory nobody's. BUSY: a page is shared or donated.
pub fn remove(range: &PaRange) -> Outcome {
    each_block(range, remove_block)
}

fn each_block(range: &PaRange, change: fn(Pa) -> Status) -> Outcome {
    let asked = Region::new(range.start(), range.end()).expect("a range is in order");
    if !region().contains(asked) {
        return Outcome::stopped(0, Error::NotOwner);
    }
    let _guard = CHANGE.lock();
    for done in (0..range.page_count()).step_by(BLOCK_PAGES as usize) {
        if done != 0 && sysreg::interrupt_pending() {
            return Outcome::done(done);
        }
        if let Err(error) = change(Pa(range.start().0 + done * PAGE_SIZE)) {
            return Outcome::stopped(done, error);
        }
    }
    Outcome::done(range.page_count())
}

fn add_block(block: Pa) -> Status {
    if memory::ownership().query(block).owner != Owner::None {
        return Ok(());
    }
    mmu::map_block(block);
    if !answers(block) {
        mmu::unmap_block(block);
        return Err(Error::NotOwner);
    }
    memory::ownership().add(block)
}

fn remove_block(block: Pa) -> Status {
    if memory::ownership().query(block).owner == Owner::None {
        return Ok(());
    }
    memory::ownership().remove(block)?;
    mmu::unmap_block(block);
    Ok(())
}

/// Reads a word of each page: the host may be wrong about what there is.
fn answers(block: Pa) -> bool {
    let interrupted = Interrupted::remember();
    let answers = (0..BLOCK_PAGES).all(|page| memory::answers(Pa(block.0 + page * PAGE_SIZE)));
    if !answers {
        interrupted.restore();
    }
    answers
}
