//! What kldtrace tells of itself and what it reads, against /proc.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::Command,
};

use crate::common::{Daemon, Probes, Snapshot, grew, kldtrace, proc_table, skipped, wait_for};

fn fdinfo(daemon: &Daemon) -> Vec<String> {
    let folder = format!("/proc/{}/fdinfo", daemon.child.id());
    let entries = fs::read_dir(folder).unwrap().flatten();
    // A descriptor may be closed meanwhile.
    entries
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .collect()
}

fn number(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim_start_matches(':').trim().parse().ok()
}

#[test]
fn signal_available_says_what_is_measured() {
    // Without typed tracepoints block has its second candidate, sched none.
    let Some(daemon) = Daemon::start("[hooks]\navoid = [\"tp_btf\"]") else {
        return;
    };
    let families = daemon.families("self");
    let is = |signal| families.integer("kldtrace_signal_available", &[("signal", signal)]);
    assert_eq!(is("block.requests"), 1);
    assert_eq!(is("sched.oncpu_time"), 0);
    let absent = "kldtrace_signal_absent";
    assert_eq!(
        families.integer(absent, &[("signal", "sched.oncpu_time")]),
        1
    );
    let count = |metric| families.series(metric, &[]).count() as u64;
    let available = families.integer("kldtrace_signal_available", &[]);
    assert_eq!(
        count(absent),
        count("kldtrace_signal_available") - available
    );
}

#[test]
fn programs_are_counted_while_the_kernel_keeps_statistics() {
    const CGROUPS: u64 = 50;
    let names = [
        "self.cgroup_events",
        "self.probe_runs",
        "self.probe_run_time",
        "self.probe_misses",
    ];
    let Some(mut probes) = Probes::attach(&names) else {
        return;
    };
    let root = kldtrace::kernel::cgroup2::root().unwrap();
    let statistics = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    let before = probes.snapshot();
    for number in 0..CGROUPS {
        let path = root.join(format!("kldtrace-own-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::remove_dir(&path).unwrap();
    }
    let after = probes.snapshot();
    drop(statistics);
    let program = [("program", "cgroup_mkdir")];
    let runs = grew(&before, &after, "kldtrace_probe_runs", &program);
    let made = grew(
        &before,
        &after,
        "kldtrace_cgroup_events",
        &[("kind", "made")],
    );
    assert!(made >= CGROUPS, "{made}");
    assert_eq!(runs, made);
    let time = |s: &Snapshot| s.float("kldtrace_probe_run_seconds", &program);
    assert!(time(&after) > time(&before));
    assert_eq!(grew(&before, &after, "kldtrace_probe_misses", &program), 0);
}

#[test]
fn statistics_are_on_while_doctor_measures() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    let on = || {
        daemon
            .families("self")
            .float("kldtrace_probe_stats_seconds", &[])
    };
    // Past the daemon's own sample, the next is half a minute away.
    wait_for("the first sample", || on() >= 0.3);
    let before = on();
    let report = kldtrace()
        .args(["doctor", "--socket"])
        .arg(daemon.socket())
        .output()
        .unwrap();
    assert!(report.status.success());
    let window = kldtrace::daemon::DOCTOR_WINDOW.as_secs_f64();
    assert!(on() - before >= window, "{before} {}", on());
}

#[test]
fn the_process_is_as_proc_has_it() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    let pid = daemon.child.id();
    let cpu = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
        // proc(5): utime and stime are fields 14 and 15, in ticks of 10 ms.
        let ticks: f64 = fields[12..14]
            .iter()
            .map(|t| t.parse::<f64>().unwrap())
            .sum();
        ticks / 100.0
    };
    let (least, families, most) = (cpu(), daemon.families("self"), cpu());
    let told = families.float("kldtrace_process_cpu_seconds", &[]);
    assert!(
        least - 0.02 <= told && told <= most + 0.02,
        "{least} {told} {most}"
    );
    let resident = families.integer("kldtrace_process_resident_memory_bytes", &[]);
    let read = daemon.memory("VmRSS") * 1024;
    assert!(resident.abs_diff(read) < 4 << 20, "{resident} {read}");

    // The log has the same in whole milliseconds.
    let log = daemon.log();
    let attached = log.rsplit("milliseconds=").next().unwrap();
    let attached: f64 = attached.split_whitespace().next().unwrap().parse().unwrap();
    let told = families.float("kldtrace_attach_seconds", &[]) * 1000.0;
    assert!((0.0..1.0).contains(&(told - attached)), "{told} {attached}");

    let uname = Command::new("uname").arg("-rn").output().unwrap();
    let uname = String::from_utf8(uname.stdout).unwrap();
    let (node, kernel) = uname.trim().split_once(' ').unwrap();
    let labels = [("kernel", kernel), ("node", node)];
    assert_eq!(families.integer("kldtrace_build_info", &labels), 1);
    assert_eq!(families.integer("target_info", &labels), 1);
}

/// That one which hangs is left out is shown with a module that hangs, in
/// signals/collector.rs.
#[test]
fn collectors_answer() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    assert_eq!(daemon.get("/metrics", "").0, 200);
    let families = daemon.families("self");
    for collector in ["listeners", "zfs", "wireguard", "plane"] {
        let labels = [("collector", collector)];
        let number = |metric| families.integer(metric, &labels);
        assert_eq!(number("kldtrace_collector_answers"), 1, "{collector}");
        assert_eq!(number("kldtrace_collector_left_out"), 0, "{collector}");
    }
}

#[test]
fn each_scrape_is_one_observation() {
    const SCRAPES: u64 = 7;
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    let count = || {
        let families = daemon.families("self");
        families
            .histogram("kldtrace_scrape_duration_seconds", &[])
            .count()
    };
    let before = count();
    for _ in 0..SCRAPES {
        assert_eq!(daemon.get("/metrics", "").0, 200);
    }
    assert_eq!(count() - before, SCRAPES);
}

#[test]
fn maps_and_misses_are_as_fdinfo_has_them() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    let families = daemon.families("self");
    let infos = fdinfo(&daemon);
    let memory: Vec<u64> = infos
        .iter()
        .filter(|info| info.contains("map_type"))
        .filter_map(|info| number(info, "memlock"))
        .collect();
    for map in ["sched", "tcp", "sockets", "block"] {
        let told = families.integer("kldtrace_map_memory_bytes", &[("map", map)]);
        assert!(
            told > 0 && memory.contains(&told),
            "{map}: {told} {memory:?}"
        );
    }
    let missed: u64 = infos
        .iter()
        .filter_map(|info| number(info, "recursion_misses"))
        .sum();
    // Descriptors of one program may be several, and a miss may come between.
    let told = families.integer("kldtrace_probe_misses", &[]);
    assert!(told <= missed, "{told} {missed}");
}

#[test]
fn listen_overflows_and_drops_are_as_netstat_has_them() {
    let Some(mut probes) = Probes::attach(&["tcp.listen_overflows", "tcp.listen_drops"]) else {
        return;
    };
    let kernel = |column| proc_table("/proc/net/netstat", "TcpExt", column);
    let before = (
        probes.snapshot(),
        kernel("ListenOverflows"),
        kernel("ListenDrops"),
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: listen(2) on our own socket: a queue of one.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    let address = listener.local_addr().unwrap();
    // One after the other, so that all overflow at their SYN: the ACK of a
    // handshake that was begun before the queue was full counts twice at the
    // socket (collect/listen).
    let patience = std::time::Duration::from_millis(20);
    let results = [(); 8].map(|()| TcpStream::connect_timeout(&address, patience));
    let after = probes.snapshot();
    let overflows = kernel("ListenOverflows") - before.1;
    assert!(overflows > 0 && results.iter().any(Result::is_err));
    let told = grew(&before.0, &after, "kldtrace_tcp_listen_overflows", &[]);
    assert_eq!(told, overflows);
    let told = grew(&before.0, &after, "kldtrace_tcp_listen_drops", &[]);
    assert_eq!(told, kernel("ListenDrops") - before.2);
}

/// The rule of the catalogue: a row without a truth test is not finished.
#[test]
fn every_signal_has_a_truth_test() {
    // Those of modules run in guests.
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    if !std::path::Path::new(tests).exists() {
        skipped("the source is not here");
        return;
    }
    let text = read_all(tests.as_ref());
    for signal in kldtrace::catalogue::signals() {
        let named = format!("\"{}\"", signal.metric);
        assert!(text.contains(&named), "no test names {}", signal.metric);
    }
}

fn read_all(folder: &std::path::Path) -> String {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .map(|entry| match entry.path() {
            path if path.is_dir() => read_all(&path),
            path => fs::read_to_string(path).unwrap(),
        })
        .collect()
}
