//! System registers: their encodings, and what becomes of each while a guest runs.

mod encoding;

pub use encoding::Encoding;
