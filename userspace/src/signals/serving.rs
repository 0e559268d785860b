//! What the daemon's listeners and certificates have come to.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use kldtrace_exporters::tls::Follow;

use super::pushing::Pushing;

/// Why a connection was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It was idle for longest when another needed room.
    Evicted,
    /// There was no room, and nobody was idle.
    Full,
    /// No TLS came of it: plain text, no certificate, or a wrong one.
    Tls,
    /// Its TLS or the head of its request was not there in time.
    SlowRequest,
    /// It did not take its answer in time.
    SlowReader,
    /// It asked for nothing more in a long time.
    Idle,
}

impl Dropped {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Evicted, "evicted"),
        (Self::Full, "full"),
        (Self::Tls, "tls"),
        (Self::SlowRequest, "slow_request"),
        (Self::SlowReader, "slow_reader"),
        (Self::Idle, "idle"),
    ];
}

/// What one listener counts.
#[derive(Debug)]
pub struct Listener {
    name: &'static str,
    limit: u64,
    open: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

impl Listener {
    /// One that holds so many connections.
    pub fn new(name: &'static str, limit: u64) -> Self {
        Self {
            name,
            limit,
            open: AtomicU64::new(0),
            dropped: Default::default(),
        }
    }

    /// Connections that it may hold.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// A connection was ended.
    pub fn count(&self, why: Dropped) {
        self.dropped[why as usize].fetch_add(1, Relaxed);
    }

    /// So many connections are held now.
    pub fn holds(&self, open: usize) {
        self.open.store(open as u64, Relaxed);
    }
}

/// Our certificate for something.
pub struct Certificate {
    /// What it is for: `listen`.
    pub purpose: &'static str,
    /// The files that it comes from.
    pub files: Arc<dyn Follow>,
}

/// All of them.
#[derive(Default)]
pub struct Serving {
    /// The listeners.
    pub listeners: Vec<Arc<Listener>>,
    /// The certificates.
    pub certificates: Vec<Certificate>,
    /// The pushes; `None`: nothing is pushed.
    pub push: Option<Arc<Pushing>>,
}

/// A listener at one moment.
#[derive(Clone, Debug)]
pub struct ListenerState {
    /// Its name: `metrics` or `socket`.
    pub name: &'static str,
    /// Connections that it holds.
    pub open: u64,
    /// Connections that it may hold.
    pub limit: u64,
    /// Connections that were ended by us, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// A certificate at one moment.
#[derive(Clone, Debug)]
pub struct CertificateState {
    /// What it is for.
    pub purpose: &'static str,
    /// When it, or the first of those that certify it, expires, in seconds
    /// since 1970; `None`: there is none.
    pub not_after: Option<i64>,
    /// How often changed files were taken into use.
    pub renewals: u64,
    /// How often they could not be.
    pub failures: u64,
}

impl Serving {
    /// The listeners as they are.
    pub fn listeners(&self) -> Vec<ListenerState> {
        let state = |listener: &Arc<Listener>| ListenerState {
            name: listener.name,
            open: listener.open.load(Relaxed),
            limit: listener.limit,
            dropped: Dropped::ALL
                .iter()
                .map(|(why, word)| (*word, listener.dropped[*why as usize].load(Relaxed)))
                .collect(),
        };
        self.listeners.iter().map(state).collect()
    }

    /// The certificates as they are.
    pub fn certificates(&self) -> Vec<CertificateState> {
        let state = |certificate: &Certificate| {
            let state = certificate.files.state();
            CertificateState {
                purpose: certificate.purpose,
                not_after: state.not_after,
                renewals: state.renewals,
                failures: state.failures,
            }
        };
        self.certificates.iter().map(state).collect()
    }
}
