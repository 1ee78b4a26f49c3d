//! Links the firmware by the script of the `linker` crate.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let script = std::env::var("DEP_VERDIGRIS_LINKER_SCRIPT").expect("the linker crate tells");
    println!("cargo::rerun-if-changed={script}");
    for argument in [
        format!("-T{script}"),
        "-pie".into(),
        "--no-dynamic-linker".into(),
        "-znotext".into(),
        "-znorelro".into(),
        "--build-id=none".into(),
        // A wrong address behind an ADRP at the end of a page (Cortex-A53 up to r0p4).
        "--fix-cortex-a53-843419".into(),
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
