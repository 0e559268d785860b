//! The faults.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::{RESOLVE, TRIGGER, chain::Chain};
use crate::{
    common::{Daemon, free_port},
    disk::{Loop, SlowFile, read},
};

impl Chain {
    /// A disk that takes half a second for a read, and then fails one.
    pub fn slow_disk(&self) {
        let slow = SlowFile::mount();
        let device = Loop::on(&slow.path);
        let disk = device.open(0);
        slow.does.delay.store(500, SeqCst);
        let reading = Arc::new(AtomicBool::new(true));
        let goes_on = reading.clone();
        let reader = thread::spawn(move || {
            while goes_on.load(SeqCst) {
                read(&disk, 0).unwrap();
            }
            disk
        });
        self.told("BlockDeviceSlow");
        reading.store(false, SeqCst);
        let disk = reader.join().unwrap();
        slow.does.delay.store(0, SeqCst);
        slow.does.fail_odd.store(libc::EIO, SeqCst);
        read(&disk, 1).unwrap_err();
        self.told("BlockErrors");
    }

    /// Connects to a port on which nobody listens. A counter needs two samples.
    pub fn refused_connects(&self) {
        let closed = free_port();
        let refused = || TcpStream::connect(("127.0.0.1", closed)).unwrap_err();
        refused();
        let counter = "kldtrace_tcp_connect_failures_total{reason=\"refused\"} > 0";
        self.prometheus.wait_for_news(counter);
        for _ in 0..1000 {
            refused();
        }
        self.told("TcpConnectsFailing");
    }

    /// A server that accepts nobody, with a queue of one.
    pub fn full_accept_queue(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: listen(2) on our own socket.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(connect);
            }
            self.told("TcpListenOverflow");
        });
    }

    /// A certificate that is replaced by one that has expired, and renewed.
    pub fn expired_certificate(&self) {
        let expiry = "kldtrace_certificate_expiry_timestamp_seconds";
        self.prometheus.wait_for_news(expiry);
        let names = ["n-2.example"];
        let expired = self.authority.issue_until(&names, 2026);
        expired.write(self.certificate.path(), "n-2");
        let alert = "KldtraceCertificateUrgent";
        self.receiver.wait("/pagerduty", alert, TRIGGER);
        let renewed = self.authority.issue(&names);
        renewed.write(self.certificate.path(), "n-2");
        self.receiver.wait("/pagerduty", alert, RESOLVE);
    }

    /// Sixteen tasks for each CPU.
    pub fn busy_cpus(&self) {
        let busy = AtomicBool::new(true);
        let tasks = 16 * thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..tasks {
                scope.spawn(|| {
                    while busy.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                });
            }
            self.told("SchedRunqueueSlow");
            busy.store(false, SeqCst);
        });
    }

    /// A daemon that is killed pages, and when it is back that is told.
    pub fn killed_daemon(&mut self) {
        self.daemon.signal(libc::SIGKILL);
        self.daemon.ended();
        self.receiver.wait("/pagerduty", "NodeDown", TRIGGER);
        self.told("NodeDown");
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let config = Daemon::configuration(self.daemon.port, &socket, &self.more);
        fs::write(folder.path().join("c.toml"), config).unwrap();
        let _back = Daemon::run(folder, self.daemon.port);
        self.receiver.wait("/pagerduty", "NodeDown", RESOLVE);
        self.receiver.wait("/slack", "NodeDown", "RESOLVED");
    }
}
