//! Answers about ages come from windows: what was touched is told, however late the question comes.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use verdigris_guest::program;
use verdigris_ktap::{skip, test_table};

use super::ageing::{stop_damon, watch};
use super::support::HAND;
use crate::inside::guest::Guest;
use crate::inside::region::Kind;
use crate::inside::sys::PAGE;

test_table! { "memory", 60: touched_pages_are_told_however_late }

const PAGES: usize = 256;
/// Four times as long as an "old" is good for.
const PAST_THE_BOUND: Duration = Duration::from_millis(200);

/// Has DAMON ask about one page for some time; returns how many questions and answers "young" that made.
fn ask(guest: &Guest, page: usize) -> (u64, u64) {
    let before = guest.vm.statistics();
    let start = guest.data.address(page * PAGE);
    watch(start..start + PAGE);
    sleep(Duration::from_millis(500));
    stop_damon();
    let now = guest.vm.statistics();
    let since = |name: &str| now[name] - before[name];
    (since("clear_young") + since("test_young"), since("young_answers"))
}

/// The guest touches two pages. The question about the first fetches, and clears, the flags of both; the one
/// about the second comes when all that was fetched is long past its bound. Each is young, once; a page that
/// was not touched never is.
fn touched_pages_are_told_however_late() {
    if !Path::new("/sys/module/verdigris/parameters/age_window").exists() {
        skip("this is not the driver of Verdigris: it has no windows");
    }
    let guest = Guest::new(Kind::Pages, PAGES * PAGE);
    for page in 0..PAGES {
        guest.data.write(page * PAGE, page as u64);
    }
    let mut hand = guest.vcpu(HAND);
    let (first, second, neither) = (20, 200, 90);
    for page in [first, second] {
        assert_eq!(hand.program(program::READ, &[guest.page_address(page)])[1], page as u64);
    }
    let fetches = guest.vm.statistics()["window_fetches"];
    for (page, expected) in [(first, 1), (second, 1), (neither, 0), (second, 0)] {
        let (questions, young) = ask(&guest, page);
        assert!(questions >= 2, "DAMON asked {questions} times about page {page}");
        assert_eq!(young, expected, "page {page}, of {questions} questions");
        sleep(PAST_THE_BOUND);
    }
    assert!(guest.vm.statistics()["window_fetches"] > fetches, "nothing was fetched");
}
