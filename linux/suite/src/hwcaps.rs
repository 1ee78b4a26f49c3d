//! What the kernel tells a process about its CPU: compared between a host under the firmware and one
//! without.

use crate::sys;

/// Values of the auxiliary vector: AT_HWCAP and its sequels (uapi/linux/auxvec.h).
const CAPABILITIES: [(&str, u64); 4] =
    [("hwcap", 16), ("hwcap2", 26), ("hwcap3", 29), ("hwcap4", 30)];
/// PR_SVE_SET_VL, PR_SME_SET_VL (uapi/linux/prctl.h): return the length that was set.
const VECTORS: [(&str, i32); 2] = [("sve", 50), ("sme", 63)];
/// More than any CPU has; the kernel takes what there is.
const MOST_VECTOR_BYTES: u64 = 8192;
const LENGTH_MASK: i32 = 0xffff;

/// Prints a line for each.
pub fn print() {
    for (name, kind) in CAPABILITIES {
        println!("{name} {:#018x}", sys::auxiliary(kind));
    }
    for (name, option) in VECTORS {
        println!("{name}-vector-bytes {}", longest_vector(option).unwrap_or(0));
    }
}

/// Returns the longest vector in bytes; `None` where there are none.
pub fn longest_vector(option: i32) -> Option<i32> {
    sys::prctl(option, MOST_VECTOR_BYTES).ok().map(|length| length & LENGTH_MASK)
}
