//! Shows that long work goes on: a spinner on a terminal, a line each elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Does a piece of work under a message; the spinner is gone once it is done.
pub fn step<T>(message: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let spinner = spinner(message);
    let result = work();
    spinner.finish_and_clear();
    result
}

/// Starts a spinner, or writes the message once where there is no terminal.
pub fn spinner(message: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("{message} ...");
        return ProgressBar::hidden();
    }
    let spinner = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
    spinner.set_style(style.expect("the template is a constant"));
    spinner.set_message(message.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}
