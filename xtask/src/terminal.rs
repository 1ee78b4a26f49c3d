//! Connects this terminal with the host's console, for `run --shell`.

use std::io::{IsTerminal, Read, Write};
use std::process::ChildStdin;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-D, which ends the shell where our own input ends.
const END_OF_INPUT: u8 = 4;

/// Keeps the terminal raw; dropping it gives it back as it was.
pub struct Raw(Option<Termios>);

impl Raw {
    /// Makes the terminal pass every key through, if there is one.
    pub fn new() -> Self {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin).ok().filter(|_| stdin.is_terminal());
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            // A terminal that cannot be made raw still works, line by line.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies our input to the console, in a thread that ends with the process.
pub fn connect(mut console: ChildStdin) {
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        let mut input = std::io::stdin().lock();
        while let Ok(count @ 1..) = input.read(&mut buffer) {
            if console.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = console.write_all(&[END_OF_INPUT]);
        // Closing it would be taken for the loss of the console.
        std::mem::forget(console);
    });
}
