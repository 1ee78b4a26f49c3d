//! CPU_ON and CPU_OFF of one CPU by several at once, checked by the model checker.

use super::*;
use crate::models::model;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

fn start(context: u64) -> Start {
    Start { entry: Pa(context << 12), context }
}

#[test]
fn a_cpu_starts_once_and_where_its_caller_said() {
    model(|| {
        let power = Arc::new(CpuPower::new(PowerState::Off));
        let other = power.clone();
        let target = power.clone();
        let rival = thread::spawn(move || other.claim(start(2)));
        let mine = power.claim(start(1));
        // Whoever has the claim switches the CPU on.
        let taken = thread::spawn(move || target.take());
        let (theirs, taken) = (rival.join().unwrap(), taken.join().unwrap());
        assert!(mine.is_ok() != theirs.is_ok());
        let expected = start(if mine.is_ok() { 1 } else { 2 });
        assert!(taken.is_none() || taken == Some(expected));
    });
}

#[test]
fn a_cpu_that_could_not_go_off_is_on_again() {
    model(|| {
        let power = Arc::new(CpuPower::new(PowerState::On));
        let caller = power.clone();
        let refused = Arc::new(AtomicBool::new(false));
        let seen = refused.clone();
        let on = thread::spawn(move || {
            if caller.claim(start(1)).is_ok() {
                // The CPU never went off, so the firmware below refuses.
                caller.withdraw();
                seen.store(true, Ordering::Relaxed);
            }
        });
        power.go_off();
        power.stay_on();
        on.join().unwrap();
        assert_eq!(power.state(), PowerState::On);
        assert_eq!(power.take(), None);
    });
}
