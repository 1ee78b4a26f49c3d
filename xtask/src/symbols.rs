//! Names for the addresses of a crash report.
//!
//! The firmware prints addresses as offsets into its image (`image+0x1234`), which are the link
//! addresses, since it is linked from 0.

use std::path::Path;

use addr2line::Loader;

/// What marks an address in a line of the firmware.
const MARK: &str = "image+0x";
/// What stands before an address to which a function returns.
const FRAME: &str = "frame ";

/// The symbols of a firmware.
pub struct Symbols(Option<Loader>);

impl Symbols {
    /// Opens the symbols of a linked file; without them addresses stay as they are.
    pub fn open(elf: &Path) -> Self {
        Self(Loader::new(elf).ok())
    }

    /// Makes do without: addresses stay as they are.
    pub fn none() -> Self {
        Self(None)
    }

    /// Adds to a line what stands behind its address.
    pub fn annotate(&self, line: &mut String) {
        if let Some(name) = self.explain(line) {
            line.push_str("  ");
            line.push_str(&name);
        }
    }

    /// Returns function, file and line behind the first address of a line of the console.
    pub fn explain(&self, line: &str) -> Option<String> {
        let (before, digits) = line.split_once(MARK)?;
        let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
        let mut address = u64::from_str_radix(&digits[..end], 16).ok()?;
        if before.ends_with(FRAME) {
            // The call is before it; after a call that never returns another function may begin.
            address = address.checked_sub(4)?;
        }
        let loader = self.0.as_ref()?;
        let mut names = Vec::new();
        let mut frames = loader.find_frames(address).ok()?;
        while let Ok(Some(frame)) = frames.next() {
            let function = frame.function.as_ref().and_then(|name| name.demangle().ok());
            let mut name = function.as_deref().unwrap_or("?").to_owned();
            if let Some((file, line)) = frame.location.and_then(|at| Some((at.file?, at.line?))) {
                name += &format!(" ({}:{line})", shorten(file));
            }
            names.push(name);
        }
        if names.is_empty() {
            names.push(loader.find_symbol(address)?.to_owned());
        }
        Some(names.join(" in "))
    }
}

/// Drops the part of a path that is the same for all.
fn shorten(file: &str) -> &str {
    let root = crate::paths::root();
    let root = root.to_string_lossy();
    file.strip_prefix(root.as_ref()).map_or(file, |rest| rest.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn a_function_to_be_found() -> usize {
        let here = a_function_to_be_found as fn() -> usize;
        here as usize
    }

    #[test]
    fn own_symbols_are_found() {
        let elf = std::env::current_exe().unwrap();
        let symbols = Symbols::open(&elf);
        // The run-time address less where the file is mapped is the link address.
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let own = maps.lines().find(|line| line.ends_with(elf.to_str().unwrap())).unwrap();
        let base = usize::from_str_radix(own.split('-').next().unwrap(), 16).unwrap();
        let start = a_function_to_be_found() - base;
        let line = format!("crash: pc image+{start:#x}, CPU 0");
        for line in [line.clone(), format!("crash: frame image+{:#x}", start + 4)] {
            let name = symbols.explain(&line).unwrap();
            assert!(name.contains("a_function_to_be_found"), "{name}");
            assert!(name.contains("xtask/src/symbols.rs:"), "{name}");
        }
        let before = format!("crash: frame image+{start:#x}");
        let name = symbols.explain(&before).unwrap_or_default();
        assert!(!name.contains("a_function_to_be_found"), "{name}");
        assert_eq!(symbols.explain("no address here"), None);
        assert_eq!(Symbols::open(Path::new("/absent")).explain(&line), None);
    }
}
