//! What is measured, by which hook, at what cost, and what is not and why.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    catalogue::Signal,
    kernel::{
        cost::measure,
        facts::{self, Fact},
        loader::{Availability, Loaded},
    },
    signals::reader::Reader,
};

/// The whole report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// What the kernel has and lacks.
    pub facts: Vec<Fact>,
    /// Every signal that the configuration asks for.
    pub signals: Vec<SignalReport>,
    /// Every attached program.
    pub programs: Vec<ProgramReport>,
}

/// One signal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignalReport {
    /// Its name in the catalogue.
    pub signal: String,
    /// Whether it is measured.
    pub available: bool,
    /// Whether it will be as soon as its module is loaded.
    #[serde(default)]
    pub waiting: bool,
    /// The hooks in use; empty where it is read.
    pub hooks: Vec<String>,
    /// Why it is not measured.
    pub reason: Option<String>,
    /// The cost class of the catalogue.
    pub cost: String,
}

/// One attached program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgramReport {
    /// Its name.
    pub program: String,
    /// Where it is attached.
    pub hook: String,
    /// Candidates that were preferred and refused, with the reason.
    pub refused: Vec<String>,
    /// Instructions of the translated program.
    pub instructions: Option<u32>,
    /// Measured nanoseconds for each run; `None`: it did not run meanwhile.
    pub nanoseconds: Option<f64>,
}

impl Report {
    /// Whether all that was asked for is measured, or waits for a module that
    /// is not loaded: a node without ZFS lacks nothing.
    pub fn complete(&self) -> bool {
        self.signals
            .iter()
            .all(|signal| signal.available || signal.waiting)
    }

    /// Looks at what is loaded, and measures it for `window` if the kernel
    /// keeps run-time statistics for this process (CAP_SYS_ADMIN).
    pub fn make(reader: &Reader, kernel: &str, window: Duration) -> Self {
        let objects = reader.loaded();
        let measured = measure(&objects, window).unwrap_or_else(|error| {
            let error = format!("{error:#}");
            tracing::warn!(error, "the programs' cost cannot be measured");
            vec![f64::NAN; objects.iter().map(|loaded| loaded.attached.len()).sum()]
        });
        let attached = objects
            .iter()
            .flat_map(|loaded| loaded.attached.iter().map(move |one| (loaded, one)));
        let programs = attached
            .zip(measured)
            .map(|((loaded, attached), nanoseconds)| ProgramReport {
                program: attached.hook.program.to_owned(),
                hook: attached.hook.attach.to_string(),
                refused: attached
                    .refused
                    .iter()
                    .map(|(hook, reason)| format!("{}: {reason}", hook.attach))
                    .collect(),
                instructions: loaded
                    .account(attached.hook.program)
                    .map(|account| account.instructions),
                nanoseconds: nanoseconds.is_finite().then_some(nanoseconds),
            })
            .collect();
        Self {
            kernel: kernel.to_owned(),
            facts: facts::facts(),
            signals: reader
                .signals()
                .into_iter()
                .map(|(signal, is)| SignalReport {
                    signal: signal.name.to_owned(),
                    available: is == Availability::Available,
                    waiting: matches!(is, Availability::Waiting(_) | Availability::Unused(_)),
                    hooks: hooks_in_use(signal, &objects),
                    reason: is.reason().map(str::to_owned),
                    cost: signal.cost.as_str().to_owned(),
                })
                .collect(),
            programs,
        }
    }
}

fn hooks_in_use(signal: &Signal, objects: &[&Loaded]) -> Vec<String> {
    let mut hooks: Vec<String> = signal
        .hooks
        .iter()
        .copied()
        .flatten()
        .filter(|hook| {
            objects
                .iter()
                .flat_map(|loaded| &loaded.attached)
                .any(|attached| attached.hook == **hook)
        })
        .map(|hook| hook.attach.to_string())
        .collect();
    hooks.dedup();
    hooks
}
