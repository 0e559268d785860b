//! One attachment for many tests: attaching takes an emulated machine longer
//! than most tests do. Tests tell themselves apart by what they label: each
//! has its own pool, or its own interface.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kldtrace::{
    catalogue::{self, Signal},
    kernel::loader::Options,
    signals::{Labels, reader::Reader},
};

use super::common::Probes;

/// Says which signals a test finds what it has made happen in. Who runs the
/// guest writes down what tests that passed have said (`cargo xtask vm
/// --record`).
pub fn shows(signals: &[&str]) {
    for name in signals {
        assert!(catalogue::find(name).is_some(), "no signal {name}");
        println!("shows: {name}");
    }
}

/// All signals of a subject, attached when first asked for and kept until the
/// test program ends.
pub struct Shared {
    /// What their names begin with.
    prefix: &'static str,
    probes: Mutex<Option<Probes>>,
}

impl Shared {
    /// Of signals with such names.
    pub const fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            probes: Mutex::new(None),
        }
    }

    /// The attachment, for one test at a time, and without events of others.
    /// The test [`shows`] the named signals; one that is absent fails it.
    pub fn lend(&'static self, names: &[&str], options: &Options) -> Lent {
        shows(names);
        // A test that failed leaves nothing in it that matters to the next.
        let mut probes = self.probes.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = &mut probes
            .get_or_insert_with(|| {
                let ours: Vec<_> = catalogue::signals()
                    .filter(|signal| signal.name.starts_with(self.prefix))
                    .collect();
                Probes(patient(&ours, options))
            })
            .0;
        reader.drain().unwrap();
        reader.take_events();
        for name in names {
            assert!(reader.has(name), "{name}: {:?}", reader.signals());
        }
        Lent(probes)
    }
}

/// Attaches, and waits for a module as long as it takes: nobody scrapes here,
/// and attaching to a module that comes takes an emulated machine long.
pub fn patient(wanted: &[&'static Signal], options: &Options) -> Reader {
    let mut reader = Reader::attach(wanted, options, &Labels::at_most(2000)).unwrap();
    reader.set_patience(Duration::from_mins(10));
    reader
}

/// The attachment while a test has it.
pub struct Lent(MutexGuard<'static, Option<Probes>>);

impl std::ops::Deref for Lent {
    type Target = Probes;
    fn deref(&self) -> &Probes {
        self.0.as_ref().unwrap()
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Probes {
        self.0.as_mut().unwrap()
    }
}
