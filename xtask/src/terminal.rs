//! Connects this terminal with the host's console, for `run --shell`.
//!
//! Afterwards the terminal is as it was. Its settings are the lesser part: a program that the machine's end cut off leaves
//! the cursor hidden or the other screen in front, and a terminal answers questions (busybox's shell asks for the
//! cursor's position at each prompt) after the one who asked is gone. Such an answer would be the next shell's input.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ChildStdin;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-D, which ends the shell where our own input ends.
const END_OF_INPUT: u8 = 4;
/// How long a terminal may take to answer, over a slow line.
const ANSWER: Duration = Duration::from_millis(150);
/// How many answers are waited for.
const ANSWERS: usize = 8;
/// Ends colours, bracketed paste and mouse reports, and shows the cursor.
const CALM: &[u8] = b"\x1b[0m\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1006l\x1b[?25h";
/// What begins and ends the use of the other screen.
const OTHER_SCREEN: &[u8] = b"\x1b[?1049h";
const OWN_SCREEN: &[u8] = b"\x1b[?1049l";

/// Keeps the terminal raw; dropping it gives it back as it was.
pub struct Raw {
    before: Option<(OwnedFd, Termios)>,
}

impl Raw {
    /// Makes the terminal pass every key through, if there is one.
    pub fn new() -> Self {
        let stdin = std::io::stdin();
        let terminal = stdin.is_terminal().then(|| stdin.as_fd().try_clone_to_owned().ok());
        Self { before: terminal.flatten().and_then(Self::take) }
    }

    fn take(terminal: OwnedFd) -> Option<(OwnedFd, Termios)> {
        let before = tcgetattr(&terminal).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // A terminal that cannot be made raw still works, line by line.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &raw);
        Some((terminal, before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some((terminal, before)) = &self.before {
            drop_answers(terminal);
            // Flush: what came since goes too.
            let _ = tcsetattr(terminal, OptionalActions::Flush, before);
        }
    }
}

/// Reads what the terminal still has to say, until it is silent.
fn drop_answers(terminal: &OwnedFd) {
    let mut buffer = [0; 256];
    let time = Timespec::try_from(ANSWER).expect("a short time");
    for _ in 0..ANSWERS {
        let mut ready = [PollFd::new(terminal, PollFlags::IN)];
        if !matches!(poll(&mut ready, Some(&time)), Ok(1..)) {
            return;
        }
        let Ok(1..) = rustix::io::read(terminal, &mut buffer) else { return };
    }
}

/// Returns what brings a terminal back to rest after so much was written to it.
pub fn calm(uses_other_screen: bool) -> Vec<u8> {
    if uses_other_screen { [OWN_SCREEN, CALM].concat() } else { CALM.to_vec() }
}

/// Tells whether a terminal shows its other screen after these bytes.
pub fn uses_other_screen(before: bool, bytes: &[u8]) -> bool {
    let last = |what: &[u8]| bytes.windows(what.len()).rposition(|window| window == what);
    match (last(OTHER_SCREEN), last(OWN_SCREEN)) {
        (None, None) => before,
        (begun, ended) => begun > ended,
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::LocalModes;

    #[test]
    fn answers_that_nobody_waits_for_are_dropped() {
        let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&outside).unwrap();
        unlockpt(&outside).unwrap();
        let name = ptsname(&outside, Vec::new()).unwrap();
        let inside = || {
            open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK, Mode::empty()).unwrap()
        };
        let before = Raw::take(inside()).unwrap();
        assert!(before.1.local_modes.contains(LocalModes::ICANON));
        let late = outside.try_clone().unwrap();
        rustix::io::write(&outside, b"\x1b[24;1R").unwrap();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(ANSWER / 3);
            rustix::io::write(&late, b"\x1b[24;80R\n").unwrap();
        });
        drop(Raw { before: Some(before) });
        writer.join().unwrap();
        let inside = inside();
        assert!(
            tcgetattr(&inside).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
        );
        let mut buffer = [0; 64];
        assert!(rustix::io::read(&inside, &mut buffer).is_err(), "{buffer:?}");
    }

    #[test]
    fn the_other_screen_is_left_if_it_is_in_front() {
        let after = |before, text: &str| uses_other_screen(before, text.as_bytes());
        assert!(after(false, "\x1b[?1049hx") && after(true, "x"));
        assert!(!after(true, "x\x1b[?1049l") && !after(false, "\x1b[?1049h x \x1b[?1049l"));
        assert!(calm(true).starts_with(OWN_SCREEN) && !calm(false).starts_with(OWN_SCREEN));
    }
}
