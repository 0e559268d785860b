//! Waiting for events of any object: one descriptor for all ring buffers.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

/// The ring buffers that are attached. One that is let go leaves by itself
/// (epoll(7)).
pub(super) struct Rings(Epoll);

impl Rings {
    /// None yet.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Waits for this one, too. Without it, its events are taken in whenever
    /// somebody looks.
    pub(super) fn add(&self, ring: impl AsFd) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        if let Err(error) = self.0.add(ring, event) {
            tracing::warn!(%error, "events will come late");
        }
    }

    /// Wakes at changes of a file that tells of them by `POLLPRI`, too.
    pub(super) fn add_changes(&self, file: impl AsFd) {
        let event = EpollEvent::new(EpollFlags::EPOLLPRI, 0);
        if let Err(error) = self.0.add(file, event) {
            tracing::warn!(%error, "changes will be seen late");
        }
    }

    /// A descriptor that is readable when there are events.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.0.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};

    use nix::sys::epoll::EpollTimeout;

    use super::*;
    use crate::collect::zfs::mounted::tests::Tmpfs;

    /// Waits for the rings as the daemon's event loop does: for changes only.
    struct Waiter {
        epoll: Epoll,
        _descriptor: OwnedFd,
    }

    impl Waiter {
        fn of(rings: &Rings) -> Self {
            let descriptor = rings.descriptor().unwrap();
            let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
            let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
            epoll.add(&descriptor, event).unwrap();
            Self {
                epoll,
                _descriptor: descriptor,
            }
        }

        fn woken(&self) -> bool {
            let mut events = [EpollEvent::empty()];
            self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap() == 1
        }
    }

    fn event(from: &mut PipeWriter) {
        from.write_all(b"x").unwrap();
    }

    fn take(from: &mut PipeReader) {
        from.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn every_ring_wakes_also_one_that_joins_later() {
        let rings = Rings::new().unwrap();
        let (mut first, mut to_first) = pipe().unwrap();
        rings.add(&first);
        let waiter = Waiter::of(&rings);
        assert!(!waiter.woken());
        let (mut second, mut to_second) = pipe().unwrap();
        rings.add(&second);
        for _ in 0..3 {
            event(&mut to_second);
            assert!(waiter.woken());
            take(&mut second);
            event(&mut to_first);
            assert!(waiter.woken());
            take(&mut first);
            assert!(!waiter.woken());
        }
    }

    #[test]
    fn a_change_of_mounts_wakes_and_nothing_else_of_them() {
        let rings = Rings::new().unwrap();
        let mounts = std::fs::File::open("/proc/self/mountinfo").unwrap();
        rings.add_changes(&mounts);
        let waiter = Waiter::of(&rings);
        // Mounts are always readable, which is no change.
        assert!(!waiter.woken());
        let Some(tmpfs) = Tmpfs::mount() else { return };
        assert!(waiter.woken());
        drop(tmpfs);
        assert!(waiter.woken());
        assert!(!waiter.woken());
    }

    #[test]
    fn one_that_nobody_empties_keeps_nobody_awake_and_leaves_when_closed() {
        let rings = Rings::new().unwrap();
        let (stuck, mut to_stuck) = pipe().unwrap();
        let (mut other, mut to_other) = pipe().unwrap();
        rings.add(&stuck);
        rings.add(&other);
        let waiter = Waiter::of(&rings);
        event(&mut to_stuck);
        assert!(waiter.woken());
        assert!(!waiter.woken());
        // The others are heard all the same.
        event(&mut to_other);
        assert!(waiter.woken());
        take(&mut other);
        drop(stuck);
        assert!(!waiter.woken());
        event(&mut to_other);
        assert!(waiter.woken());
    }
}
