//! What a line of the journal costs on its way into the spool: CPU time of the
//! thread that reads, and of journalctl before it, one line of JSON for each
//! way. All of a journal is read at once, so that waiting for more costs nothing.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kldtrace_exporters::{
    journal::{Counters, Settings, Since, Source, fields, filter, rate::Limit, redact},
    push::Lane,
    spool::{self, Spool},
};
use serde_json::{Value, json};
use tokio::sync::watch;

const LINES: u64 = 200_000;
/// Debian's and Red Hat's place of it.
const REMOTE: &str = "/usr/lib/systemd/systemd-journal-remote";

fn main() {
    let journal = tempfile::tempdir().expect("a directory");
    if fs::metadata(REMOTE).is_err() {
        println!("skipped: no systemd-journal-remote");
        return;
    }
    write(journal.path());
    for redaction in [true, false] {
        println!("{}", measure(redaction, journal.path()));
    }
}

fn measure(redaction: bool, journal: &Path) -> Value {
    let folder = tempfile::tempdir().expect("a directory");
    let wanted = spool::Settings {
        directory: folder.path().to_owned(),
        bytes: 1 << 30,
        sync: Some(Duration::from_secs(1)),
    };
    let (spool, _readers) = Spool::open(wanted, &[("loki", &[Lane::Journal])]).expect("a spool");
    let off = redact::names().filter(|_| !redaction).map(str::to_owned);
    let settings = Settings {
        program: "journalctl".into(),
        directory: Some(journal.to_owned()),
        since: Since::Oldest,
        place: folder.path().join("journal.cursor"),
        host: "node-1".to_owned(),
        own: None,
        filter: filter::Settings::default(),
        limit: Some(Limit {
            per_second: 1_000_000,
            burst: 1_000_000,
        }),
        redact: redact::Settings {
            off: off.collect(),
            rules: Vec::new(),
        },
        line: fields::BODY,
        age: Duration::from_secs(1),
    };
    let counters = Arc::new(Counters::default());
    let source = Source::new(settings, spool.clone(), counters.clone()).expect("a source");
    let (stop, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let start = Instant::now();
    let before = [libc::RUSAGE_THREAD, libc::RUSAGE_CHILDREN].map(cpu);
    let watched = counters.clone();
    std::thread::spawn(move || {
        while watched.read().shipped < LINES {
            std::thread::sleep(Duration::from_millis(10));
        }
        stop.send_replace(true);
    });
    runtime.block_on(source.run(stopped));
    let after = [libc::RUSAGE_THREAD, libc::RUSAGE_CHILDREN].map(cpu);
    let each = |at: usize| after[at].saturating_sub(before[at]).as_secs_f64() * 1e6 / LINES as f64;
    json!({
        "redaction": redaction,
        "lines": LINES,
        "seconds": start.elapsed().as_secs_f64(),
        "us_a_line": each(0),
        "journalctl_us_a_line": each(1),
        "spool_bytes_a_line": spool.statistics().bytes / LINES,
    })
}

/// A journal of lines as a server has them.
fn write(folder: &Path) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_micros() as u64);
    let mut text = String::new();
    for number in 0..LINES {
        let (unit, command) = [
            ("ssh.service", "sshd"),
            ("postgresql@15-main.service", "postgres"),
            ("haproxy.service", "haproxy"),
        ][(number % 3) as usize];
        let _ = write!(
            text,
            "__REALTIME_TIMESTAMP={}\n__MONOTONIC_TIMESTAMP={number}\n\
             _BOOT_ID=0123456789abcdef0123456789abcdef\nPRIORITY=6\nSYSLOG_FACILITY=3\n\
             SYSLOG_IDENTIFIER={command}\n_TRANSPORT=stdout\n_PID={}\n_UID=0\n_COMM={command}\n\
             _CMDLINE=/usr/sbin/{command} -D\n_SYSTEMD_CGROUP=/system.slice/{unit}\n\
             _SYSTEMD_UNIT={unit}\n_SYSTEMD_SLICE=system.slice\n_HOSTNAME=node-1\n\
             _SYSTEMD_INVOCATION_ID=0123456789abcdef0123456789abcdef\n\
             _MACHINE_ID=0123456789abcdef0123456789abcdef\n\
             MESSAGE=connection from 10.11.{}.{} port {} closed after {number} requests [preauth]\n\n",
            now + number,
            number % 30_000,
            number % 200,
            number % 251,
            number % 60_000,
        );
    }
    let export = folder.join("export");
    fs::write(&export, text).expect("room on the disk");
    let status = Command::new(REMOTE)
        .arg("--output")
        .arg(folder.join("system.journal"))
        .arg(&export)
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("systemd-journal-remote").success());
}

/// CPU time, user and system (getrusage(2)).
fn cpu(who: libc::c_int) -> Duration {
    // SAFETY: getrusage fills the struct; zeros are a valid one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.cast_unsigned())
            + Duration::from_micros(time.tv_usec.cast_unsigned())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
