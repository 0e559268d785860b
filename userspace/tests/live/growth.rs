//! A day of growth in less than a minute: cgroups and sockets that come and
//! go. Nothing may grow without bound, and nothing may be lost uncounted.

use std::{
    fs,
    os::fd::AsFd as _,
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use aya::maps::Map;
use kldtrace::{
    catalogue,
    kernel::{
        cost,
        loader::{self, Options},
    },
    signals::{Labels, own, reader::Reader},
};
use kldtrace_exporters::model::{Series, Value};

use crate::{
    common::{Probes, Snapshot, root, wait_for},
    load::{Cgroup, Worker, hierarchy, sleep_for},
    mayflies,
};

const SWITCHES: &str = "kldtrace_sched_context_switches";

/// Attaches all that this kernel serves.
fn attach_all(options: &Options, series: usize) -> Option<Probes> {
    if !root() {
        return None;
    }
    let wanted: Vec<_> = catalogue::signals().collect();
    let reader = Reader::attach(&wanted, options, &Labels::at_most(series)).unwrap();
    for name in ["sched.context_switches", "tcp.state_changes"] {
        assert!(reader.has(name), "{:?}", reader.signals());
    }
    Some(Probes(reader))
}

fn unit(series: &Series) -> Option<&str> {
    let (_, unit) = series.labels.iter().find(|(name, _)| name == "unit")?;
    Some(unit)
}

/// Context switches of our cgroups, also of those whose series of their own
/// went to `other`, or whose names were lost.
fn switches(snapshot: &Snapshot) -> u64 {
    let family = snapshot.0.iter().find(|family| family.name == SWITCHES);
    let series = family.unwrap().series.iter().filter(|series| {
        let unit = unit(series).unwrap();
        unit.starts_with("kldtrace-test-") || unit == "other" || unit == "unknown"
    });
    series
        .map(|series| match series.value {
            Value::Integer(number) => number,
            _ => 0,
        })
        .sum()
}

/// The most units that any family has.
fn units(snapshot: &Snapshot) -> usize {
    let count = |series: &[Series]| {
        let mut units: Vec<_> = series.iter().filter_map(unit).collect();
        units.sort_unstable();
        units.dedup();
        units.len()
    };
    let counts = snapshot.0.iter().map(|family| count(&family.series));
    counts.max().unwrap()
}

fn entries(snapshot: &Snapshot, map: &str) -> u64 {
    snapshot.integer("kldtrace_map_entries", &[("map", map)])
}

/// A reading when the slots of the gone are given back: they rest for a quarter of
/// a second.
fn rested(probes: &mut Probes) -> Snapshot {
    probes.snapshot();
    sleep(Duration::from_millis(400));
    probes.snapshot()
}

fn losses(snapshot: &Snapshot, reason: &str) -> u64 {
    snapshot.integer("kldtrace_losses", &[("reason", reason)])
}

/// Cgroups made or removed, by anyone.
fn events(snapshot: &Snapshot, kind: &str) -> u64 {
    snapshot.integer("kldtrace_cgroup_events", &[("kind", kind)])
}

/// Whether what found no room and is now `other` is ours alone: all other
/// cgroups with processes had their room before, and no new one came.
fn alone(before: &Snapshot, after: &Snapshot, made: u64) -> bool {
    let events = |s: &Snapshot| events(s, "made");
    // One entry is that of `other`.
    inhabited() < entries(before, "sched") && events(after) - events(before) == made
}

/// Cgroups with processes.
fn inhabited() -> u64 {
    let processes = |cgroup: &PathBuf| fs::read_to_string(cgroup.join("cgroup.procs"));
    let all = hierarchy();
    let inhabited = all
        .iter()
        .filter(|cgroup| processes(cgroup).is_ok_and(|text| !text.is_empty()));
    inhabited.count() as u64
}

/// Waits until the maps hold the living alone, but for some twenty entries
/// that others on this machine may have come to meanwhile.
#[track_caller]
fn entries_come_back(probes: &mut Probes, before: &Snapshot) {
    wait_for("the maps' entries to come back", || {
        let now = probes.snapshot();
        entries(&now, "sched") <= hierarchy().len() as u64 + 1
            && entries(&now, "tcp") <= entries(before, "tcp") + 20
            // Whatever else runs here, and ends meanwhile.
            && entries(&now, "tasks") <= entries(before, "tasks") + 100
            // Sockets in flight: those of the test are all closed.
            && entries(&now, "sockets") <= entries(before, "sockets") + 20
    });
}

#[track_caller]
fn is_complete(before: &Snapshot, after: &Snapshot, cgroups: u64, made: u64) {
    let counted = switches(after) - switches(before);
    println!("{counted} context switches, the kernel says {made}");
    assert!(counted >= made, "{counted} of {made} context switches");
    if alone(before, after, cgroups) {
        assert_eq!(counted, made);
    } else {
        println!("perhaps others went to `other`, too: at least, not exactly");
    }
}

/// Kernel memory that cannot be had back (proc(5): meminfo), in KiB.
fn kernel_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(name, _)| *name == "SUnreclaim" || *name == "Percpu")
        .map(|(_, value)| value.trim().trim_end_matches(" kB").parse::<u64>().unwrap())
        .sum()
}

/// Memory of the maps for what is in flight: the storage of tasks, for which
/// aya has no type, and of sockets.
fn map_memory(probes: &Probes) -> u64 {
    let maps = probes.0.loaded()[0].ebpf.maps();
    maps.filter_map(|(_, map)| {
        let (Map::Unsupported(data) | Map::SkStorage(data)) = map else {
            return None;
        };
        Some(cost::map_memory(&data.fd().as_fd()).unwrap())
    })
    .sum()
}

/// 10,000 cgroups and 200,000 sockets, read after each hundred.
#[test]
fn ten_thousand_cgroups_and_two_hundred_thousand_sockets() {
    const SERIES: usize = 2000;
    const ROUNDS: u64 = 100;
    const CGROUPS: u64 = 100;
    const CONNECTIONS: u64 = 10;
    let options = Options {
        // Room for those between two readings and those whose slots rest.
        map_memory: loader::cpus().unwrap() * (48 << 20),
        ..Options::default()
    };
    let Some(mut probes) = attach_all(&options, SERIES) else {
        return;
    };
    let mut keeper = mayflies::keeper(CONNECTIONS);
    // Once before: what is made on first use is made.
    keeper.run(10);
    let before = rested(&mut probes);
    let resident = own::process_resident();
    let (kernel, maps) = (kernel_memory(), map_memory(&probes));
    let capacity = |map| before.integer("kldtrace_map_max_entries", &[("map", map)]);
    let capacities = ["sched", "tcp"].map(|map| (map, capacity(map)));
    let mut made = 0;
    let mut removed = events(&before, "removed");
    let mut after = None;
    for round in 1..=ROUNDS {
        // The slots of one round rest at a reading, not of two.
        let rest = Instant::now() + Duration::from_millis(300);
        made += keeper.run(CGROUPS);
        sleep(rest.saturating_duration_since(Instant::now()));
        let snapshot = probes.snapshot();
        for (map, capacity) in capacities {
            assert!(entries(&snapshot, map) <= capacity, "{map}");
        }
        // Those that are gone for long are in `other`.
        let gone = events(&snapshot, "removed") - removed;
        removed += gone;
        let bound = units(&before) + 256 + gone as usize + 1;
        let units = units(&snapshot);
        assert!(
            units <= bound.min(SERIES + 1),
            "round {round}: {units} units"
        );
        assert!(
            switches(&snapshot) - switches(&before) >= made,
            "round {round}"
        );
        after = Some(snapshot);
    }
    let after = after.unwrap();
    is_complete(&before, &after, ROUNDS * CGROUPS, made);
    for reason in [
        "sched_series",
        "tcp_series",
        "sched_departure",
        "tcp_start",
        "event",
    ] {
        assert_eq!(losses(&before, reason), losses(&after, reason), "{reason}");
    }
    let connects = |s: &Snapshot| {
        s.histogram("kldtrace_tcp_connect_latency_seconds", &[])
            .count()
    };
    assert!(connects(&after) - connects(&before) >= ROUNDS * CGROUPS * CONNECTIONS);
    // A cgroup's last sockets may close after it is gone: its entry comes
    // again, and goes again.
    entries_come_back(&mut probes, &before);
    let grown = own::process_resident().saturating_sub(resident);
    println!("resident: {resident} bytes and {grown} more; maps: {maps} bytes");
    assert!(grown < 16 << 20, "{grown} bytes more resident");
    assert_eq!(map_memory(&probes), maps);
    // What hangs on tasks and sockets has no count of its own. One storage
    // with its head takes over 192 bytes: 200,000 leaked would be 40 MB. The
    // kernel frees cgroups and sockets behind our back, so it gets time.
    wait_for("kernel memory to come back", || {
        kernel_memory() < kernel + 20 * 1024
    });
    println!("kernel memory: {kernel} KiB, now {} KiB", kernel_memory());
}

/// More cgroups between two readings than the maps have room for.
#[test]
fn maps_that_overflow_lose_no_total() {
    const CGROUPS: u64 = 150;
    // The least that the loader makes of it: some 16 entries for each map.
    let options = Options {
        map_memory: 1 << 20,
        ..Options::default()
    };
    let Some(mut probes) = attach_all(&options, 100) else {
        return;
    };
    let mut keeper = mayflies::keeper(1);
    keeper.run(1);
    let before = rested(&mut probes);
    let capacity = before.integer("kldtrace_map_max_entries", &[("map", "sched")]);
    assert!(capacity < CGROUPS, "{capacity}");
    let mut made = 0;
    let mut after = None;
    for round in 1..=4 {
        made += keeper.run(CGROUPS);
        let snapshot = probes.snapshot();
        assert!(entries(&snapshot, "sched") <= capacity);
        assert!(units(&snapshot) <= 101);
        let full = losses(&snapshot, "sched_series") - losses(&before, "sched_series");
        // Each cgroup without room loses at least its first switch; one entry is
        // that of `other`.
        assert!(full >= round * (CGROUPS - (capacity - 1)), "{full}");
        after = Some(snapshot);
    }
    let after = after.unwrap();
    let other = |s: &Snapshot| s.integer(SWITCHES, &[("unit", "other")]);
    assert!(other(&after) > other(&before));
    is_complete(&before, &after, 4 * CGROUPS, made);
    // There is room again: a new cgroup has a series of its own.
    has_its_own_series(&mut probes, &Cgroup::new("late"));
    is_full(&mut probes, capacity);
}

/// There may be room long before it runs, and nobody else who lacks any.
#[test]
fn a_cgroup_that_was_made_without_room_has_some_when_it_runs() {
    let options = Options {
        map_memory: 1 << 20,
        ..Options::default()
    };
    let Some(mut probes) = attach_all(&options, 1000) else {
        return;
    };
    let capacity = probes
        .snapshot()
        .integer("kldtrace_map_max_entries", &[("map", "sched")]);
    let others = (0..capacity).map(|number| Cgroup::new(&format!("before-{number}")));
    let others: Vec<_> = others.collect();
    let late = Cgroup::new("late");
    assert_eq!(entries(&probes.snapshot(), "sched"), capacity);
    drop(others);
    wait_for("the others to go", || {
        2 * entries(&probes.snapshot(), "sched") < capacity
    });
    rested(&mut probes);
    has_its_own_series(&mut probes, &late);
}

/// Each living cgroup has an entry, whether or not anything runs there.
fn is_full(probes: &mut Probes, capacity: u64) {
    let share = |s: &Snapshot| s.float("kldtrace_map_fullness_ratio", &[("map", "sched")]);
    let before = rested(probes);
    assert!(2 * entries(&before, "sched") < capacity && share(&before) == 0.0);
    let living = (0..capacity).map(|number| Cgroup::new(&format!("full-{number}")));
    let _living: Vec<_> = living.collect();
    let full = probes.snapshot();
    let used = entries(&full, "sched") as f64 / capacity as f64;
    assert!(used > 0.5 && (share(&full) - used).abs() < 1e-9, "{used}");
}

#[track_caller]
fn has_its_own_series(probes: &mut Probes, cgroup: &Cgroup) {
    let mut worker = Worker::start_in(cgroup, |_| {
        sleep_for(50_000);
        0
    });
    let labels = [("unit", &*cgroup.unit)];
    // Slots of the gone rest before others get them.
    wait_for("a series of its own", || {
        worker.run(0);
        probes.snapshot().integer(SWITCHES, &labels) > 0
    });
}

/// Room in the maps, and fewer series than cgroups: they fold as they are
/// read.
#[test]
fn series_beyond_the_limit_fold_into_other() {
    const CGROUPS: u64 = 60;
    const SERIES: usize = 20;
    let Some(mut probes) = attach_all(&Options::default(), SERIES) else {
        return;
    };
    let mut keeper = mayflies::keeper(1);
    keeper.run(1);
    let before = rested(&mut probes);
    let mut made = 0;
    let mut after = None;
    for _ in 0..4 {
        made += keeper.run(CGROUPS);
        let snapshot = probes.snapshot();
        assert!(units(&snapshot) <= SERIES + 1);
        let folded = snapshot.integer("kldtrace_series_folded", &[("subject", "sched")]);
        assert!(folded >= CGROUPS - SERIES as u64, "{folded}");
        assert_eq!(
            losses(&before, "sched_series"),
            losses(&snapshot, "sched_series")
        );
        after = Some(snapshot);
    }
    is_complete(&before, &after.unwrap(), 4 * CGROUPS, made);
    // The dead do not hold the series of the living for ever.
    has_its_own_series(&mut probes, &Cgroup::new("late"));
}

/// More news of cgroups than the ring buffer holds: names are lost, and that
/// is counted; totals are not, and the entries go all the same.
#[test]
fn lost_events_leave_nothing_behind() {
    const CGROUPS: u64 = 100;
    let options = Options {
        event_buffer: 4096,
        ..Options::default()
    };
    let Some(mut probes) = attach_all(&options, 2000) else {
        return;
    };
    let mut keeper = mayflies::keeper(1);
    keeper.run(1);
    let before = rested(&mut probes);
    let made = keeper.run(CGROUPS);
    let after = probes.snapshot();
    assert!(losses(&after, "event") > losses(&before, "event"));
    is_complete(&before, &after, CGROUPS, made);
    entries_come_back(&mut probes, &before);
    is_complete(&before, &probes.snapshot(), CGROUPS, made);
}

/// While a slot rests, so many other cgroups go that the name of its own is
/// forgotten.
#[test]
fn what_a_cgroup_counted_stays_under_its_name() {
    // More than names are remembered.
    const CGROUPS: usize = 5000;
    let options = Options {
        // Room for fewer than have series when they are gone.
        map_memory: loader::cpus().unwrap() * (4 << 20),
        event_buffer: 4 << 20,
        ..Options::default()
    };
    let Some(mut probes) = attach_all(&options, 2000) else {
        return;
    };
    let cgroup = Cgroup::new("early");
    let unit = cgroup.unit.clone();
    let mut worker = Worker::start_in(&cgroup, |_| {
        sleep_for(50_000);
        0
    });
    worker.run(0);
    drop((worker, cgroup));
    // It rests from now on.
    let of_it = |s: &Snapshot| s.integer(SWITCHES, &[("unit", &unit)]);
    let before = probes.snapshot();
    let lost = losses(&before, "event");
    assert!(of_it(&before) > 0);
    for number in 0..CGROUPS {
        drop(Cgroup::new(&format!("later-{number}")));
    }
    let after = rested(&mut probes);
    assert_eq!(losses(&after, "event"), lost);
    assert_eq!(of_it(&after), of_it(&before));
}
