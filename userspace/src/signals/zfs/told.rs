//! Taking what probes tell of out of the ring buffer.

use aya::maps::{MapData, RingBuf};
use kldtrace_abi::{zfs::SlowOperation, zfs_report::Report};

use super::{reports, slow};

/// What a probe tells of.
pub(super) enum Told {
    Slow(SlowOperation),
    Report(Report),
}

/// Events that are taken in at once: a ring buffer of so many bytes has no room
/// for more slow operations.
pub const fn at_once(event_buffer: u32) -> usize {
    event_buffer as usize / size_of::<SlowOperation>()
}

/// What is in the ring buffer. What comes meanwhile is for the next reading:
/// where everything is slow, it may come as fast as it is taken out.
pub(super) fn all_there(ring: &mut RingBuf<MapData>, at_once: usize) -> Vec<Told> {
    let mut told = Vec::new();
    for _ in 0..at_once {
        let Some(bytes) = ring.next() else {
            break;
        };
        let report = reports::parse(&bytes).map(Told::Report);
        told.extend(report.or_else(|| slow::parse(&bytes).map(Told::Slow)));
    }
    told
}
