//! The tests that are run, as data: a program, its arguments, and what is demanded of it.
//!
//! Emulation is some fifty times slower than a machine, so most tests get less memory or fewer
//! rounds than they would take by themselves. `-m 6` picks one guest mode (40 bits of physical
//! addresses, 4 KiB pages) of those that a test would go through one after the other.

use super::report::Verdict;
use crate::build::Program;

/// What is demanded of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// That it passes: to be skipped, or to be slow, is no answer.
    Pass,
    /// That it doesn't fail.
    NoFailure,
    /// Nothing: it runs for information.
    Nothing,
}

impl Demand {
    /// Tells whether a test is as demanded; one that didn't run has no verdict.
    pub fn is_met(self, verdict: Option<&Verdict>) -> bool {
        match self {
            Self::Pass => verdict == Some(&Verdict::Pass),
            Self::NoFailure => !matches!(verdict, None | Some(Verdict::Fail(_))),
            Self::Nothing => true,
        }
    }
}

/// One call of a test program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The program's name.
    pub program: String,
    /// Its arguments.
    pub arguments: String,
    /// What is demanded of it.
    pub demand: Demand,
}

impl Case {
    /// Returns the test as one would type it.
    pub fn name(&self) -> String {
        format!("{} {}", self.program, self.arguments).trim().to_owned()
    }

    /// Tells whether a word of the user's means this test: its program, or all of it.
    pub fn is_meant(&self, word: &str) -> bool {
        self.program == word || self.name() == word
    }
}

/// What must pass: the interface's own promises.
const MUST_PASS: &[(&str, &str)] = &[
    ("set_memory_region_test", ""),
    ("guest_print_test", ""),
    ("kvm_binary_stats_test", ""),
    ("kvm_create_max_vcpus", ""),
    ("demand_paging_test", "-b 64M -m 6"),
    ("demand_paging_test", "-b 64M -m 6 -s shmem"),
    ("demand_paging_test", "-b 64M -m 6 -s anonymous_thp"),
    ("demand_paging_test", "-b 64M -m 6 -u MISSING"),
    ("demand_paging_test", "-b 64M -m 6 -u MISSING -s shmem"),
    ("demand_paging_test", "-b 64M -m 6 -u MINOR -s shmem"),
    ("demand_paging_test", "-b 4M -m 6 -v 4 -a -u MISSING"),
    ("kvm_page_table_test", "-b 64M -m 6"),
    ("kvm_page_table_test", "-b 64M -m 6 -s anonymous_thp"),
    ("kvm_page_table_test", "-b 64M -m 6 -s anonymous_hugetlb_2mb"),
    ("kvm_page_table_test", "-b 64M -m 6 -s shmem"),
    ("dirty_log_test", "-M dirty-log -m 6 -i 4"),
    ("dirty_log_test", "-M clear-log -m 6 -i 4"),
];

/// What must not fail, but may ask for what isn't there, or for more time.
const MUST_NOT_FAIL: &[(&str, &str)] = &[
    ("dirty_log_perf_test", "-b 64M -m 6 -v 2 -i 2"),
    ("dirty_log_perf_test", "-b 64M -m 6 -i 2 -x 4 -s anonymous_thp"),
    ("memslot_modification_stress_test", "-b 64M -m 6 -v 2 -i 100"),
    ("aarch32_id_regs", ""),
    ("get-reg-list", ""),
];

/// What is run beside it for information. A program that is not named here runs as it is.
const WIDER: &[(&str, &str)] = &[
    ("access_tracking_perf_test", "-b 64M -v 2 -m 6"),
    ("demand_paging_test", "-b 4M -m 6 -v 4 -o"),
    ("demand_paging_test", "-b 64M -m 6 -s shared_hugetlb"),
    ("dirty_log_perf_test", "-b 64M -m 6 -v 2 -i 2 -g"),
    ("dirty_log_test", "-M dirty-ring -m 6 -i 4"),
    ("kvm_page_table_test", "-b 16M -m 6 -v 4"),
    ("memslot_perf_test", "-s 512 -l 2"),
    ("page_fault_test", "-m 6"),
    ("page_fault_test", "-m 6 -s shmem"),
];

/// Lists the default tests, or with `all` every test; programs are those that were built.
pub fn cases(programs: &[Program], all: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |rows: &[(&str, &str)], demand| {
        cases.extend(rows.iter().map(|&(program, arguments)| Case {
            program: program.to_owned(),
            arguments: arguments.to_owned(),
            demand,
        }));
    };
    add(MUST_PASS, Demand::Pass);
    add(MUST_NOT_FAIL, Demand::NoFailure);
    if all {
        add(WIDER, Demand::Nothing);
        for program in programs {
            if !cases.iter().any(|case| case.program == program.name) {
                let (program, arguments) = (program.name.clone(), String::new());
                cases.push(Case { program, arguments, demand: Demand::Nothing });
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(names: &[&str]) -> Vec<Program> {
        names.iter().map(|name| Program { name: (*name).into(), file: (*name).into() }).collect()
    }

    #[test]
    fn every_program_that_was_built_is_in_the_wider_list() {
        let programs = programs(&["dirty_log_test", "psci_test", "steal_time"]);
        let all = cases(&programs, true);
        for name in ["psci_test", "steal_time"] {
            let found: Vec<_> = all.iter().filter(|case| case.program == name).collect();
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].demand, Demand::Nothing);
            assert!(found[0].arguments.is_empty());
        }
        assert!(all.iter().all(|case| case.name() != "dirty_log_test"));
        assert!(cases(&programs, false).iter().all(|case| case.demand != Demand::Nothing));
    }

    #[test]
    fn no_test_is_listed_twice() {
        let mut names: Vec<_> = cases(&[], true).iter().map(Case::name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_promised_must_pass() {
        let cases = cases(&[], false);
        for name in [
            "set_memory_region_test",
            "demand_paging_test -b 64M -m 6",
            "demand_paging_test -b 64M -m 6 -u MISSING",
            "demand_paging_test -b 64M -m 6 -u MINOR -s shmem",
            "kvm_page_table_test -b 64M -m 6",
            "dirty_log_test -M dirty-log -m 6 -i 4",
            "dirty_log_test -M clear-log -m 6 -i 4",
            "guest_print_test",
            "kvm_binary_stats_test",
            "kvm_create_max_vcpus",
        ] {
            let found = cases.iter().find(|case| case.name() == name).expect(name);
            assert_eq!(found.demand, Demand::Pass, "{name}");
        }
    }

    #[test]
    fn demands_are_met_by_what_they_say() {
        let verdicts = [
            Some(Verdict::Pass),
            Some(Verdict::Skip("no".into())),
            Some(Verdict::Slow),
            Some(Verdict::Fail("status 1".into())),
            None,
        ];
        let met = |demand: Demand| verdicts.each_ref().map(|v| demand.is_met(v.as_ref()));
        assert_eq!(met(Demand::Pass), [true, false, false, false, false]);
        assert_eq!(met(Demand::NoFailure), [true, true, true, false, false]);
        assert_eq!(met(Demand::Nothing), [true; 5]);
    }
}
