//! Reads the file of binary statistics that a VM has (Documentation/virt/kvm/api.rst, 4.133).
#![cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]

use std::collections::BTreeMap;

/// Values by name. Of a statistic with several, the first.
pub type Values = BTreeMap<String, u64>;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads header, descriptors and data; none, if something reaches past the end.
pub fn parse(bytes: &[u8]) -> Option<Values> {
    /// Flags, exponent, size, offset, bucket size; then the name.
    const FIXED: usize = 16;
    let [name_bytes, count, _id, descriptors, data] =
        [4, 8, 12, 16, 20].map(|at| word(bytes, at).map(|word| word as usize));
    let (name_bytes, descriptors, data) = (name_bytes?, descriptors?, data?);
    let mut values = Values::new();
    for index in 0..count? {
        let at = descriptors + index * (FIXED + name_bytes);
        let name = bytes.get(at + FIXED..at + FIXED + name_bytes)?;
        let end = name.iter().position(|&byte| byte == 0)?;
        let offset = data + word(bytes, at + 8)? as usize;
        let value = u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?);
        values.insert(String::from_utf8(name[..end].to_vec()).ok()?, value);
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two statistics with names of 8 bytes, as the document lays them out: header of 24 bytes, its own id
    /// behind it, descriptors at 32, data at 80.
    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [0u32, 8, 2, 24, 32, 80] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"kvm-1\0\0\0");
        for (name, offset) in [(b"maps\0\0\0\0", 0u32), (b"refused\0", 8)] {
            bytes.extend(0u32.to_le_bytes());
            bytes.extend([0, 0, 1, 0]);
            bytes.extend(offset.to_le_bytes());
            bytes.extend(0u32.to_le_bytes());
            bytes.extend(name);
        }
        bytes.extend(7u64.to_le_bytes());
        bytes.extend(u64::MAX.to_le_bytes());
        bytes
    }

    #[test]
    fn values_are_found_by_name() {
        let values = parse(&file()).unwrap();
        assert_eq!(values["maps"], 7);
        assert_eq!(values["refused"], u64::MAX);
        assert_eq!(values.len(), 2);
    }

    #[test]
    fn a_file_cut_short_is_none() {
        let file = file();
        for end in 0..file.len() {
            assert_eq!(parse(&file[..end]), None, "cut at {end}");
        }
    }
}
