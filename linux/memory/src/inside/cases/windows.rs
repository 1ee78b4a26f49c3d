//! Answers about ages come from windows: what was touched is told, however late the question comes.

use std::thread::sleep;
use std::time::Duration;

use verdigris_guest::program;
use verdigris_ktap::{skip, test_table};

use super::ageing::{stop_damon, watch};
use super::support::HAND;
use crate::inside::counters::{PARAMETERS, is_verdigris, number, wait_until};
use crate::inside::guest::Guest;
use crate::inside::region::Kind;
use crate::inside::sys::PAGE;

test_table! { "memory", 300: touched_pages_are_told_however_late }

const PAGES: usize = 256;
/// Four times as long as an "old" is good for.
const PAST_THE_BOUND: Duration = Duration::from_millis(200);

/// What the driver did about some questions.
#[derive(Debug, PartialEq, Eq)]
struct Answers {
    young: u64,
    /// Answers out of a window that was there.
    hits: u64,
    /// Whether any window was fetched.
    fetched: bool,
}

/// Has DAMON ask about one page, four times or more.
fn ask(guest: &Guest, page: usize) -> Answers {
    let before = guest.vm.statistics();
    let since = |name: &str| guest.vm.statistics()[name] - before[name];
    let start = guest.data.address(page * PAGE);
    watch(start..start + PAGE);
    wait_until("DAMON has asked", || since("clear_young") >= 2 && since("test_young") >= 2);
    stop_damon();
    Answers {
        young: since("young_answers"),
        hits: since("window_hits"),
        fetched: since("window_fetches") > 0,
    }
}

/// The guest touches two pages. The question about the first fetches, and clears, the flags of both; the one
/// about the second comes when all that was fetched is long past its bound. Each is young, once; a page that
/// was not touched never is.
///
/// DAMON clears, and tests, in turn. Only a young page is answered out of a window: the first "clear" about a page comes when
/// each "old" has expired, the next ones ask again about a page that was asked about, and each "test" comes
/// after a fetch, which takes what was tested before away. So the counts are exact, and no thread that
/// sleeps too long changes them.
fn touched_pages_are_told_however_late() {
    if !is_verdigris() {
        skip("this is not the driver of Verdigris: it has no windows");
    }
    let window = number(format!("{PARAMETERS}/age_window"));
    assert!(window >= PAGES as u64, "{window} pages a window: not all are in one");
    let guest = Guest::new(Kind::Pages, PAGES * PAGE);
    for page in 0..PAGES {
        guest.data.write(page * PAGE, page as u64);
    }
    let mut hand = guest.vcpu(HAND);
    let (first, second, neither) = (20, 201, 90);
    for page in [first, second] {
        assert_eq!(hand.program(program::READ, &[guest.page_address(page)])[1], page as u64);
    }
    for (page, young, hits) in [(first, 1, 0), (second, 1, 1), (neither, 0, 0), (second, 0, 0)] {
        assert_eq!(ask(&guest, page), Answers { young, hits, fetched: true }, "page {page}");
        sleep(PAST_THE_BOUND);
    }
}
