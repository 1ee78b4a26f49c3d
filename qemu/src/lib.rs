//! The QEMU machines that Verdigris runs on, as data, and the launcher that starts them.
//!
//! A [`Machine`] says what the board has, a [`Boot`] what it starts with; together they make an
//! argument list and nothing else, so that both can be tested without QEMU. A [`Session`] is one
//! run of one fresh machine: no state is kept between two runs, and every byte of its console is
//! in its log.
//!
//! The one thing that a reader may miss: QEMU checks neither the range nor the overlap of what it
//! loads. [`layout`] therefore decides every load address itself, and refuses what does not fit.

pub mod layout;
mod machine;
mod process;
mod session;

pub use machine::{Boot, Host, Invocation, Machine, SWAP_SERIAL, parse_size};
pub use session::{Event, Lines, Qemu, Session};
