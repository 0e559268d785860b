//! What OpenZFS tells of itself, against its own tables read before and after.

use std::fs;

use super::{Pool, attach};
use crate::common::{gained, sh};

/// A metric with labels, and the table and column that it comes from.
type Column<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);

/// A number of a table of OpenZFS.
pub fn kstat(table: &str, column: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/spl/kstat/zfs/{table}")).unwrap();
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(column));
    let line = line.unwrap_or_else(|| panic!("no {column} in {table}"));
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn zfs_state_is_that_of_its_own_tables() {
    let Some(pool) = Pool::make("state", 1, "") else {
        return;
    };
    let mut probes = attach(&[
        "zfs.arc_accesses",
        "zfs.l2arc_accesses",
        "zfs.arc_size",
        "zfs.arc_memory_throttles",
        "zfs.transactions",
        "zfs.log_commits",
        "zfs.log_bytes",
        "zfs.pool_state",
    ]);
    fs::write(pool.file("file"), vec![1; 1 << 20]).unwrap();
    sh("cat /state/data/file > /dev/null; sync");
    let columns: &[Column] = &[
        (
            "kldtrace_zfs_arc_accesses",
            &[("result", "hit"), ("access", "demand"), ("content", "data")],
            "arcstats",
            "demand_data_hits",
        ),
        (
            "kldtrace_zfs_arc_accesses",
            &[
                ("result", "miss"),
                ("access", "demand"),
                ("content", "metadata"),
            ],
            "arcstats",
            "demand_metadata_misses",
        ),
        (
            "kldtrace_zfs_arc_accesses",
            &[
                ("result", "hit"),
                ("access", "prefetch"),
                ("content", "metadata"),
            ],
            "arcstats",
            "prefetch_metadata_hits",
        ),
        (
            "kldtrace_zfs_l2arc_accesses",
            &[("result", "hit")],
            "arcstats",
            "l2_hits",
        ),
        (
            "kldtrace_zfs_arc_size_bytes",
            &[("what", "max")],
            "arcstats",
            "c_max",
        ),
        (
            "kldtrace_zfs_arc_memory_throttles",
            &[],
            "arcstats",
            "memory_throttle_count",
        ),
        (
            "kldtrace_zfs_transactions",
            &[("result", "assigned")],
            "dmu_tx",
            "dmu_tx_assigned",
        ),
        (
            "kldtrace_zfs_log_commits",
            &[("what", "commit")],
            "zil",
            "zil_commit_count",
        ),
        (
            "kldtrace_zfs_log_bytes",
            &[("log", "main")],
            "zil",
            "zil_itx_metaslab_normal_bytes",
        ),
    ];
    for (metric, labels, table, column) in columns {
        let before = kstat(table, column);
        let ours = probes.snapshot().integer(metric, labels);
        let after = kstat(table, column);
        println!("{column}: {before} <= {ours} <= {after}");
        assert!(
            (before..=after).contains(&ours),
            "{column}: {before} {ours} {after}"
        );
    }
    let now = probes.snapshot();
    let online = [("pool", "state"), ("state", "ONLINE")];
    assert_eq!(now.integer("kldtrace_zfs_pool_state", &online), 1);
    assert!(now.integer("kldtrace_zfs_arc_accesses", &[("result", "hit")]) > 0);
}

#[test]
fn zfs_transaction_groups_are_counted_once_with_their_own_times() {
    const TIME: &str = "kldtrace_zfs_txg_time_seconds";
    let Some(pool) = Pool::make("txgs", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.txg_time"]);
    pool.sync();
    let (before, zfs_before) = (probes.snapshot(), pool.groups());
    for i in 0..5 {
        fs::write(pool.file("file"), vec![i; 100_000]).unwrap();
        pool.sync();
    }
    let (after, zfs_after) = (probes.snapshot(), pool.groups());
    let sync = gained(
        &before,
        &after,
        TIME,
        &[("pool", "txgs"), ("phase", "sync")],
    );
    println!("{} groups, {} ns", sync.count(), sync.sum_ns);
    assert!(sync.count() >= 5);
    assert_eq!(sync.count(), zfs_after.0 - zfs_before.0);
    assert_eq!(sync.sum_ns, zfs_after.1 - zfs_before.1);
    let open = gained(
        &before,
        &after,
        TIME,
        &[("pool", "txgs"), ("phase", "open")],
    );
    assert_eq!(open.count(), sync.count());
}
