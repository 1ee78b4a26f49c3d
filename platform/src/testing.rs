//! Device trees for tests: QEMU's own, and made-up ones.

use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use verdigris_abi::Pa;

use crate::region::Region;
use crate::tree::blob::{self, Token, Walk};

/// QEMU 10.0: 4 CPUs, 1 GiB, GICv3, kernel and ramdisk by guest-loader.
pub const QEMU_10: &[u8] = include_bytes!("../testdata/qemu-10.0-gicv3-modules.dtb");
/// QEMU 7.2: 1 CPU, 1 GiB, GICv2, ramdisk by `-initrd`.
pub const QEMU_7: &[u8] = include_bytes!("../testdata/qemu-7.2-gicv2-initrd.dtb");

/// Makes a range.
pub fn region(start: u64, end: u64) -> Region {
    Region::new(Pa(start), Pa(end)).unwrap()
}

/// Lengthens a tree to a declared size, as QEMU does to 1 MiB.
pub fn padded(dtb: &[u8], total_bytes: usize) -> Vec<u8> {
    let mut padded = dtb.to_vec();
    padded.resize(total_bytes, 0);
    padded[4..8].copy_from_slice(&(total_bytes as u32).to_be_bytes());
    padded
}

/// Lists all nodes (with an empty value) and properties of a tree, by path, in order.
pub fn list(dtb: &[u8]) -> Vec<(String, Vec<u8>)> {
    let blocks = blob::check(dtb).unwrap();
    let mut walk = Walk::new(dtb, &blocks, blocks.structure.start);
    let mut path = vec![];
    let mut entries = vec![];
    loop {
        match walk.next_token().unwrap().1 {
            Token::Begin { name } => {
                path.push(name.to_string());
                entries.push((path.join("/"), vec![]));
            }
            Token::EndNode => drop(path.pop()),
            Token::Property { name, value } => {
                entries.push((path.join("/") + ":" + name, dtb[value].to_vec()));
            }
            Token::Nop => {}
            Token::End => return entries,
        }
    }
}

/// Returns the value of a property, by path.
pub fn value(dtb: &[u8], path: &str) -> Option<Vec<u8>> {
    list(dtb).into_iter().find(|entry| entry.0 == path).map(|entry| entry.1)
}

/// Returns cells as bytes.
pub fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

/// Writes a tree, node by node. Strings are not shared between properties.
#[derive(Default)]
pub struct Builder {
    pub reservations: Vec<(u64, u64)>,
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Builder {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        let length = self.structure.len().next_multiple_of(4);
        self.structure.resize(length, 0);
    }

    pub fn bytes(&self) -> usize {
        56 + self.structure.len() + self.strings.len()
    }

    pub fn begin(&mut self, name: &str) -> &mut Self {
        self.word(1);
        self.structure.extend(name.as_bytes());
        self.structure.push(0);
        self.pad();
        self
    }

    pub fn end(&mut self) -> &mut Self {
        self.word(2);
        self
    }

    pub fn nop(&mut self) -> &mut Self {
        self.word(4);
        self
    }

    pub fn property(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.word(3);
        self.word(value.len() as u32);
        self.word(self.strings.len() as u32);
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        self.structure.extend(value);
        self.pad();
        self
    }

    pub fn cells(&mut self, name: &str, values: &[u32]) -> &mut Self {
        self.property(name, &cells(values))
    }

    /// Ends the tree: header, reservations, structure, strings, in that order and without gaps.
    pub fn build(&mut self) -> Vec<u8> {
        self.word(9);
        let mut reservations: Vec<u8> = vec![];
        for (address, bytes) in self.reservations.iter().chain([&(0, 0)]) {
            reservations.extend(address.to_be_bytes());
            reservations.extend(bytes.to_be_bytes());
        }
        let structure_at = 40 + reservations.len();
        let strings_at = structure_at + self.structure.len();
        let total = strings_at + self.strings.len();
        let (strings, structure) = (self.strings.len(), self.structure.len());
        let header =
            [0xd00d_feed, total, structure_at, strings_at, 40, 17, 16, 0, strings, structure];
        let header: Vec<u32> = header.iter().map(|word| *word as u32).collect();
        [cells(&header), reservations, self.structure.clone(), self.strings.clone()].concat()
    }
}

/// Begins a tree of a small machine of the board `virt`, with RAM from 1 to 2 GiB; ends no node but
/// those it is complete without.
pub fn small_machine() -> Builder {
    let mut tree = Builder::default();
    tree.begin("");
    tree.property("compatible", b"linux,dummy-virt\0");
    tree.cells("#address-cells", &[2]).cells("#size-cells", &[2]);
    tree.begin("timer").property("compatible", b"arm,armv8-timer\0");
    tree.cells("interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]).end();
    tree.begin("intc").property("compatible", b"arm,gic-v3\0");
    tree.cells("#interrupt-cells", &[3]).cells("reg", &[0, 0x800_0000, 0, 0x1_0000]).end();
    tree.begin("cpus").cells("#address-cells", &[1]).cells("#size-cells", &[0]);
    tree.begin("cpu@0").property("device_type", b"cpu\0").cells("reg", &[0]).end().end();
    tree.begin("memory").property("device_type", b"memory\0");
    tree.cells("reg", &[0, 0x4000_0000, 0, 0x4000_0000]).end();
    tree
}

/// Random numbers that are the same in every run (xorshift64).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
