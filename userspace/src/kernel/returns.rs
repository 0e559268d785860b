//! Probes at the return of kernel functions, with room for many at once.
//!
//! A return probe needs an instance for each call under way. Those that
//! `perf_event_open` makes by itself have twice as many as there are CPUs
//! (kernel/kprobes.c: `register_kretprobe`), at least 10: a node with a
//! thousand threads in fsync would lose nearly all. Only tracefs can ask for
//! more, `rMAXACTIVE:` (Documentation/trace/kprobetrace.rst), and only tracefs
//! tells how many were missed all the same.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;

/// Where tracefs is.
pub const TRACEFS: &str = "/sys/kernel/tracing";

/// Calls under way at once that a return probe can follow; the kernel takes up
/// to 4096. An instance takes about 100 bytes of kernel memory.
pub const INSTANCES: u32 = 2048;

/// The group of our events in tracefs.
const GROUP: &str = "kldtrace";

// include/uapi/linux/perf_event.h
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;
const PERF_TYPE_TRACEPOINT: u32 = 2;
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// A program at the return of a function. Dropping it detaches.
#[derive(Debug)]
pub struct ReturnProbe {
    event: String,
    /// Closed before the event is removed, which is busy until then.
    perf: Option<OwnedFd>,
}

impl ReturnProbe {
    /// Attaches a loaded program.
    ///
    /// # Errors
    /// When there is no such function, or tracefs is not there or refuses.
    pub fn attach(program: BorrowedFd<'_>, function: &str) -> anyhow::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // MAX_EVENT_NAME_LEN is 64.
        let short: String = function.chars().take(40).collect();
        let event = format!("{short}_{}_{number}", process::id());
        let definition = format!("r{INSTANCES}:{GROUP}/{event} {function}\n");
        let events = format!("{TRACEFS}/kprobe_events");
        if !Path::new(&events).exists() {
            return Err(anyhow::anyhow!(
                "no {events}: mount -t tracefs tracefs {TRACEFS}"
            ));
        }
        define(&definition).map_err(|error| match error.raw_os_error() {
            // Before 6.9 or so, tracefs says EINVAL of a function that is not
            // there; of a definition that it cannot read, too, but ours is
            // always the same.
            Some(libc::ENOENT | libc::EINVAL) => {
                anyhow::anyhow!("no function {function} in this kernel")
            }
            _ => anyhow::Error::new(error).context(events),
        })?;
        let mut probe = Self { event, perf: None };
        probe.perf = Some(probe.open(program)?);
        Ok(probe)
    }

    fn open(&self, program: BorrowedFd<'_>) -> anyhow::Result<OwnedFd> {
        let path = format!("{TRACEFS}/events/{GROUP}/{}/id", self.event);
        let id = fs::read_to_string(&path).with_context(|| path.clone())?;
        let id = id.trim().parse().with_context(|| path)?;
        let perf = open_tracepoint(id).context("perf_event_open")?;
        // SAFETY: both descriptors are open; neither call keeps a pointer.
        unsafe {
            if libc::ioctl(perf.as_raw_fd(), SET_BPF, program.as_raw_fd()) != 0 {
                return Err(io::Error::last_os_error()).context("PERF_EVENT_IOC_SET_BPF");
            }
            if libc::ioctl(perf.as_raw_fd(), ENABLE, 0) != 0 {
                return Err(io::Error::last_os_error()).context("PERF_EVENT_IOC_ENABLE");
            }
        }
        Ok(perf)
    }

    /// Returns that were missed since it was attached: more calls were under
    /// way than it can follow, or it was hit inside another probe.
    pub fn missed(&self, profile: &Profile) -> u64 {
        profile.missed(&self.event)
    }
}

impl Drop for ReturnProbe {
    fn drop(&mut self) {
        drop(self.perf.take());
        let _ = define(&format!("-:{GROUP}/{}\n", self.event));
    }
}

/// What tracefs tells of all probes: `kprobe_profile`.
#[derive(Debug, Default)]
pub struct Profile(String);

impl Profile {
    /// Reads it; without tracefs nothing was missed that anybody could tell.
    pub fn read() -> Self {
        Self(fs::read_to_string(format!("{TRACEFS}/kprobe_profile")).unwrap_or_default())
    }

    /// A line is `  EVENT   HITS   MISSES`.
    fn missed(&self, event: &str) -> u64 {
        self.0
            .lines()
            .map(|line| line.split_whitespace())
            .find_map(|mut words| (words.next()? == event).then(|| words.nth(1)?.parse().ok()))
            .flatten()
            .unwrap_or(0)
    }
}

/// Removes the events of processes that were killed: they are no longer
/// armed, but would stay for ever.
pub fn remove_left_behind() {
    let Ok(events) = fs::read_to_string(format!("{TRACEFS}/kprobe_events")) else {
        return;
    };
    for event in left_behind(&events, |pid| Path::new(&format!("/proc/{pid}")).exists()) {
        let _ = define(&format!("-:{GROUP}/{event}\n"));
    }
}

/// Lines are `r2048:kldtrace/zpl_fsync_1234_0 zpl_fsync`.
fn left_behind(events: &str, lives: impl Fn(u32) -> bool) -> Vec<&str> {
    events
        .lines()
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let event = name.split_once(':')?.1.strip_prefix("kldtrace/")?;
            let pid = event.rsplit('_').nth(1)?.parse().ok()?;
            (!lives(pid)).then_some(event)
        })
        .collect()
}

fn define(definition: &str) -> io::Result<()> {
    let mut file: File = OpenOptions::new()
        .append(true)
        .open(format!("{TRACEFS}/kprobe_events"))?;
    file.write_all(definition.as_bytes())
}

/// The part of `struct perf_event_attr` that its first version had
/// (PERF_ATTR_SIZE_VER0).
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

fn open_tracepoint(id: u64) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: id,
        ..Attributes::default()
    };
    // SAFETY: the attributes live through the call, and the result is checked
    // before it is owned. A program at a probe runs on every CPU, whichever
    // the event is opened for (kernel/trace/trace_kprobe.c: kretprobe_perf_func).
    unsafe {
        let fd = libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            -1,
            0,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd as libc::c_int))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_dead_left_is_removed() {
        let events = "r2048:kldtrace/zpl_fsync_12_0 zpl_fsync\n\
                      r2048:kldtrace/zil_commit_13_7 zil_commit\n\
                      p:mine/zpl_fsync_12_0 zpl_fsync\n\
                      r2048:kldtrace/odd zpl_fsync\ngarbage\n";
        assert_eq!(left_behind(events, |pid| pid == 13), ["zpl_fsync_12_0"]);
    }

    #[test]
    fn misses_are_in_the_third_column() {
        let profile = Profile(
            "  zpl_fsync_12_0                     1000               7\n  short\n".to_owned(),
        );
        assert_eq!(profile.missed("zpl_fsync_12_0"), 7);
        assert_eq!(profile.missed("short"), 0);
        assert_eq!(profile.missed("absent"), 0);
    }
}
