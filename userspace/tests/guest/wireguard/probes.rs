//! The probes, attached once for all scenarios: attaching takes seconds in a
//! guest.

use std::{
    os::fd::AsRawFd as _,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use kldtrace::{
    catalogue::{self, Subject},
    kernel::loader::Options,
    signals::reader::Reader,
};
use kldtrace_exporters::model::Event;

use super::super::{
    common::Snapshot,
    machine::module,
    shared::{patient, shows},
};

/// Attaches all signals of WireGuard, and what kldtrace tells of itself.
pub fn attach() -> Reader {
    let wanted: Vec<_> = catalogue::signals()
        .filter(|signal| {
            signal.subject == Subject::Wireguard
                || signal.name.starts_with("self.map_")
                || signal.name == "self.losses"
        })
        .collect();
    let start = Instant::now();
    let reader = patient(&wanted, &Options::default());
    println!("attached in {:.1} s", start.elapsed().as_secs_f64());
    reader
}

/// The reader that all scenarios share, of which the test [`shows`] these;
/// `None`: there is no WireGuard here.
pub fn probes(names: &[&str]) -> Option<MutexGuard<'static, Reader>> {
    static READER: OnceLock<Mutex<Reader>> = OnceLock::new();
    if !module("wireguard") {
        return None;
    }
    shows(names);
    let reader = READER.get_or_init(|| Mutex::new(attach()));
    // A test that failed has not harmed the reader.
    let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, is) in reader.signals() {
        assert_eq!(is.reason(), None, "{}", signal.name);
    }
    reader.take_events();
    Some(reader)
}

/// Reads everything.
pub fn snapshot(reader: &mut Reader) -> Snapshot {
    Snapshot(reader.families(|_| true).unwrap())
}

/// Waits until the descriptor of the events is readable, and takes them. Who
/// only looks now and then would take them, too, but later.
#[track_caller]
pub fn awaited(reader: &mut Reader) -> Vec<Event> {
    let descriptor = reader.events_fd().unwrap();
    let mut poll = libc::pollfd {
        fd: descriptor.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, as it says.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 20_000) };
    assert_eq!(ready, 1, "nothing was said of events");
    reader.drain().unwrap();
    reader.take_events()
}

/// Labels and their values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// What a counter has grown by since an earlier moment.
pub trait Since {
    /// See there.
    fn since(&self, before: &Self, metric: &str, labels: Labels<'_>) -> u64;
}

impl Since for Snapshot {
    fn since(&self, before: &Self, metric: &str, labels: Labels<'_>) -> u64 {
        self.integer(metric, labels) - before.integer(metric, labels)
    }
}

/// Events of a kind with these labels.
pub fn told<'a>(events: &'a [Event], kind: &str, labels: Labels<'_>) -> Vec<&'a Event> {
    events
        .iter()
        .filter(|event| {
            event.subject == "wireguard"
                && event.kind == kind
                && labels.iter().all(|(name, value)| {
                    let mut own = event.labels.iter();
                    own.any(|(n, v)| n == name && &**v == *value)
                })
        })
        .collect()
}
