//! State that is read when it is asked for: kldtrace's own, and counters that
//! the kernel keeps anyway.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use kldtrace_abi::histogram::Histogram;

use super::{
    pushing::PushState,
    serving::{CertificateState, ListenerState},
};
use crate::collect::listen::Listening;

/// The state of one program.
#[derive(Clone, Debug)]
pub struct ProgramState {
    /// Its name.
    pub name: &'static str,
    /// Time in it while statistics were kept.
    pub run_time: Duration,
    /// Runs while statistics were kept.
    pub runs: u64,
    /// Runs that the kernel left out.
    pub misses: u64,
}

/// The state of one account map.
#[derive(Clone, Debug)]
pub struct MapState {
    /// What it holds.
    pub name: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries that it can hold.
    pub capacity: u64,
    /// Kernel memory in bytes.
    pub memory: u64,
}

/// What was read of listening sockets, in all network namespaces.
#[derive(Clone, Debug)]
pub struct Listened {
    /// Overflows of accept queues.
    pub overflows: u64,
    /// Drops, by unit, interface and family.
    pub drops: BTreeMap<Listening, u64>,
    /// What could not be read.
    pub failures: u64,
}

/// A collector that is asked with a deadline.
#[derive(Clone, Debug)]
pub struct CollectorState {
    /// Its name.
    pub name: &'static str,
    /// Whether it answered in time.
    pub answers: bool,
    /// How often it did not.
    pub left_out: u64,
}

/// Everything that is read at once.
pub struct Facts {
    /// Signals asked for, and whether they are measured.
    pub signals: Vec<(&'static str, bool)>,
    /// Attached programs.
    pub programs: Vec<ProgramState>,
    /// Time for which the kernel kept run-time statistics for us.
    pub stats_time: Duration,
    /// Losses by reason.
    pub losses: Vec<(&'static str, u64)>,
    /// Account maps.
    pub maps: Vec<MapState>,
    /// Label sets without room for series of their own, by subject.
    pub folded: Vec<(&'static str, u64)>,
    /// Cgroups made and removed.
    pub cgroup_events: [u64; 2],
    /// Time to load and attach.
    pub attach: Duration,
    /// Scrapes before this one.
    pub scrapes: Box<Histogram>,
    /// CPU time of the process.
    pub cpu: Duration,
    /// Resident memory of the process in bytes.
    pub resident: u64,
    /// `uname -r`.
    pub kernel: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
    /// Listening sockets; `None`: they were not read in time.
    pub listened: Option<Listened>,
    /// The daemon's listeners.
    pub listeners: Vec<ListenerState>,
    /// The daemon's certificates.
    pub certificates: Vec<CertificateState>,
    /// Pushes; `None`: nothing is pushed.
    pub push: Option<PushState>,
    /// Collectors that may not answer.
    pub collectors: Vec<CollectorState>,
}

/// CPU time of this process, user and system (getrusage(2)).
pub fn process_cpu() -> Duration {
    // SAFETY: getrusage fills the struct; zeros are a valid one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| {
        Duration::from_secs(t.tv_sec.try_into().unwrap_or(0))
            + Duration::from_micros(t.tv_usec.try_into().unwrap_or(0))
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Resident memory of this process in bytes (proc(5): statm); 0 without
/// /proc.
pub fn process_resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    // SAFETY: sysconf has no preconditions.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page).unwrap_or(4096)
}

/// `uname -r`.
pub fn kernel_release() -> Arc<str> {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".into(), |text| text.trim().into())
}
