//! Builds what runs in the machine: the firmware, the guest payload, the suite, the driver, and
//! the kernel's own selftests of KVM.

mod driver;
mod el3;
mod firmware;
mod flat;
mod programs;
mod selftests;

pub use driver::{check_headers, driver};
pub use el3::{Grants, el3, el3_with};
pub use firmware::{Firmware, Profile, firmware};
pub use programs::{guest, guest_mmio, memory, suite, vmm};
pub use selftests::{Program, Selftests, selftests};

use std::process::Command;

/// Makes a cargo command that builds for another machine, free of this one's flags.
fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::paths::root());
    // These would replace the flags that .cargo/config.toml gives to a target.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    cargo
}
