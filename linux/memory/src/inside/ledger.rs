//! Guests that check and write their memory all the time: what every test ends with.
//!
//! Each page has a version in firm memory and a content that follows from address and version, so the guest finds
//! a page that is old, foreign or zero by itself, within rounds; at the end the host looks at every page once more,
//! through its own mapping.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use verdigris_guest::{control, ledger, program};

use super::guest::{DATA, Guest, MOST_PAGES};
use super::sys;
use super::vcpu::{Vcpu, kick};

/// How long rounds may take that are waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// vCPUs at work on the first pages of a guest's data.
pub struct Ledger {
    guest: Arc<Guest>,
    pages: usize,
    players: Vec<Player>,
}

struct Player {
    thread: JoinHandle<Vcpu>,
    number: i32,
}

impl Ledger {
    /// Starts vCPUs 0 to `count` - 1 on all pages of the data.
    pub fn start(guest: &Arc<Guest>, count: usize) -> Self {
        Self::start_on(guest, count, guest.data.pages())
    }

    /// Starts vCPUs 0 to `count` - 1 on the first pages of the data.
    pub fn start_on(guest: &Arc<Guest>, count: usize, pages: usize) -> Self {
        let vcpus = (0..count).map(|index| guest.vcpu(index)).collect();
        Self::resume(guest, vcpus, pages)
    }

    /// Starts vCPUs that were made before.
    pub fn resume(guest: &Arc<Guest>, vcpus: Vec<Vcpu>, pages: usize) -> Self {
        assert!(pages <= MOST_PAGES);
        let count = vcpus.len();
        let play = |(index, vcpu)| player(guest, vcpu, index, count, pages);
        let players = vcpus.into_iter().enumerate().map(play).collect();
        Self { guest: Arc::clone(guest), pages, players }
    }

    /// Returns the rounds of the slowest vCPU.
    pub fn rounds(&self) -> u64 {
        let rounds = |index| self.guest.control(index, control::ROUNDS);
        (0..self.players.len()).map(rounds).min().expect("a vCPU")
    }

    /// Waits until each vCPU has done so many rounds more; ends the test if one finds something wrong.
    pub fn wait(&self, more: u64) {
        let (end, target) = (Instant::now() + PATIENCE, self.rounds() + more);
        while self.rounds() < target {
            self.check_guests();
            let ended = self.players.iter().any(|player| player.thread.is_finished());
            assert!(!ended, "a vCPU has ended by itself");
            assert!(Instant::now() < end, "the guest is stuck at {} rounds", self.rounds());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn check_guests(&self) {
        for index in 0..self.players.len() {
            let word = |word| self.guest.control(index, word);
            let (wrong, address, value) =
                (word(control::WRONG), word(control::WRONG_ADDRESS), word(control::WRONG_VALUE));
            let version =
                self.guest.version((address.saturating_sub(DATA) / 4096) as usize % MOST_PAGES);
            assert_eq!(
                wrong,
                0,
                "vCPU {index} found wrong doublewords, first at {address:#x}: {value:#x}; its page's version \
                 is now {version}, content {:#x}, {:#x} before",
                ledger::content(address, version),
                ledger::content(address, version.saturating_sub(1))
            );
        }
    }

    /// Lets all vCPUs leave their runs for a moment.
    pub fn kick(&self) {
        self.players.iter().for_each(|player| kick(player.number));
    }

    /// Stops the vCPUs, without looking at what they wrote.
    pub fn pause(self) -> Vec<Vcpu> {
        for index in 0..self.players.len() {
            self.guest.set_control(index, control::STOP, 1);
        }
        let end = |player: Player| player.thread.join().expect("no panic on a vCPU's thread");
        self.players.into_iter().map(end).collect()
    }

    /// Stops the vCPUs and checks every byte.
    pub fn finish(self) -> Vec<Vcpu> {
        let (guest, pages, count) = (Arc::clone(&self.guest), self.pages, self.players.len());
        let rounds = self.rounds();
        assert!(rounds > 0, "the guest did nothing");
        let vcpus = self.pause();
        for index in 0..count {
            assert_eq!(
                guest.control(index, control::WRONG),
                0,
                "vCPU {index} found something wrong"
            );
        }
        check_every_byte(&guest, pages);
        println!("{rounds} rounds, {pages} pages right");
        vcpus
    }
}

fn player(guest: &Arc<Guest>, mut vcpu: Vcpu, index: usize, count: usize, pages: usize) -> Player {
    guest.reset_control(index);
    let (guest, (sender, number)) = (Arc::clone(guest), std::sync::mpsc::channel());
    let thread = std::thread::spawn(move || {
        sender.send(sys::thread_number()).expect("somebody waits");
        let (versions, control) = (guest.versions_address(), guest.control_address(index));
        let words = [DATA, pages as u64, versions, index as u64, count as u64, control];
        vcpu.program(program::LEDGER, &words);
        vcpu
    });
    Player { thread, number: number.recv().expect("the thread has begun") }
}

/// Compares all pages with the ledger, through the host's own mapping.
pub fn check_every_byte(guest: &Guest, pages: usize) {
    for page in 0..pages {
        let version = guest.version(page);
        for (index, value) in guest.data.page(page).into_iter().enumerate() {
            let address = guest.page_address(page) + index as u64 * 8;
            let expected = ledger::content(address, version);
            assert_eq!(value, expected, "{address:#x}, of page {page}, version {version}");
        }
    }
}
