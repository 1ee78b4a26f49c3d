//! The guest of the demonstration: its memory, its vCPUs on their threads, and the device by which it is heard.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::counters::Counters;
use crate::guest::{DEVICE, MEMORY, image, register};
use crate::machine::{Device, Machine};

/// vCPUs: each has a part of the memory.
pub const VCPUS: usize = 2;
/// Bytes of memory that the guest has for its data.
pub const DATA_BYTES: u64 = 64 << 20;
/// Room for the code, before the data.
const CODE_BYTES: u64 = 2 << 20;
const PART_BYTES: u64 = DATA_BYTES / VCPUS as u64;
/// How long a vCPU waits between two rounds: far less than what DAMON looks at.
const REST: Duration = Duration::from_millis(2);
/// How long a guest may need for anything: emulators are slow, and share their machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The device: a console, a doorbell and a command.
#[derive(Default)]
struct Doorbell {
    line: Mutex<String>,
    rounds: [AtomicU64; VCPUS],
    stop: AtomicBool,
    wrong: AtomicU64,
}

/// A guest that runs.
pub struct Guest {
    machine: Machine,
    doorbell: Arc<Doorbell>,
    ended: Receiver<Result<()>>,
}

impl Guest {
    /// Makes the guest and lets it go.
    pub fn start() -> Result<Self> {
        let machine = Machine::new(MEMORY, (CODE_BYTES + DATA_BYTES) as usize)?;
        machine.load(image(), MEMORY)?;
        let doorbell = Arc::new(Doorbell::default());
        let (sender, ended) = channel();
        for index in 0..VCPUS {
            let start = MEMORY + CODE_BYTES + index as u64 * PART_BYTES;
            let (hot, end) = (start + PART_BYTES / 2, start + PART_BYTES);
            let vcpu = machine.vcpu(index, MEMORY, &[start, hot, end, DEVICE])?;
            let (doorbell, sender) = (Arc::clone(&doorbell), sender.clone());
            // A vCPU runs on the thread that asks for it: so each has one. Nobody may be left to be told.
            std::thread::spawn(move || _ = sender.send(vcpu.run(&*doorbell)));
        }
        Ok(Self { machine, doorbell, ended })
    }

    /// Returns where its data is in this process.
    pub fn data(&self) -> Range<u64> {
        let memory = self.machine.memory();
        memory.start + CODE_BYTES..memory.end
    }

    /// Reads the counters of its VM.
    pub fn counters(&self) -> Result<Counters> {
        Counters::read(self.machine.counters()?)
    }

    /// Tells whether the guest uses a page all the time: the first half of each part. It is also what was there
    /// first: who takes away what is oldest, without asking, takes the wrong half.
    pub fn is_hot(page: usize) -> bool {
        page as u64 * super::PAGE_BYTES as u64 % PART_BYTES < PART_BYTES / 2
    }

    /// Returns how many rounds the slower of the vCPUs has done.
    pub fn rounds(&self) -> u64 {
        let rounds = self.doorbell.rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed));
        rounds.min().expect("there are vCPUs")
    }

    /// Waits until each vCPU has done so many rounds more.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let (began, until) = (Instant::now(), self.rounds() + more);
        while self.rounds() < until {
            if let Ok(result) = self.ended.try_recv() {
                result?;
                bail!("a vCPU ended before it was told to");
            }
            if began.elapsed() > PATIENCE {
                bail!("the guest does nothing any more, after {} rounds", self.rounds());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Lets the guest check all of its memory, and returns how many doublewords were wrong.
    pub fn check(self) -> Result<u64> {
        self.doorbell.stop.store(true, Ordering::Relaxed);
        for _ in 0..VCPUS {
            let end = self.ended.recv_timeout(PATIENCE);
            end.context("the guest comes to no end of its check")??;
        }
        Ok(self.doorbell.wrong.load(Ordering::Relaxed))
    }
}

impl Device for Doorbell {
    fn load(&self, vcpu: usize, address: u64) -> Result<u64> {
        match address.wrapping_sub(DEVICE) {
            register::COMMAND => {
                // A guest that never waits shows no more, and takes all that an emulator has.
                std::thread::sleep(REST);
                Ok(self.stop.load(Ordering::Relaxed).into())
            }
            _ => bail!("vCPU {vcpu} loads from {address:#x}, where there is nothing"),
        }
    }

    fn store(&self, vcpu: usize, address: u64, value: u64) -> Result<ControlFlow<()>> {
        match address.wrapping_sub(DEVICE) {
            // All of them say the same: one is enough.
            register::CONSOLE if vcpu == 0 => self.print(value as u8 as char),
            register::CONSOLE => {}
            register::ROUNDS => self.rounds[vcpu].store(value, Ordering::Relaxed),
            register::WRONG => {
                self.wrong.fetch_add(value, Ordering::Relaxed);
                return Ok(ControlFlow::Break(()));
            }
            register::FAULT => bail!("vCPU {vcpu} took an exception, ESR_EL1 is {value:#x}"),
            _ => bail!("vCPU {vcpu} stores {value:#x} to {address:#x}, where there is nothing"),
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl Doorbell {
    fn print(&self, character: char) {
        let mut line = self.line.lock().expect("nobody panics with it");
        match character {
            '\n' => println!("guest: {}", std::mem::take(&mut *line)),
            other => line.push(other),
        }
    }
}
