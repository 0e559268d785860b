//! Our account of a block device beside the kernel's.

use std::{thread, time::Duration};

use kldtrace_exporters::model::Histogram;

use super::{
    common::{Probes, Snapshot, gained, grew},
    disk::Loop,
};

/// What is attached for it.
pub const SIGNALS: &[&str] = &[
    "block.queue_latency",
    "block.device_latency",
    "block.bytes",
    "block.requests",
    "block.errors",
    "self.losses",
];
/// From being made to being issued.
pub const QUEUE: &str = "kldtrace_block_queue_latency_seconds";
/// From being issued to completion.
pub const DEVICE: &str = "kldtrace_block_device_latency_seconds";

/// What the kernel counts of an operation in `stat`: requests, sectors and
/// milliseconds.
pub const STAT: [(&str, usize, Option<usize>, usize); 4] = [
    ("read", 0, Some(2), 3),
    ("write", 4, Some(6), 7),
    ("discard", 11, Some(13), 14),
    ("flush", 15, None, 16),
];

/// Both accounts before and after something.
pub struct Compared {
    device: String,
    /// Ours and theirs before.
    pub before: (Snapshot, Vec<u64>),
    /// And after.
    pub after: (Snapshot, Vec<u64>),
}

impl Compared {
    /// Before and after some work.
    pub fn over(probes: &mut Probes, device: &Loop, work: impl FnOnce()) -> Self {
        let before = (probes.snapshot(), device.stat());
        work();
        // `stat` is written after the tracepoint, the caller woken in between.
        thread::sleep(Duration::from_millis(20));
        Self {
            device: device.name.clone(),
            before,
            after: (probes.snapshot(), device.stat()),
        }
    }

    /// What a field of the kernel's account gained.
    pub fn stat(&self, field: usize) -> u64 {
        self.after.1[field] - self.before.1[field]
    }

    fn counted(&self, metric: &str, op: &str) -> u64 {
        let labels = [("device", self.device.as_str()), ("op", op)];
        grew(&self.before.0, &self.after.0, metric, &labels)
    }

    /// Requests that we counted.
    pub fn requests(&self, op: &str) -> u64 {
        self.counted("kldtrace_block_requests", op)
    }

    /// Errors that we counted.
    pub fn errors(&self, op: &str) -> u64 {
        self.counted("kldtrace_block_errors", op)
    }

    /// Latencies that we saw.
    pub fn latency(&self, metric: &str, op: &str) -> Histogram {
        let labels = [("device", self.device.as_str()), ("op", op)];
        gained(&self.before.0, &self.after.0, metric, &labels)
    }

    /// Requests and bytes are those of the kernel, for all operations.
    #[track_caller]
    pub fn counts_agree(&self) {
        for (op, requests, sectors, _) in STAT {
            assert_eq!(self.requests(op), self.stat(requests), "{op}");
            if let Some(sectors) = sectors {
                let bytes = self.counted("kldtrace_block_bytes", op);
                assert_eq!(bytes, self.stat(sectors) * 512, "{op}");
            }
        }
    }

    /// Queue and device time add up to the kernel's: to its milliseconds, cut
    /// off at both ends, and to the time between tracepoint and account.
    #[track_caller]
    pub fn times_agree(&self, op: &str) {
        let (.., milliseconds) = STAT.into_iter().find(|stat| stat.0 == op).unwrap();
        let theirs = self.stat(milliseconds) as f64 / 1e3;
        let ours = self.latency(QUEUE, op).sum_seconds() + self.latency(DEVICE, op).sum_seconds();
        println!("{op}: queue and device {ours} s, the kernel {theirs} s");
        assert!(ours < theirs + 0.001, "{op}: {ours} s, {theirs} s");
        // A busy machine may put something in between.
        assert!(ours > theirs * 0.95 - 0.051, "{op}: {ours} s, {theirs} s");
    }
}

/// Observations of at least so long, by bucket.
pub fn at_least(histogram: &Histogram, seconds: f64) -> u64 {
    let buckets = histogram.buckets.iter();
    buckets
        .filter(|(index, _)| Histogram::upper_bound(*index) >= seconds)
        .map(|(_, count)| count)
        .sum()
}
