//! What programs and maps cost, as the kernel counts it.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use aya_obj::generated::bpf_prog_info;

use super::{loader::Loaded, sys};

/// Kernel memory of a map in bytes, from its descriptor's fdinfo
/// (kernel/bpf/syscall.c: `bpf_map_show_fdinfo`).
pub fn map_memory(fd: &impl AsRawFd) -> io::Result<u64> {
    Ok(value(&fdinfo(fd)?, "memlock"))
}

/// What the kernel says of a program.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Time in it, as long as the kernel keeps statistics.
    pub run_time: Duration,
    /// Its runs, as long as the kernel keeps statistics.
    pub runs: u64,
    /// Runs that the kernel left out, because the same program was already
    /// running on that CPU (kernel/trace/bpf_trace.c: `__bpf_trace_run`); 0
    /// before Linux 5.12, which does not tell.
    pub misses: u64,
    /// Its instructions, of 8 bytes, as the verifier has left them.
    pub instructions: u32,
}

/// What the kernel says of a program, by its descriptor.
///
/// # Errors
/// What the kernel says.
pub fn account(program: impl AsFd) -> io::Result<Account> {
    // SAFETY: integers; 0 asks for no list.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    sys::info(program, &mut info)?;
    Ok(Account {
        run_time: Duration::from_nanos(info.run_time_ns),
        runs: info.run_cnt,
        misses: info.recursion_misses,
        instructions: info.xlated_prog_len / 8,
    })
}

fn fdinfo(fd: &impl AsRawFd) -> io::Result<String> {
    fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
}

fn value(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

/// The measured nanoseconds for each run of the attached programs, in their
/// order, over a time in which the kernel keeps statistics; not a number for
/// one that did not run.
///
/// # Errors
/// When the kernel refuses to keep statistics.
pub fn measure(objects: &[&Loaded], window: Duration) -> anyhow::Result<Vec<f64>> {
    let before = run_times(objects);
    let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime)?;
    let until = Instant::now() + window;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
    drop(statistics);
    let after = run_times(objects);
    Ok(before
        .iter()
        .zip(&after)
        .map(|(before, after)| {
            let runs = after.1.saturating_sub(before.1);
            let time = after.0.saturating_sub(before.0).as_nanos() as f64;
            time / runs as f64
        })
        .collect())
}

fn run_times(objects: &[&Loaded]) -> Vec<(Duration, u64)> {
    objects
        .iter()
        .flat_map(|loaded| loaded.attached.iter().map(move |one| (loaded, one)))
        .map(
            |(loaded, attached)| match loaded.account(attached.hook.program) {
                Some(account) => (account.run_time, account.runs),
                None => (Duration::ZERO, 0),
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn fdinfo_values() {
        let text = "pos:\t0\nmap_type:\t5\nmemlock:\t4096\nfrozen:\tx\n";
        assert_eq!(value(text, "memlock"), 4096);
        assert_eq!(value(text, "frozen"), 0);
        assert_eq!(value(text, "absent"), 0);
    }
}
