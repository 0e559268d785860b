//! A line that is slow: this kernel has no netem.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    mem,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{Host, readable};

/// Makes a TUN device with the host's interface name.
pub fn tun(host: &Host) -> File {
    // linux/if_tun.h: _IOW('T', 202, int)
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    host.in_namespace(|| {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .unwrap();
        // SAFETY: ifreq is plain data.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(host.interface.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        // SAFETY: an open descriptor and the structure that the call reads.
        let made = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw const request) };
        assert_eq!(made, 0, "{}", io::Error::last_os_error());
        device
    })
}

/// Carries packets between two TUN devices, each late by the same time.
pub struct DelayLine {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl DelayLine {
    /// Between two devices.
    pub fn new(one: File, other: File, time: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let back = (other.try_clone().unwrap(), one.try_clone().unwrap());
        let threads = [(one, other), back]
            .into_iter()
            .flat_map(|(from, to)| {
                let (sender, receiver) = mpsc::channel();
                let stop = stop.clone();
                [
                    thread::spawn(move || take_in(from, time, &stop, &sender)),
                    thread::spawn(move || give_out(to, &receiver)),
                ]
            })
            .collect();
        Self { stop, threads }
    }
}

type Packet = (Instant, Vec<u8>);

fn take_in(mut from: File, time: Duration, stop: &AtomicBool, to: &mpsc::Sender<Packet>) {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        if readable(from.as_fd(), Duration::from_millis(50))
            && let Ok(length) = from.read(&mut buffer)
        {
            let due = Instant::now() + time;
            if to.send((due, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    }
}

fn give_out(mut to: File, from: &mpsc::Receiver<Packet>) {
    for (due, packet) in from {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // A device that is not up yet refuses packets, as a cable would.
        let _ = to.write(&packet);
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
