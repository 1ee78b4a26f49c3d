//! What is shown, in its order.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use super::damon::{Damon, SAMPLES};
use super::guest::{DATA_BYTES, Guest, VCPUS};
use super::pressure::{Group, make_swap};
use super::residence::{self, Place};
use super::{PAGE_BYTES, picture};

const MIB: u64 = 1 << 20;
const PAGES: usize = DATA_BYTES as usize / PAGE_BYTES;
/// Pictures before the pressure, and the time between two.
const LOOKS: usize = 3;
const PAUSE: Duration = Duration::from_millis(1500);
/// How much of the guest may stay in memory, step by step: what it uses is 32 MiB.
const STEPS_MIB: [u64; 3] = [56, 48, 40];
/// What must be cold of what was taken away.
const COLD_PERCENT: usize = 95;
/// What DAMON must be right about in its last look.
const FOUND_PERCENT: usize = 90;

/// Which pages were taken away.
#[derive(Default)]
struct Taken {
    /// Pages in swap that the guest doesn't use.
    cold: usize,
    /// Pages in swap that it does.
    hot: usize,
    /// Pages that had to be brought back since the pressure began: hot as well, since the guest uses no other
    /// (or this program's own, a few).
    back: usize,
}

/// Shows it all; returns whether all was as it should be.
pub fn run() -> Result<bool> {
    let group = Group::join()?;
    make_swap()?;
    introduce();
    let guest = Guest::start()?;
    // From the second round on, what is hot is in use.
    guest.wait_for(2)?;
    let damon = Damon::watch(guest.data())?;
    for look in 1..=LOOKS {
        println!("\nlook {look} of {LOOKS}");
        sleep(PAUSE);
        let used = picture::draw_flags((0..PAGES).map(Guest::is_hot));
        let right = look_at(&guest, &damon, ("what the guest uses", &used))?;
        println!("  DAMON is right about {right} of {PAGES} pages");
    }
    let began = guest.rounds();
    let (taken, right) = squeeze(&guest, &damon, &group)?;
    let rounds = guest.rounds() - began;
    drop(damon);
    if let Some(text) = guest.counters()?.describe() {
        println!("\n{text}");
    }
    println!("\nNow the guest reads all of its memory, what is in swap too, and compares.");
    let wrong = guest.check()?;
    Ok(conclude(&taken, right, rounds, wrong))
}

fn introduce() {
    let mib = DATA_BYTES / MIB;
    println!(
        "A guest with {VCPUS} vCPUs fills {mib} MiB, {PAGES} pages, and then uses one half of that."
    );
    println!("DAMON, the kernel's monitor of memory accesses, watches it through /dev/kvm.");
    println!("One cell is {} pages: █ ▓ ▒ ░ · from all to none", picture::pages_per_cell(PAGES));
}

/// Draws what DAMON finds beside something else; returns about how many pages it is right.
fn look_at(guest: &Guest, damon: &Damon, other: (&str, &[char])) -> Result<usize> {
    guest.wait_for(1)?;
    let accesses = damon.accesses()?;
    picture::print(("accesses, as DAMON finds them", &picture::draw(&accesses, SAMPLES)), other);
    let right = accesses.iter().enumerate();
    Ok(right.filter(|(page, count)| (**count > 0) == Guest::is_hot(*page)).count())
}

/// Gives the guest less and less memory, while it goes on; returns what was taken in the end, and about how many
/// pages DAMON is right then.
fn squeeze(guest: &Guest, damon: &Damon, group: &Group) -> Result<(Taken, usize)> {
    // What this process has beside the guest's data.
    let own = group.bytes()?.saturating_sub(DATA_BYTES);
    let refaults = group.refaults()?;
    let (mut taken, mut right) = (Taken::default(), 0);
    for mib in STEPS_MIB {
        let before = guest.rounds();
        group.limit(own + mib * MIB)?;
        println!("\nThe memory cgroup is now too small: {mib} MiB of the guest may stay.");
        sleep(PAUSE);
        let places = residence::pages(&guest.data())?;
        let resident = picture::draw_flags(places.iter().map(|place| *place == Place::Memory));
        right = look_at(guest, damon, ("what is in memory", &resident))?;
        taken = Taken::of(&places, (group.refaults()? - refaults) as usize);
        let (Taken { cold, hot, back }, rounds) = (&taken, guest.rounds() - before);
        println!("  in swap: {cold} cold pages, {hot} hot; taken and brought back: {back}");
        println!("  the guest did {rounds} rounds meanwhile");
    }
    Ok((taken, right))
}

impl Taken {
    fn of(places: &[Place], back: usize) -> Self {
        let swapped = |hot: bool| {
            let swapped = places.iter().enumerate().filter(|(_, place)| **place == Place::Swap);
            swapped.filter(|(page, _)| Guest::is_hot(*page) == hot).count()
        };
        Self { cold: swapped(false), hot: swapped(true), back }
    }

    fn all(&self) -> usize {
        self.cold + self.hot + self.back
    }

    /// Tells whether enough was taken, and it was the cold half.
    fn is_right(&self) -> bool {
        let least = (DATA_BYTES - STEPS_MIB[STEPS_MIB.len() - 1] * MIB) as usize / PAGE_BYTES / 2;
        self.all() >= least && self.cold * 100 >= self.all() * COLD_PERCENT
    }
}

/// Says how it went, in the last line.
fn conclude(taken: &Taken, right: usize, rounds: u64, wrong: u64) -> bool {
    let (all, Taken { cold, .. }) = (taken.all(), taken);
    if wrong > 0 {
        println!(
            "\nWRONG: {wrong} doublewords of the guest's memory were not what it had written."
        );
    } else if !taken.is_right() {
        println!("\nWRONG: not the cold half was taken: of {all} pages, {cold} were cold.");
    } else if right * 100 < PAGES * FOUND_PERCENT {
        println!("\nWRONG: DAMON did not find what the guest uses: right about {right} pages.");
    } else {
        let mib = DATA_BYTES / MIB;
        println!("\nUnder pressure the guest did {rounds} rounds, and DAMON was right to the end.");
        println!(
            "Shown: {cold} of {all} pages taken away were cold; all {mib} MiB came back right."
        );
        return true;
    }
    false
}
