//! What the daemon pushes, against a receiver that counts for itself.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{Metric, NumberDataPoint, metric::Data, number_data_point::Value},
};
use prost::Message as _;

use super::common::{Daemon, Snapshot, free_port, wait_for};

/// Takes OTLP by HTTP; what came is kept.
pub struct Receiver {
    listener: TcpListener,
    bodies: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
}

impl Receiver {
    /// At this port.
    pub fn at(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let bodies = Arc::new(Mutex::new(Some(Vec::new())));
        let (listening, shared) = (listener.try_clone().unwrap(), bodies.clone());
        thread::spawn(move || {
            for stream in listening.incoming() {
                let Ok(stream) = stream else { return };
                let bodies = shared.clone();
                thread::spawn(move || while take(&stream, &bodies).is_some() {});
            }
        });
        Self { listener, bodies }
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().unwrap().clone().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        *self.bodies.lock().unwrap() = None;
        // SAFETY: the descriptor is open as long as the listener lives.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// One request; `None`: the end of the connection.
fn take(stream: &TcpStream, bodies: &Mutex<Option<Vec<Vec<u8>>>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /v1/metrics http/1.1\r\n"), "{head}");
    let length = head.split("content-length: ").nth(1)?;
    let mut body = vec![0; length.split("\r\n").next()?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    bodies.lock().unwrap().as_mut()?.push(body);
    let reply =
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
    (&*stream).write_all(reply.as_bytes()).ok()
}

fn more(daemon_folder: &std::path::Path, port: u16) -> String {
    format!(
        "[spool]\ndirectory = \"{}/spool\"\nsize = \"8MiB\"\n\
         [otlp]\nurl = \"http://127.0.0.1:{port}\"\nprotocol = \"http\"\ncompression = \"none\"\n\
         interval = \"1s\"\nbatch_age = \"10ms\"\n[signals]\nenable = [\"self.*\"]",
        daemon_folder.display()
    )
}

fn of(daemon: &Daemon, metric: &str, labels: &[(&str, &str)]) -> u64 {
    let labels = [&[("destination", "otlp")], labels].concat();
    daemon.families("self").integer(metric, &labels)
}

/// The points of a counter in a body: who reports is checked along the way.
fn points(body: &[u8], name: &str) -> Vec<NumberDataPoint> {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    assert_eq!(resource.attributes[0].key, "service.name");
    let all = request.resource_metrics.iter();
    let all = all.flat_map(|one| &one.scope_metrics);
    let mut all = all.flat_map(|one| &one.metrics);
    let found: &Metric = all.find(|metric| metric.name == name).unwrap();
    match &found.data {
        Some(Data::Sum(sum)) if sum.is_monotonic => sum.data_points.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn on_disk(folder: &std::path::Path) -> u64 {
    let files = fs::read_dir(folder.join("spool")).unwrap().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|end| end == "spool"))
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

fn nothing_is_lost(now: &Snapshot) {
    assert_eq!(now.integer("kldtrace_push_lost", &[]), 0);
    assert_eq!(now.integer("kldtrace_push_events_missed", &[]), 0);
    assert_eq!(now.integer("kldtrace_spool_failures", &[]), 0);
    assert_eq!(
        now.integer("kldtrace_push_entries", &[("result", "refused")]),
        0
    );
}

#[test]
fn metrics_wait_for_a_receiver_that_is_away_and_outlive_the_daemon() {
    let spool = tempfile::tempdir().unwrap();
    let port = free_port();
    let receiver = Receiver::at(port);
    let Some(mut daemon) = Daemon::start(&more(spool.path(), port)) else {
        return;
    };
    wait_for("metrics", || receiver.bodies().len() >= 3);
    // Reading the same file again leaves probes and counters as they are, and
    // so the time since when they count.
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_log("have not changed", 1);
    let some = receiver.bodies().len();
    wait_for("more metrics", || receiver.bodies().len() >= some + 2);
    let requests = receiver.bodies();
    let requests = requests
        .iter()
        .map(|body| points(body, "kldtrace_push_requests"));
    let requests: Vec<_> = requests.collect();
    let start = requests[0][0].start_time_unix_nano;
    assert!(start > 0);
    for points in &requests {
        assert_eq!(points.len(), 3);
        for point in points {
            assert_eq!(point.start_time_unix_nano, start);
            assert!(point.time_unix_nano > start);
        }
    }
    // Every body tells of the pushes before it.
    let told = requests.iter().map(|points| match points[0].value {
        Some(Value::AsInt(taken)) => taken,
        ref other => panic!("{other:?}"),
    });
    assert!(told.clone().is_sorted());
    assert!(told.clone().next_back() > told.clone().next());
    // One may be on its way while the other is read.
    let before = receiver.bodies().len() as u64;
    let taken = of(&daemon, "kldtrace_push_requests", &[("result", "taken")]);
    let after = receiver.bodies().len() as u64;
    assert!(
        (before - 1..=after).contains(&taken),
        "{before} {taken} {after}"
    );
    let now = daemon.families("self");
    assert_eq!(now.integer("kldtrace_spool_size_max_bytes", &[]), 8 << 20);
    wait_for("the same size on disk", || {
        let now = daemon.families("self");
        now.integer("kldtrace_spool_size_bytes", &[]) == on_disk(spool.path())
    });
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let last = now.float("kldtrace_push_last_taken_timestamp_seconds", &[]);
    assert!((clock.as_secs_f64() - last).abs() < 60.0, "{last}");
    nothing_is_lost(&now);

    let first = receiver.bodies().len() as u64;
    drop(receiver);
    wait_for("metrics to wait", || {
        of(&daemon, "kldtrace_push_waiting", &[]) >= 3
    });
    let later = [("result", "later")];
    assert!(of(&daemon, "kldtrace_push_requests", &later) > 0);
    let taken = of(&daemon, "kldtrace_push_entries", &[("result", "taken")]);
    assert!(taken <= first, "{taken} of {first}");
    daemon.wait_for_log("pushes are not taken", 1);
    let waiting = of(&daemon, "kldtrace_push_waiting", &[]);
    daemon.signal(libc::SIGKILL);
    daemon.child.wait().unwrap();

    let receiver = Receiver::at(port);
    let Some(daemon) = Daemon::start(&more(spool.path(), port)) else {
        return;
    };
    wait_for("what had waited", || {
        of(&daemon, "kldtrace_push_waiting", &[]) <= 1
    });
    assert!(receiver.bodies().len() as u64 >= waiting, "{waiting}");
    nothing_is_lost(&daemon.families("self"));
}
