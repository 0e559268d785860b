//! Waiting for events of any object: one descriptor for all ring buffers.

use std::{io, os::fd::OwnedFd};

use aya::maps::{MapData, RingBuf};
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
    pub(super) fn add(&self, ring: &RingBuf<MapData>) {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        if let Err(error) = self.0.add(ring, event) {
            tracing::warn!(%error, "events will come late");
        }
    }

    /// A descriptor that is readable when there are events.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.0.try_clone()
    }
}
