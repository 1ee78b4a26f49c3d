//! Runs loom models, and says how many executions each had.

use loom::model::Builder;
use std::borrow::ToOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{format, println};

/// Runs a scenario in every interleaving.
pub(crate) fn model(scenario: impl Fn() + Sync + Send + 'static) {
    check(&Builder::new(), scenario);
}

/// Runs a scenario in every interleaving of up to so many switches that nobody asked for.
pub(crate) fn bounded(preemptions: usize, scenario: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    check(&builder, scenario);
}

fn check(builder: &Builder, scenario: impl Fn() + Sync + Send + 'static) {
    let executions = Executions { count: Arc::default(), bound: builder.preemption_bound };
    let count = executions.count.clone();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        scenario();
    });
}

/// Counts executions, and prints the number when the model is done or has failed.
struct Executions {
    count: Arc<AtomicU64>,
    bound: Option<usize>,
}

impl Drop for Executions {
    fn drop(&mut self) {
        let count = self.count.load(Ordering::Relaxed);
        let outcome = if std::thread::panicking() { "failed in the last of" } else { "passed" };
        let bound = match self.bound {
            Some(bound) => format!("up to {bound} preemptions"),
            None => "any number of preemptions".to_owned(),
        };
        println!("loom: {outcome} {count} executions, {bound}");
    }
}
