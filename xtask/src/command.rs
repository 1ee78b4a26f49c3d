//! Runs a program to its end and says what went wrong in words that help.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How many of the last lines of a failed program are shown.
const TAIL_LINES: usize = 40;

/// Runs a command quietly; on failure the error holds its last lines.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a command quietly and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    command.stdin(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    let name = name.rsplit('/').next().unwrap_or_default();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let all = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
    let shown = all.lines().rev().take(TAIL_LINES).collect::<Vec<_>>();
    let shown = shown.into_iter().rev().collect::<Vec<_>>().join("\n");
    let cause = cause(&all).map(|line| format!(": {}", line.trim())).unwrap_or_default();
    // The command comes last: with its environment it may fill a screen.
    bail!("{name} failed ({}){cause}\n{shown}\nThe command was:\n{command:?}", output.status);
}

/// Picks the line that says what went wrong, where compilers, make and apt mark one.
fn cause(text: &str) -> Option<&str> {
    const MARKS: &[&str] = &["error: ", "error[", "ERROR: ", "E: ", "not found", "No such file"];
    MARKS.iter().find_map(|mark| text.lines().find(|line| line.contains(mark)))
}

/// Finds a program in the directories of `PATH`.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_shows_the_end_of_both_outputs() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let error = run(&mut command).unwrap_err().to_string();
        assert!(error.contains("out\nerr") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn the_cause_stands_first_and_the_command_last() {
        let mut command = Command::new("sh");
        command.env("A_LONG_VARIABLE", "x").args([
            "-c",
            "echo CC a.o; echo \"a.c:3:1: error: unknown type\" >&2; echo make: Error 2 >&2; exit 2",
        ]);
        let error = run(&mut command).unwrap_err().to_string();
        let first = error.lines().next().unwrap();
        assert_eq!(first, "sh failed (exit status: 2): a.c:3:1: error: unknown type");
        assert!(error.lines().last().unwrap().contains("A_LONG_VARIABLE"), "{error}");
    }

    #[test]
    fn programs_are_found_by_name() {
        assert!(find("sh").is_some());
        assert!(find("no-program-has-this-name").is_none());
    }
}
