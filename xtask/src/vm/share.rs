//! Which of the guests that run side by side runs which tests.

use std::path::Path;

/// What tests take about, in seconds, by what their names begin with.
const LONG: &[(&str, u32)] = &[
    ("wireguard::planes::", 170),
    ("paging::", 120),
    ("wireguard::minutes::", 20),
    ("zfs::faults::zfs_unloaded", 19),
    ("zfs::trampolines::zfs_reads_go_on", 14),
    ("wireguard::named::", 14),
    ("wireguard::removal::the_module", 14),
    ("wireguard::roundtrip::", 8),
    ("zfs::faults::zfs_without_types", 8),
    ("zfs::stages::zfs_slow_operations_without_end", 8),
    ("zfs::trampolines::zfs_reads_without", 8),
    ("zfs::trouble::zfs_failures_without_end", 7),
    ("zfs::trouble::zfs_wrong", 6),
    ("zfs::taskq::zfs_tasks_wait_longer", 5),
    ("zfs::vdev::zfs_vdev_that_fails", 5),
    ("zfs::trouble::", 3),
    ("zfs::taskq::", 3),
    ("wireguard::", 4),
];

/// The others.
const USUAL: u32 = 2;

fn seconds(name: &str) -> u32 {
    let long = LONG.iter().find(|(begins, _)| name.starts_with(begins));
    long.map_or(USUAL, |(_, seconds)| *seconds)
}

/// Shares names out to so many guests, and leaves out those that would have
/// none. The longest first, each to the guest that has least; each guest runs
/// its own in the order that they came in.
pub fn of(names: &[String], guests: usize) -> Vec<Vec<&str>> {
    let mut order: Vec<_> = (0..names.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(seconds(&names[at])));
    let mut shares = vec![(0, Vec::new()); guests];
    for at in order {
        if let Some((sum, share)) = shares.iter_mut().min_by_key(|(sum, _)| *sum) {
            *sum += seconds(&names[at]);
            share.push(at);
        }
    }
    let shares = shares.into_iter().filter(|(_, share)| !share.is_empty());
    let shares = shares.map(|(_, mut share)| {
        share.sort_unstable();
        share.into_iter().map(|at| names[at].as_str()).collect()
    });
    shares.collect()
}

/// What a guest runs: the tests of its share.
pub fn script(binary: &Path, names: &[&str]) -> String {
    // Names of functions: nothing in them is a shell's.
    format!(
        "export RUST_BACKTRACE=1\n{} --exact --test-threads=1 --show-output {}\n",
        binary.display(),
        names.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = [
        "machine::one",
        "paging::all",
        "wireguard::planes::example",
        "zfs::faults::late",
        "zfs::ops::two",
    ];

    #[test]
    fn each_test_has_one_guest_and_the_long_ones_have_two() {
        let names = NAMES.map(str::to_owned);
        for guests in 1..7 {
            let shares = of(&names, guests);
            assert_eq!(shares.len(), guests.min(NAMES.len()));
            let mut all = shares.concat();
            all.sort_unstable();
            assert_eq!(all, NAMES);
            assert!(shares.iter().all(|share| share.is_sorted()));
        }
        let [planes, others] = of(&names, 2).try_into().unwrap();
        assert_eq!(planes, ["wireguard::planes::example"]);
        assert_eq!(others.len(), 4);
        assert!(of(&[], 2).is_empty());
    }
}
