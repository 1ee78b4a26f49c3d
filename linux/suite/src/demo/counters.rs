//! The firmware's counters of the guest, in a few lines.

use verdigris_abi::Stat;

use crate::firmware::Statistics;

/// A line: its name, and counters with theirs.
type Row = (&'static str, &'static [(&'static str, Stat)]);

const ROWS: [Row; 5] = [
    (
        "ages",
        &[
            ("calls", Stat::Ages),
            ("leaves visited", Stat::LeavesVisited),
            ("found young", Stat::LeavesYoung),
        ],
    ),
    (
        "leaves",
        &[
            ("mapped", Stat::LeavesMapped),
            ("unmapped", Stat::LeavesUnmapped),
            ("invalidations left out", Stat::FlushesSkipped),
            ("done", Stat::FlushesDone),
        ],
    ),
    (
        "faults",
        &[
            ("access flag", Stat::FaultAccessFlag),
            ("translation", Stat::FaultTranslation),
            ("permission", Stat::FaultPermission),
        ],
    ),
    (
        "TLB",
        &[
            ("whole VM", Stat::TlbiVmid),
            ("ranges", Stat::TlbiRange),
            ("pages", Stat::TlbiIpa),
            ("local", Stat::TlbiLocal),
        ],
    ),
    (
        "exits",
        &[
            ("interrupt", Stat::ExitInterrupt),
            ("call", Stat::ExitHypercall),
            ("fault", Stat::ExitFault),
            ("runs", Stat::Runs),
        ],
    ),
];

/// Prints them.
pub fn print(statistics: &Statistics) {
    println!();
    for (name, counters) in ROWS {
        let one = |&(name, stat): &(&str, Stat)| format!("{name} {}", statistics.get(stat));
        let text = counters.iter().map(one).collect::<Vec<_>>().join(", ");
        println!("{name:>7}: {text}");
    }
}
