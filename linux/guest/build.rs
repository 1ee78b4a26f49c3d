//! Hands the payload its linker script, where it is built for the bare machine.

fn main() {
    println!("cargo:rerun-if-changed=guest.ld");
    println!("cargo:rerun-if-changed=build.rs");
    let bare = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none");
    if bare {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo:rustc-link-arg-bins=-T{folder}/guest.ld");
        // As a position-independent executable an absolute address is a relocation, which the script
        // refuses; linked to a fixed address it would go unnoticed.
        for argument in ["--pie", "--no-dynamic-linker", "-zmax-page-size=4096"] {
            println!("cargo:rustc-link-arg-bins={argument}");
        }
    }
}
