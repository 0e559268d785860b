//! Adding up the accounts of the ZFS probes.

use kldtrace_abi::{
    histogram::Histogram,
    zfs::{LogWrites, Operations, Vdev},
    zfs_report::Reports,
    zvol::Zvol,
};

use crate::signals::maps::Sum;

impl Sum for Operations {
    const ZERO: Self = Self {
        latency: Histogram::EMPTY,
        bytes: 0,
        errors: 0,
        from_memory: 0,
    };

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.bytes += other.bytes;
        self.errors += other.errors;
        self.from_memory += other.from_memory;
    }

    fn is_zero(&self) -> bool {
        self.latency.count() == 0
    }
}

impl Sum for Histogram {
    const ZERO: Self = Self::EMPTY;

    fn add(&mut self, other: &Self) {
        Histogram::add(self, other);
    }

    fn is_zero(&self) -> bool {
        self.count() == 0
    }
}

impl Sum for Vdev {
    const ZERO: Self = Self {
        queue: Histogram::EMPTY,
        device: Histogram::EMPTY,
        bytes: 0,
        errors: 0,
    };

    fn add(&mut self, other: &Self) {
        self.queue.add(&other.queue);
        self.device.add(&other.device);
        self.bytes += other.bytes;
        self.errors += other.errors;
    }

    fn is_zero(&self) -> bool {
        self.device.count() + self.errors == 0
    }
}

impl Sum for LogWrites {
    const ZERO: Self = Self {
        queue: Histogram::EMPTY,
        device: Histogram::EMPTY,
    };

    fn add(&mut self, other: &Self) {
        self.queue.add(&other.queue);
        self.device.add(&other.device);
    }

    fn is_zero(&self) -> bool {
        self.device.count() == 0
    }
}

impl Sum for Zvol {
    const ZERO: Self = Self {
        latency: Histogram::EMPTY,
        bytes: 0,
        errors: 0,
    };

    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        self.bytes += other.bytes;
        self.errors += other.errors;
    }

    fn is_zero(&self) -> bool {
        self.latency.count() == 0
    }
}

impl Sum for Reports {
    const ZERO: Self = Self { count: 0 };

    fn add(&mut self, other: &Self) {
        self.count += other.count;
    }

    fn is_zero(&self) -> bool {
        self.count == 0
    }
}
