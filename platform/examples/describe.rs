//! Prints what the firmware reads from a device tree, and writes the tree that the host would see.
//!
//! For porting: `cargo run -p verdigris-platform --example describe TREE.dtb [HOST.dtb]`. The firmware
//! is taken to keep the first 32 MiB of RAM.

use std::env;
use std::error::Error;
use std::fs;
use std::process::ExitCode;

use verdigris_abi::Pa;
use verdigris_platform::{Region, host_tree, parse};

fn main() -> ExitCode {
    match describe() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn describe() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let tree = arguments.next().ok_or("usage: describe TREE.dtb [HOST.dtb]")?;
    let mut dtb = fs::read(tree)?;
    let machine = parse(&dtb)?;
    println!("{machine:#x?}");
    if let Some(host) = arguments.next() {
        let start = machine.memory[0].start();
        let kept = Region::new(start, Pa(start.0 + (32 << 20))).ok_or("no memory")?;
        host_tree::edit(&mut dtb, &machine, kept)?;
        fs::write(host, dtb)?;
    }
    Ok(())
}
