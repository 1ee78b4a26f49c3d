//! Knows the lines by which the host's kernel, its driver, or the firmware says that something is wrong with itself.
//!
//! What is under test can be wrong and every test still pass: a page's count that is off is found by Linux when the page is
//! freed, in a line on the console and nowhere else. So each line is looked at, and one of these fails the run. Lines about
//! hardware that failed (`Memory failure`, which tests of poison ask for), about slowness (stalls and lockups, which a loaded
//! emulator has by itself) and about what a test did on purpose (pages that it abandoned) are none.

/// How what the kernel says of itself begins, behind its clock.
const OF_KERNEL: &[&str] = &[
    "WARNING: ",
    "BUG: ",
    "kernel BUG at ",
    "Internal error: ",
    "Unable to handle kernel ",
    "Kernel panic ",
];
/// The driver's name, with which its lines begin; in those that are complaints, one of these follows.
const DRIVER: &str = "verdigris: ";
const OF_DRIVER: &[&str] = &[
    " answered ",
    "can't be ended",
    "pages are lost: the firmware",
    "pages are lost: a VM",
    "what a former driver left",
];
/// How a line of the firmware's begins that tells of a bug of its own.
const OF_FIRMWARE: &str = "verdigris: ERROR: ";
/// What a test has the kernel say.
const ON_PURPOSE: &str = "sysrq triggered crash";
/// How a warning of DAMON's own core begins on newer kernels (6.12 has `CPU:` and `PID:` before the file, and is not meant):
/// 7.2 gave one on a loaded emulator. Why is not known yet.
const OF_DAMON: &str = "WARNING: mm/damon/core.c:";
/// How many lines are shown of a complaint.
const SHOWN_LINES: usize = 12;

/// Tells whether a line of the console is a complaint.
pub fn is_complaint(line: &str) -> bool {
    if line.starts_with(OF_FIRMWARE) {
        return true;
    }
    // The kernel's own lines have its clock before them; they can break into a line of a program.
    line.match_indices('[').any(|(at, _)| text_behind_clock(&line[at..]).is_some_and(is_wrong))
}

/// Shows the first complaint with the lines that follow it, if there is one.
pub fn first(lines: &[String]) -> Option<String> {
    let at = lines.iter().position(|line| is_complaint(line))?;
    let shown: Vec<_> = lines[at..].iter().take(SHOWN_LINES).map(|line| line.trim_end()).collect();
    Some(shown.join("\n"))
}

fn is_wrong(text: &str) -> bool {
    let of_driver = |text: &str| OF_DRIVER.iter().any(|words| text.contains(words));
    OF_KERNEL.iter().any(|start| text.starts_with(start))
        && !text.ends_with(ON_PURPOSE)
        && !text.starts_with(OF_DAMON)
        || text.strip_prefix(DRIVER).is_some_and(of_driver)
}

/// Returns what stands behind `[  seconds.microseconds] `, perhaps with the caller's number behind a `[`.
fn text_behind_clock(line: &str) -> Option<&str> {
    let (clock, text) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = clock.trim_start().split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(seconds) && is_number(fraction)).then(|| text.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_known() {
        for line in [
            "[   12.530001] WARNING: CPU: 1 PID: 7 at kvm_age.c:1 vg_age+0x10/0x20 [verdigris]",
            "[   12.530001] WARNING: CPU: 1 PID: 7 at mm/damon/core.c:1 kdamond_fn+0x10/0x20",
            "[   12.530001] WARNING: mm/rmap.c:7 at folio_add+0x10/0x20, CPU#1: exe/12",
            "[   12.530001] Kernel panic - not syncing: Fatal exception",
            "[   12.530001] WARNING: possible circular locking dependency detected",
            "[    3.100000] BUG: Bad page state in process exe  pfn:52a1f",
            "[    3.100000] BUG: Bad rss-counter state mm:00000000 type:MM_ANONPAGES val:1",
            "[    3.100000] kernel BUG at mm/rmap.c:1234!",
            "[    3.100000] Internal error: Oops: 0000000096000004 [#1] SMP",
            "[    3.100000] Unable to handle kernel paging request at virtual address 0",
            "ok 3 free # 12[   12.530001] BUG: Bad page map in process exe",
            "[    3.100000] verdigris: UNMAP of VM 3 answered -5",
            "[    3.100000] verdigris: VM 3 can't be ended (error -16)",
            "[    3.100000] verdigris: 12 pages are lost: the firmware did not give them back",
            "verdigris: ERROR: a table is used twice",
        ] {
            assert!(is_complaint(line), "{line}");
        }
    }

    #[test]
    fn what_consoles_say_all_the_time_is_no_complaint() {
        for line in [
            "WARNING: CPU is slow",
            "# BUG: the test's own words",
            "[not a clock] BUG: x",
            "[ 62.701305] Memory failure: 0x52a1f: unhandlable page.",
            "[ 31.2] hrtimer: interrupt took 1000 ns",
            "[ 32.169228] verdigris: 1082 pages are lost: abandoned",
            "[ 5.448924] verdigris: loading out-of-tree module taints kernel.",
            "[ 9.1] process 12 (exe) no longer affine to cpu3",
            "[ 9.8] WARNING: mm/damon/core.c:1962 at kdamond_fn+0x14d4/0x20b0, CPU#0: kdamond.0/134",
            "[ 9.9] Kernel panic - not syncing: sysrq triggered crash",
            "[ 99.1] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[ 99.1] watchdog: BUG: soft lockup - CPU#1 stuck for 22s!",
            "verdigris: WARN: host: no access to 0x43566000 from 0x258f18",
            "[",
            "",
        ] {
            assert!(!is_complaint(line), "{line}");
        }
    }

    #[test]
    fn the_first_is_shown_with_what_follows() {
        let text = "boot\n[ 1.5] BUG: Bad page\n[ 1.5] trace\n[ 1.6] BUG: another";
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        let shown = first(&lines).unwrap();
        assert_eq!(shown, "[ 1.5] BUG: Bad page\n[ 1.5] trace\n[ 1.6] BUG: another");
        assert_eq!(first(&lines[..1]), None);
    }
}
