//! The order of barriers, TLB invalidations and system registers in the release image.
//!
//! No emulator shows what a missing barrier does, and no test of the engine sees what the firmware makes of
//! the engine's steps. So this table says what stands in the image, function by function. Each row was tried
//! by leaving its barrier out. What the engine itself does in order is the business of its own tests.

use super::flow::Mark::{self, *};
use super::flow::{Order, Paths, Straight, encoding};
use super::image::Code;
use super::tally::Tally;
use anyhow::{Result, ensure};

macro_rules! names {
    ($($name:ident = $kind:ident $text:literal $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {
        $(const $name: Mark = $kind($text, encoding($op0, $op1, $crn, $crm, $op2));)*
    };
}

// Arm ARM, C5.3 to C5.5 for SYS, D24.2 for registers: op0, op1, CRn, CRm, op2.
names! {
    WRITE_VTTBR = Msr "vttbr_el2" 3 4 2 1 0;
    WRITE_VTCR = Msr "vtcr_el2" 3 4 2 1 2;
    WRITE_HCR = Msr "hcr_el2" 3 4 1 1 0;
    WRITE_TCR = Msr "tcr_el1" 3 0 2 0 2;
    WRITE_SCTLR = Msr "sctlr_el1" 3 0 1 0 0;
    WRITE_TTBR0 = Msr "ttbr0_el1" 3 0 2 0 0;
    WRITE_TTBR1 = Msr "ttbr1_el1" 3 0 2 0 1;
    WRITE_MAIR = Msr "mair_el1" 3 0 10 2 0;
    WRITE_KEY = Msr "apiakeyhi_el1" 3 0 2 1 1;
    READ_TCR = Mrs "tcr_el1" 3 0 2 0 2;
    READ_SCTLR = Mrs "sctlr_el1" 3 0 1 0 0;
    READ_TTBR0 = Mrs "ttbr0_el1" 3 0 2 0 0;
    READ_TTBR1 = Mrs "ttbr1_el1" 3 0 2 0 1;
    READ_MAIR = Mrs "mair_el1" 3 0 10 2 0;
    READ_PAR = Mrs "par_el1" 3 0 7 4 0;
    READ_ISR = Mrs "isr_el1" 3 0 12 1 0;
    AT = Sys "at s1e1r" 1 0 7 8 0;
    IC_LOCAL = Sys "ic iallu" 1 0 7 5 0;
    IC_ALL = Sys "ic ialluis" 1 0 7 1 0;
    WRITE_SRE = Msr "icc_sre_el2" 3 4 12 9 5;
    // SPE, TRBE and TRF, BRBE.
    WRITE_SAMPLING = Msr "pmscr_el1" 3 0 9 9 0;
    WRITE_SAMPLES = Msr "pmblimitr_el1" 3 0 9 10 0;
    WRITE_TRACING = Msr "trfcr_el1" 3 0 1 2 1;
    WRITE_TRACE = Msr "trblimitr_el1" 3 0 9 11 0;
    TLBI_STAGE1 = Sys "tlbi vmalle1is" 1 0 8 3 0;
    TLBI_VMID = Sys "tlbi vmalls12e1is" 1 4 8 3 6;
    TLBI_ALL = Sys "tlbi alle1is" 1 4 8 3 4;
    TLBI_IPA_LOCAL = Sys "tlbi ipas2e1" 1 4 8 4 1;
    TLBI_STAGE1_LOCAL = Sys "tlbi vmalle1" 1 0 8 7 0;
    TLBI_REPEAT = Sys "tlbi vale2is" 1 4 8 3 5;
}

const SWITCH: &str = "image::vcpu::answer_run";
const ENTER: Mark = Call("guest_enter");

/// Calls that walk or change tables.
const ENGINE: Mark = Call("16verdigris_stage2");

const ORDERS: &[Order] = &[
    // tlb.rs
    Order {
        why: "what is combined with stage 1 goes after the stage-2 entry that would make it again",
        inside: "",
        after: &[TLBI_IPA_LOCAL],
        steps: &[DsbNsh, TLBI_STAGE1_LOCAL, DsbNsh, Isb],
        before: &[Return, Eret, WRITE_VTTBR, Smc],
        at_least: 2,
    },
    Order {
        why: "a local invalidation is complete before the VMID changes or EL1 runs",
        inside: "",
        after: &[AnyLocalTlbi],
        steps: &[DsbNsh],
        before: &[Return, Eret, WRITE_VTTBR, ENTER],
        at_least: 4,
    },
    Order {
        why: "VTTBR_EL2 is in force before an invalidation uses it, or the caller goes on",
        inside: "",
        after: &[WRITE_VTTBR],
        steps: &[Isb],
        before: &[AnyTlbi, AT, Return],
        at_least: 4,
    },
    Order {
        why: "VTCR_EL2 goes with VTTBR_EL2",
        inside: "",
        after: &[WRITE_VTCR],
        steps: &[WRITE_VTTBR],
        before: &[Isb, AnyTlbi, Return, Eret, ENTER],
        at_least: 4,
    },
    Order {
        why: "an invalidation of the VMID on all CPUs is complete before its context goes",
        inside: "",
        after: &[TLBI_VMID],
        steps: &[DsbIsh, Isb],
        before: &[WRITE_VTTBR, Return, Smc],
        at_least: 2,
    },
    Order {
        why: "so is one of stage 1, which comes last of its kind",
        inside: "",
        after: &[TLBI_STAGE1],
        steps: &[DsbIsh, Isb],
        before: &[WRITE_VTTBR, Return, Smc],
        at_least: 2,
    },
    Order {
        why: "what an erratum repeats is complete too",
        inside: "",
        after: &[TLBI_REPEAT],
        steps: &[DsbIsh],
        before: &[WRITE_VTTBR, Return, Smc, StoreRelease],
        at_least: 2,
    },
    Order {
        why: "instructions are invalidated on all CPUs before anything relies on it",
        inside: "",
        after: &[IC_ALL],
        steps: &[DsbIsh],
        before: &[Return, Eret, StoreRelease],
        at_least: 2,
    },
    Order {
        why: "cleaning is complete before anything relies on it",
        inside: "image::",
        after: &[AnyClean],
        steps: &[DsbSy],
        before: &[Return, Eret, Smc],
        at_least: 2,
    },
    Order {
        why: "a permission that was added is visible before the entry that denies it goes",
        inside: "Stage2::make_visible",
        after: &[],
        steps: &[DsbIshst, Isb],
        before: &[TLBI_IPA_LOCAL, Return],
        at_least: 1,
    },
    Order {
        why: "the answer of an address translation is read after it",
        inside: "",
        after: &[AT],
        steps: &[Isb],
        before: &[READ_PAR],
        at_least: 2,
    },
    // vm_env.rs
    Order {
        why: "no walk begins in a context that is half switched (erratum)",
        inside: "Tlb::enter",
        after: &[WRITE_TCR],
        steps: &[Isb, WRITE_SCTLR, Isb, WRITE_VTCR, WRITE_VTTBR, Isb],
        before: &[Return],
        at_least: 1,
    },
    // profiling.rs
    Order {
        why: "samples have stopped and are in memory before their buffer goes, and that is in force",
        inside: "Stopped::begin",
        after: &[WRITE_SAMPLING],
        steps: &[Isb, PsbCsync, DsbNsh, WRITE_SAMPLES, Isb],
        before: &[Return, WRITE_TRACING],
        at_least: 1,
    },
    Order {
        why: "a trace buffer that goes is drained first, and that is in force",
        inside: "Stopped::begin",
        after: &[WRITE_TRACE],
        steps: &[Isb],
        before: &[Return],
        at_least: 1,
    },
    Order {
        why: "a trace buffer goes on in the context of its owner, and before trace does",
        inside: "Stopped::end",
        after: &[WRITE_TRACE],
        steps: &[Isb, WRITE_TRACING],
        before: &[Return],
        at_least: 1,
    },
    Order {
        why: "a sample buffer goes on in the context of its owner, and before sampling does",
        inside: "Stopped::end",
        after: &[WRITE_SAMPLES],
        steps: &[Isb, WRITE_SAMPLING],
        before: &[Return, WRITE_TRACE],
        at_least: 1,
    },
    // switch.rs
    Order {
        why: "what walks use is saved, and walks for the host have ended, before it changes",
        inside: SWITCH,
        after: &[],
        steps: &[READ_SCTLR, READ_TCR, READ_TTBR0, READ_TTBR1, READ_MAIR, DsbNsh],
        before: &[
            WRITE_VTTBR,
            WRITE_VTCR,
            WRITE_SCTLR,
            WRITE_TCR,
            WRITE_TTBR0,
            WRITE_TTBR1,
            WRITE_MAIR,
            WRITE_HCR,
            ENTER,
        ],
        at_least: 1,
    },
    Order {
        why: "what the guest's walks use is saved before it changes",
        inside: SWITCH,
        after: &[ENTER],
        steps: &[READ_SCTLR, READ_TCR, READ_TTBR0, READ_TTBR1, READ_MAIR],
        before: &[
            WRITE_VTTBR,
            WRITE_VTCR,
            WRITE_SCTLR,
            WRITE_TCR,
            WRITE_TTBR0,
            WRITE_TTBR1,
            WRITE_MAIR,
            WRITE_HCR,
            Return,
        ],
        at_least: 1,
    },
    Order {
        why: "the VMID's slot is given up after VTTBR_EL2 names the host for certain",
        inside: SWITCH,
        after: &[ENTER],
        steps: &[WRITE_VTTBR, Isb],
        before: &[StoreReleaseExclusive, Return],
        at_least: 1,
    },
    // vmids.rs
    Order {
        why: "stores are visible before everything is invalidated",
        inside: "Vmids::enter_locked",
        after: &[],
        steps: &[DsbIsh],
        before: &[TLBI_ALL],
        at_least: 1,
    },
    Order {
        why: "everything is invalidated before a VMID is given out again",
        inside: "Vmids::enter_locked",
        after: &[TLBI_ALL],
        steps: &[DsbIsh],
        before: &[StoreRelease, Return, Call("5renew")],
        at_least: 1,
    },
    Order {
        why: "a new VMID is visible before this CPU walks under it",
        inside: "Vmids::enter_locked",
        after: &[StoreRelease],
        steps: &[DsbIsh],
        before: &[Return],
        at_least: 1,
    },
    // presence.rs
    Order {
        why: "others see this CPU inside before it reads an entry",
        inside: "image::fault::guest_fault",
        after: &[],
        steps: &[DmbIsh],
        before: &[ENGINE, LoadAcquire],
        at_least: 1,
    },
    // guest.S
    Order {
        why: "an error of the guest's is taken, and its walks have ended, before EL2 goes on",
        inside: "guest_leave",
        after: &[],
        steps: &[DsbSy, Isb, READ_ISR],
        before: &[Return],
        at_least: 1,
    },
    Order {
        why: "an error of the guest's is taken, and its walks have ended, before EL2 goes on",
        inside: "guest_leave_pauth",
        after: &[],
        steps: &[DsbSy, Isb, READ_ISR],
        before: &[Return, WRITE_KEY],
        at_least: 2,
    },
    Order {
        why: "EL2's key is in force before its first return",
        inside: "guest_leave_pauth",
        after: &[],
        steps: &[WRITE_KEY, Isb],
        before: &[Return],
        at_least: 1,
    },
    Order {
        why: "EL2's key is in force before its first call",
        inside: "guest_abort_pauth",
        after: &[],
        steps: &[WRITE_KEY, Isb],
        before: &[Call("guest_fault")],
        at_least: 1,
    },
];

const STRAIGHT: &[Straight] = &[
    Straight {
        why: "walks are off while contexts are mixed (erratum), on the way in and on the way out",
        inside: SWITCH,
        marks: &[WRITE_TCR, Isb, WRITE_SCTLR, Isb, WRITE_VTCR, WRITE_VTTBR, Isb],
        always: false,
        at_least: 2,
    },
    Straight {
        why: "registers of the interrupt controller are on before one of them is written",
        inside: "host::prepare_cpu",
        marks: &[WRITE_SRE, Isb],
        always: false,
        at_least: 1,
    },
    Straight {
        why: "a trace buffer is drained before it goes, twice on some parts (erratum)",
        inside: "Stopped::begin",
        marks: &[TsbCsync, DsbNsh, WRITE_TRACE],
        always: false,
        at_least: 1,
    },
    Straight {
        why: "the context of its owner is in force before a buffer goes on",
        inside: "Stopped::end",
        marks: &[Isb, WRITE_SAMPLES, Isb, WRITE_SAMPLING],
        always: false,
        at_least: 1,
    },
    Straight {
        why: "the context of its owner is in force before a buffer goes on",
        inside: "Stopped::end",
        marks: &[Isb, WRITE_TRACE, Isb],
        always: false,
        at_least: 1,
    },
    Straight {
        why: "HCR_EL2 is written between barriers (erratum), on the way in, on the way out, and at first",
        inside: "",
        marks: &[DsbNsh, WRITE_HCR, Isb],
        always: false,
        at_least: 4,
    },
    Straight {
        why: "walks are on again after both contexts are whole (erratum), TCR_EL1 last",
        inside: SWITCH,
        marks: &[Isb, WRITE_SCTLR, Isb, WRITE_TCR],
        always: false,
        at_least: 2,
    },
    Straight {
        why: "walks are on again after an invalidation for another VM (erratum), TCR_EL1 last",
        inside: "vm_env::VmEnv",
        marks: &[WRITE_SCTLR, Isb, WRITE_TCR, Isb],
        always: false,
        at_least: 2,
    },
    Straight {
        why: "another vCPU of the VM finds nothing of the last one",
        inside: SWITCH,
        marks: &[Isb, TLBI_STAGE1_LOCAL, IC_LOCAL, DsbNsh],
        always: false,
        at_least: 1,
    },
    Straight {
        why: "what a CPU that is switched on reads is there",
        inside: "image::power::dispatch",
        marks: &[DsbIsh, Smc],
        always: false,
        at_least: 1,
    },
    Straight {
        why: "nothing is speculated past a return to EL1",
        inside: "",
        marks: &[Eret, DsbNsh, Isb],
        always: true,
        at_least: 7,
    },
];

/// The answers to calls that work on tables.
const ANSWERS: [&str; 16] = [
    "image::stage2::age",
    "image::stage2::ages",
    "image::stage2::collapse",
    "image::stage2::create_working_set",
    "image::stage2::destroy_working_set",
    "image::stage2::flush",
    "image::stage2::harvest",
    "image::stage2::histogram",
    "image::stage2::map",
    "image::stage2::map_list",
    "image::stage2::reclaim",
    "image::stage2::remove",
    "image::stage2::set",
    "image::stage2::split",
    "image::stage2::test_age",
    "image::stage2::write_protect",
];

/// presence.rs, in each of them.
const fn presence(inside: &'static str) -> [Order; 2] {
    [
        Order {
            why: "others see this CPU inside before it reads an entry",
            inside,
            after: &[],
            steps: &[DmbIsh],
            before: &[ENGINE, LoadAcquire, StoreRelease],
            at_least: 1,
        },
        Order {
            why: "others see this CPU outside after it has read the last entry",
            inside,
            after: &[DmbIsh],
            steps: &[StoreRelease],
            before: &[Return],
            at_least: 1,
        },
    ]
}

/// Checks the image against the table.
pub fn check(code: &Code, tally: &mut Tally) {
    let answers = ANSWERS.iter().flat_map(|inside| presence(inside));
    let orders: Vec<_> = ORDERS.iter().copied().chain(answers).collect();
    let rules = orders.len() + STRAIGHT.len();
    let orders = orders.iter().map(|rule| (rule.why, check_order(code, rule)));
    let straight = STRAIGHT.iter().map(|rule| (rule.why, check_straight(code, rule)));
    let broken: Vec<_> = orders
        .chain(straight)
        .filter_map(|(why, result)| result.err().map(|error| format!("{why}: {error:#}")))
        .collect();
    let result = if broken.is_empty() { Ok(()) } else { Err(anyhow::anyhow!(broken.join("\n"))) };
    tally.judge(&format!("barriers are where {rules} rows say"), &result);
}

fn check_order(code: &Code, rule: &Order) -> Result<()> {
    let (mut count, mut broken) = (0, Vec::new());
    for (name, function) in inside(code, rule.inside) {
        match (Paths { function, name: |address| code.begins(address) }).check(rule) {
            Ok(found) => count += found,
            Err(at) => broken.push(place(name, &at)),
        }
    }
    let list = |marks: &[Mark]| marks.iter().map(|mark| mark.name()).collect::<Vec<_>>().join(", ");
    ensure!(
        broken.is_empty(),
        "a path comes there without {}: {}",
        list(rule.steps),
        broken.join("; ")
    );
    ensure!(count >= rule.at_least, "{count} places, and not {}", rule.at_least);
    Ok(())
}

fn check_straight(code: &Code, rule: &Straight) -> Result<()> {
    let (mut count, mut broken) = (0, Vec::new());
    for (name, function) in inside(code, rule.inside) {
        let (found, at) = rule.find(function);
        count += found;
        if rule.always && !at.is_empty() {
            broken.push(place(name, &at));
        }
    }
    ensure!(broken.is_empty(), "not all of it stands there: {}", broken.join("; "));
    ensure!(count >= rule.at_least, "{count} places, and not {}", rule.at_least);
    Ok(())
}

fn place(name: &str, at: &[u64]) -> String {
    let at: Vec<_> = at.iter().map(|address| format!("{address:#x}")).collect();
    format!("{name} at {}", at.join(", "))
}

fn inside<'a>(
    code: &'a Code,
    path: &'a str,
) -> impl Iterator<Item = (&'a str, &'a [super::flow::Instruction])> {
    let part = mangled(path);
    code.functions()
        .filter(move |(name, _)| path.is_empty() || *name == path || name.contains(&part))
}

/// Returns a path as it stands in a symbol (Rust's v0 mangling): each name after its length.
fn mangled(path: &str) -> String {
    let names = path.split("::").filter(|name| !name.is_empty());
    names.map(|name| format!("{}{name}", name.len())).collect()
}
