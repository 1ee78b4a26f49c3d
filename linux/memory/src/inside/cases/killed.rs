//! Who is killed in the midst of a long call makes no more of it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use verdigris_guest::{program, touch};
use verdigris_ktap::{skip, test_table};

use super::support::{HAND, touch_blocks};
use crate::inside::counters::{Counters, PARAMETERS, is_verdigris, wait_until, write};
use crate::inside::guest::{DATA, DATA_SLOT, Guest};
use crate::inside::region::Kind;
use crate::inside::sys::{self, BLOCK, PAGE};
use crate::inside::vm::{LOG, statistics_of};
use crate::stats;

test_table! { "memory", 300: killed_before_a_log_is_exact }
test_table! { VICTIMS, "victim", 300: starts_a_log }

const BLOCKS: usize = 4;
const SPLIT: &str = "fw_blocks_split";

/// What is killed: a guest on blocks, whose slot begins to log. Says first where its statistics are.
fn starts_a_log() {
    let guest = Guest::new(Kind::Blocks, BLOCKS * BLOCK);
    touch_blocks(&guest.data, &guest.data.all());
    let words = [DATA, (BLOCKS * BLOCK / PAGE) as u64, (BLOCK / PAGE) as u64, touch::WRITE, 0];
    guest.vcpu(HAND).program(program::TOUCH, &words);
    let statistics = statistics_of(&guest.vm.fd);
    println!("statistics {}", statistics.as_raw_fd());
    guest.vm.add(DATA_SLOT, DATA, &guest.data, guest.data.all(), LOG);
    println!("it logs");
}

fn read(statistics: &File) -> stats::Values {
    let mut bytes = vec![0; 1 << 16];
    let length = statistics.read_at(&mut bytes, 0).expect("statistics can be read");
    stats::parse(&bytes[..length]).expect("statistics are well formed")
}

/// Splitting the blocks of a large slot takes long. Killed before it has begun, a process splits none; the VM stays, since its
/// statistics are open elsewhere.
fn killed_before_a_log_is_exact() {
    if !is_verdigris() {
        skip("only the driver can be stopped at a point");
    }
    let parameters = Path::new(PARAMETERS);
    let slept = || Counters::read(parameters.join("pauses")).get("before_split");
    write(parameters.join("pause_ms"), "60000");
    write(parameters.join("pause_point"), "before_split");
    let before = slept();
    let mut command = Command::new("/proc/self/exe");
    command.args(["exec", "starts_a_log"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut victim = command.spawn().expect("this program can start itself");
    let mut lines = BufReader::new(victim.stdout.take().expect("a pipe")).lines();
    let line = lines.next().expect("a line").expect("a line");
    let fd = line.strip_prefix("statistics ").and_then(|fd| fd.parse().ok()).expect("a number");
    wait_until("the victim is at the point", || slept() > before);
    let statistics = sys::file_of(victim.id() as i32, fd).expect("its statistics");
    assert!(read(&statistics)["blocks_mapped"] >= BLOCKS as u64, "there are no blocks to split");
    victim.kill().expect("it is there");
    victim.wait().expect("a child");
    assert!(lines.next().is_none(), "the victim has ended its call");
    assert_eq!(read(&statistics)[SPLIT], 0, "blocks that were split by who was killed");
}
