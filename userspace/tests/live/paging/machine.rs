//! Faults of a disk, of CPUs and of the daemon itself.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Instant,
};

use super::chain::Chain;
use crate::{
    common::Daemon,
    disk::{Loop, SlowFile, read},
    end::End,
};

impl Chain {
    /// Signals that a kernel without ZFS does not serve.
    pub fn absent_signal(&mut self, begun: Instant) {
        let zfs = [("signal", "zfs.op_latency")];
        let own = self.daemon.families("self");
        if own.integer("kldtrace_signal_available", &zfs) == 0 {
            self.pages(
                begun,
                "a signal that is wanted is absent",
                "KldtraceSignalAbsent",
                &["#platform"],
                "n-1 does not measure zfs.op_latency",
            );
        }
    }

    /// It is wanted no more.
    pub fn signal_is_not_wanted(&mut self) {
        self.more = self.more.replace(", \"zfs.op_latency\"", "");
        self.daemon.configure(&self.more);
        self.daemon.signal(libc::SIGHUP);
        self.undone("KldtraceSignalAbsent");
    }

    /// Many tasks for each CPU.
    pub fn busy_cpus(&mut self) {
        let busy = AtomicBool::new(true);
        let tasks = 64 * thread::available_parallelism().map_or(1, usize::from);
        let begun = Instant::now();
        thread::scope(|scope| {
            let _end = End(&busy);
            for _ in 0..tasks {
                scope.spawn(|| {
                    while busy.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                });
            }
            self.pages(
                begun,
                "64 tasks for each CPU",
                "SchedRunqueueSlow",
                &["#platform"],
                "n-1 has too few CPUs",
            );
        });
        self.undone("SchedRunqueueSlow");
    }

    /// A disk that takes half a second for a read, and then fails one.
    pub fn slow_disk(&mut self) {
        let slow = SlowFile::mount();
        let device = Loop::on(&slow.path);
        let disk = device.open(0);
        slow.does.delay.store(500, SeqCst);
        let reading = Arc::new(AtomicBool::new(true));
        let goes_on = reading.clone();
        let begun = Instant::now();
        let reader = thread::spawn(move || {
            while goes_on.load(SeqCst) {
                read(&disk, 0).unwrap();
            }
            disk
        });
        self.pages(
            begun,
            "a disk takes 0.5 s for each read",
            "BlockDeviceSlow",
            &["#storage"],
            &format!("Disk {} on n-1 is slow to read", device.name),
        );
        reading.store(false, SeqCst);
        let disk = reader.join().unwrap();
        slow.does.delay.store(0, SeqCst);
        self.undone("BlockDeviceSlow");
        slow.does.fail_odd.store(libc::EIO, SeqCst);
        let begun = Instant::now();
        read(&disk, 1).unwrap_err();
        self.pages(
            begun,
            "a disk fails a read",
            "BlockErrors",
            &["#storage"],
            &format!("Disk {} on n-1 fails a read", device.name),
        );
        self.undone("BlockErrors");
    }

    /// A certificate that is replaced by one that has expired.
    pub fn expired_certificate(&mut self) {
        let expiry = "kldtrace_certificate_expiry_timestamp_seconds";
        self.prometheus.wait_for_news(expiry);
        let expired = self.authority.issue_until(&["n-2.example"], 2026);
        let begun = Instant::now();
        expired.write(self.certificate.path(), "n-2");
        self.pages(
            begun,
            "the certificate is replaced by one that has expired",
            "KldtraceCertificateUrgent",
            &["page-platform", "#platform"],
            "The certificate for listen of kldtrace on n-2 has expired",
        );
    }

    /// It is renewed.
    pub fn renewed_certificate(&mut self) {
        let renewed = self.authority.issue(&["n-2.example"]);
        renewed.write(self.certificate.path(), "n-2");
        self.undone("KldtraceCertificateUrgent");
    }

    /// A daemon that is killed pages, and when it is back that is told.
    pub fn killed_daemon(&mut self) {
        let begun = Instant::now();
        self.daemon.signal(libc::SIGKILL);
        self.daemon.ended();
        self.pages(
            begun,
            "the daemon is killed",
            "NodeDown",
            &["page-platform", "#platform"],
            "n-1 is down",
        );
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let config = Daemon::configuration(self.daemon.port, &socket, &self.more);
        fs::write(folder.path().join("c.toml"), config).unwrap();
        let _back = Daemon::run(folder, self.daemon.port);
        self.undone("NodeDown");
        self.resolve();
    }
}
