//! The device tree: copied, and told of PSCI, which QEMU leaves to whoever is at EL3.
//!
//! Format: Devicetree Specification 0.4, chapter 5. QEMU leaves room at the end of the tree.

/// Fields of the header, by offset.
const TOTAL: usize = 4;
const STRUCT: usize = 8;
const STRINGS: usize = 12;
const STRINGS_SIZE: usize = 32;
const STRUCT_SIZE: usize = 36;

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;

/// The names of the properties that are added, one string behind the other.
const NAMES: &[u8] = b"enable-method\0method\0compatible\0";
const ENABLE_METHOD: u32 = 0;
const METHOD: u32 = 14;
const COMPATIBLE: u32 = 21;

/// A tree in memory that is Device: single bytes, and no library calls.
struct Tree(*mut u8);

/// Copies the tree and adds `/psci`, and `enable-method` to each CPU.
///
/// # Safety
/// `from` is a device tree, and both places are memory of its size.
pub unsafe fn copy(from: *const u8, to: *mut u8) {
    let from = Tree(from.cast_mut());
    let tree = Tree(to);
    for at in 0..from.word(TOTAL) as usize {
        tree.set_byte(at, from.byte(at));
    }
    let names = tree.word(STRINGS_SIZE);
    let end = (tree.word(STRINGS) + names) as usize;
    NAMES.iter().enumerate().for_each(|(index, &name)| tree.set_byte(end + index, name));
    tree.set_word(STRINGS_SIZE, names + NAMES.len() as u32);
    let root_end = tree.enable_cpus(names);
    tree.add_psci(root_end, names);
}

impl Tree {
    fn byte(&self, at: usize) -> u8 {
        // SAFETY: inside the tree, by the word of `copy`'s caller and the format.
        unsafe { self.0.add(at).read_volatile() }
    }

    fn set_byte(&self, at: usize, byte: u8) {
        // SAFETY: as above.
        unsafe { self.0.add(at).write_volatile(byte) };
    }

    fn word(&self, at: usize) -> u32 {
        (0..4).fold(0, |word, index| word << 8 | u32::from(self.byte(at + index)))
    }

    fn set_word(&self, at: usize, word: u32) {
        (0..4).for_each(|index| self.set_byte(at + index, (word >> (24 - 8 * index)) as u8));
    }

    /// Makes room in the structure block, whose bytes and strings move up.
    fn insert(&self, at: usize, bytes: usize) {
        let (strings, size) = (self.word(STRINGS) as usize, self.word(STRINGS_SIZE) as usize);
        for from in (at..strings + size).rev() {
            self.set_byte(from + bytes, self.byte(from));
        }
        self.set_word(STRINGS, (strings + bytes) as u32);
        self.set_word(STRUCT_SIZE, self.word(STRUCT_SIZE) + bytes as u32);
    }

    /// Adds a property to a node, at the place of its next token; returns the place behind it.
    fn add_property(&self, at: usize, name: u32, value: &[u8]) -> usize {
        let padded = value.len().next_multiple_of(4);
        self.insert(at, 12 + padded);
        self.set_word(at, PROPERTY);
        self.set_word(at + 4, value.len() as u32);
        self.set_word(at + 8, name);
        (0..padded).for_each(|index| {
            self.set_byte(at + 12 + index, value.get(index).copied().unwrap_or(0));
        });
        at + 12 + padded
    }

    /// Tells whether the name at a place begins so.
    fn starts_with(&self, at: usize, start: &[u8]) -> bool {
        start.iter().enumerate().all(|(index, &byte)| self.byte(at + index) == byte)
    }

    fn behind_name(&self, at: usize) -> usize {
        let mut end = at;
        while self.byte(end) != 0 {
            end += 1;
        }
        (end + 1).next_multiple_of(4)
    }

    /// Adds `enable-method` to each CPU, and returns where the root node ends. The tree starts at a multiple of 4.
    fn enable_cpus(&self, names: u32) -> usize {
        let (mut at, mut depth) = (self.word(STRUCT) as usize, 0);
        loop {
            match self.word(at) {
                BEGIN_NODE => {
                    depth += 1;
                    let is_cpu = depth == 3 && self.starts_with(at + 4, b"cpu@");
                    at = self.behind_name(at + 4);
                    if is_cpu {
                        at = self.add_property(at, names + ENABLE_METHOD, b"psci\0");
                    }
                }
                END_NODE if depth == 1 => return at,
                END_NODE => (at, depth) = (at + 4, depth - 1),
                PROPERTY => at += 12 + (self.word(at + 4) as usize).next_multiple_of(4),
                NOP => at += 4,
                _ => return at,
            }
        }
    }

    fn add_psci(&self, at: usize, names: u32) {
        self.insert(at, 16);
        self.set_word(at, BEGIN_NODE);
        b"psci\0\0\0\0"
            .iter()
            .enumerate()
            .for_each(|(index, &byte)| self.set_byte(at + 4 + index, byte));
        self.set_word(at + 12, END_NODE);
        let at = self.add_property(at + 12, names + COMPATIBLE, b"arm,psci-1.0\0arm,psci-0.2\0");
        self.add_property(at, names + METHOD, b"smc\0");
    }
}
