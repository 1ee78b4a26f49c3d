//! The tasks of Verdigris, as `cargo xtask TASK`.
mod command;
mod paths;
mod progress;
mod setup;

fn main() -> anyhow::Result<()> {
    let setup = setup::ensure()?;
    println!("{:?} {:?}", setup.tools.qemu()?, setup.kernel);
    Ok(())
}
