//! What maps cost, as the kernel counts it. (Programs tell it themselves:
//! [`aya::programs::ProgramInfo`].)

use std::{fs, io, os::fd::AsRawFd};

/// Kernel memory of a map in bytes, from its descriptor's fdinfo
/// (kernel/bpf/syscall.c: `bpf_map_show_fdinfo`).
pub fn map_memory(fd: &impl AsRawFd) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    Ok(value(&text, "memlock"))
}

fn value(text: &str, key: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
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
