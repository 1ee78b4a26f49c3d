//! Hands the image its linker script, where it is built for the bare machine.

fn main() {
    println!("cargo:rerun-if-changed=el3.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "none") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo:rustc-link-arg-bins=-T{folder}/el3.ld");
        println!("cargo:rustc-link-arg-bins=-zmax-page-size=4096");
    }
}
