//! Tells dependents where the linker script is.

fn main() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("el2.ld");
    println!("cargo::rerun-if-changed=el2.ld");
    println!("cargo::metadata=script={}", script.display());
}
