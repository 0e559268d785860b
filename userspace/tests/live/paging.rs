//! From a fault to whoever is told: a real daemon, Prometheus and Alertmanager
//! with what kldtrace writes for them, and a receiver that stands in for
//! PagerDuty and Slack.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    authority::Authority,
    common::{Daemon, fetch, free_port, installed, kldtrace, wait_for},
    disk::{Loop, SlowFile, read},
    prometheus::Prometheus,
};

/// How a message to PagerDuty begins and ends something.
const TRIGGER: &str = "\"event_action\":\"trigger\"";
const RESOLVE: &str = "\"event_action\":\"resolve\"";

/// What came: which path was asked for, and with which body.
type Told = (String, String);

/// Takes every POST; what came is kept.
struct Receiver {
    port: u16,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Receiver {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let told = Arc::new(Mutex::new(Vec::new()));
        let shared = told.clone();
        // Ends with the test program: connects come until Alertmanager is gone.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = shared.clone();
                thread::spawn(move || while take(&stream, &told).is_some() {});
            }
        });
        Self { port, told }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Waits until a message about an alert came by that path.
    fn wait(&self, path: &str, alert: &str, word: &str) {
        let since = Instant::now();
        let page = format!("/{alert}.md");
        let came = || {
            let told = self.told.lock().unwrap();
            told.iter()
                .any(|(to, body)| to == path && body.contains(&page) && body.contains(word))
        };
        while !came() {
            let waited = since.elapsed();
            assert!(
                waited < Duration::from_mins(1),
                "{alert} ({word}) did not come to {path} in 60 s: {:?}",
                self.told.lock().unwrap()
            );
            thread::sleep(Duration::from_millis(20));
        }
        let seconds = since.elapsed().as_secs_f64();
        println!("{alert} {word}: told {path} after {seconds:.1} s");
    }
}

/// One request; `None`: the end of the connection.
fn take(stream: &TcpStream, told: &Mutex<Vec<Told>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let path = head.split(' ').nth(1)?.to_owned();
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1)?;
    let mut body = vec![0; length.split("\r\n").next()?.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    told.lock().unwrap().push((path, body));
    let reply = "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
    (&*stream).write_all(reply.as_bytes()).ok()
}

/// A running Alertmanager; ends with this value.
struct Alertmanager {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Alertmanager {
    fn start(receiver: &Receiver) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let key = path.join("key");
        fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
        let slack = path.join("slack");
        fs::write(&slack, receiver.url("slack")).unwrap();
        export(
            "alertmanager",
            path,
            &[
                format!("pagerduty_url={}", receiver.url("pagerduty")),
                format!("watchdog_url={}", receiver.url("watchdog")),
                format!("slack_url_file={}", slack.display()),
                format!("storage_pagerduty_file={}", key.display()),
                format!("network_pagerduty_file={}", key.display()),
                format!("platform_pagerduty_file={}", key.display()),
                "group_wait=0s".to_owned(),
                "group_interval=1s".to_owned(),
            ],
        );
        // The test is run at any hour.
        let file = path.join("alertmanager.yml");
        let text = fs::read_to_string(&file).unwrap();
        let loud = text
            .lines()
            .filter(|line| !line.contains("mute_time_intervals:"));
        fs::write(
            &file,
            loud.map(|line| line.to_owned() + "\n").collect::<String>(),
        )
        .unwrap();

        let port = free_port();
        let log = fs::File::create(path.join("log")).unwrap();
        let child = Command::new("prometheus-alertmanager")
            .current_dir(path)
            .args(["--config.file=alertmanager.yml", "--storage.path=data"])
            .args(["--cluster.listen-address=", "--log.level=debug"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self {
            child,
            port,
            folder,
        };
        wait_for("alertmanager", || fetch(port, "/-/ready", "").is_some());
        started
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            println!("alertmanager: {}", log.unwrap_or_default());
        }
    }
}

fn export(what: &str, folder: &Path, set: &[String]) {
    let mut command = kldtrace();
    command.args(["export", what]).arg(folder);
    for one in set {
        command.args(["--set", one]);
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
}

/// A Prometheus with the rules, and holds that are over at once. The second
/// daemon speaks TLS.
fn prometheus(daemon: &Daemon, secured: &Daemon, alertmanager: u16) -> Prometheus {
    let folder = tempfile::tempdir().unwrap();
    let holds = [
        "node_down_for",
        "collector_for",
        "signal_absent_for",
        "push_down_for",
        "block_for",
        "tcp_failures_for",
        "sched_runqueue_for",
        "tcp_listen_for",
        "certificate_urgent_for",
    ];
    // A disk and a minute of the test are no real load.
    let mut set: Vec<_> = holds.iter().map(|hold| format!("{hold}=0s")).collect();
    set.extend(["block_rate=0.01", "sched_runqueue_seconds=0.004"].map(str::to_owned));
    export("alerts", &folder.path().join("rules"), &set);
    let config = format!(
        "global: {{scrape_interval: 5s, evaluation_interval: 5s}}\n\
         rule_files: ['rules/*.yml']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]}}\n\
         scrape_configs: [{{job_name: kldtrace, tls_config: {{insecure_skip_verify: true}}, \
         static_configs: [\
         {{targets: ['127.0.0.1:{}'], labels: {{node: n-1}}}}, \
         {{targets: ['127.0.0.1:{}'], labels: {{node: n-2, __scheme__: https}}}}]}}]\n",
        daemon.port, secured.port
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    Prometheus::in_folder(folder)
}

/// The daemon's configuration: pushes go to a port on which nobody listens.
fn more(folder: &Path) -> String {
    format!(
        "[spool]\ndirectory = \"{}/spool\"\n\
         [otlp]\nurl = \"http://127.0.0.1:{}\"\nprotocol = \"http\"\ninterval = \"1s\"\n\
         [signals]\nenable = [\"self.*\", \"block.*\", \"tcp.*\", \"sched.runqueue_latency\", \
         \"zfs.op_latency\"]",
        folder.display(),
        free_port()
    )
}

/// All that is between a fault and people.
struct Chain {
    daemon: Daemon,
    /// What the daemon's configuration has after `[listen]`.
    more: String,
    authority: Authority,
    /// Of another daemon, which speaks TLS.
    certificate: tempfile::TempDir,
    receiver: Receiver,
    prometheus: Prometheus,
    _secured: Daemon,
    _alertmanager: Alertmanager,
    _spool: tempfile::TempDir,
}

impl Chain {
    /// `None`, and a line that says so, without root.
    fn start() -> Option<Self> {
        let spool = tempfile::tempdir().unwrap();
        let more = more(spool.path());
        let daemon = Daemon::start(&more)?;
        let authority = Authority::new("ours");
        let certificate = tempfile::tempdir().unwrap();
        let issued = authority.issue(&["n-2.example"]);
        issued.write(certificate.path(), "n-2");
        let path = certificate.path().display();
        let secured = Daemon::spawn(&format!(
            "tls_certificate = \"{path}/n-2.pem\"\ntls_key = \"{path}/n-2.key\"\n\
             [signals]\nenable = [\"self.*\"]"
        ))?;
        let receiver = Receiver::new();
        let alertmanager = Alertmanager::start(&receiver);
        let prometheus = prometheus(&daemon, &secured, alertmanager.port);
        Some(Self {
            daemon,
            more,
            authority,
            certificate,
            receiver,
            prometheus,
            _secured: secured,
            _alertmanager: alertmanager,
            _spool: spool,
        })
    }

    /// Waits for the channel of a team.
    fn told(&self, alert: &str) {
        self.receiver.wait("/slack", alert, "FIRING");
    }

    /// A disk that takes half a second for a read, and then fails one.
    fn slow_disk(&self) {
        let slow = SlowFile::mount();
        let device = Loop::on(&slow.path);
        let disk = device.open(0);
        slow.does.delay.store(500, SeqCst);
        let reading = Arc::new(AtomicBool::new(true));
        let goes_on = reading.clone();
        let reader = thread::spawn(move || {
            while goes_on.load(SeqCst) {
                read(&disk, 0).unwrap();
            }
            disk
        });
        self.told("BlockDeviceSlow");
        reading.store(false, SeqCst);
        let disk = reader.join().unwrap();
        slow.does.delay.store(0, SeqCst);
        slow.does.fail_odd.store(libc::EIO, SeqCst);
        read(&disk, 1).unwrap_err();
        self.told("BlockErrors");
    }

    /// Connects to a port on which nobody listens. A counter needs two samples.
    fn refused_connects(&self) {
        let closed = free_port();
        let refused = || TcpStream::connect(("127.0.0.1", closed)).unwrap_err();
        refused();
        let counter = "kldtrace_tcp_connect_failures_total{reason=\"refused\"} > 0";
        self.prometheus.wait_for_news(counter);
        for _ in 0..1000 {
            refused();
        }
        self.told("TcpConnectsFailing");
    }

    /// A server that accepts nobody, with a queue of one.
    fn full_accept_queue(&self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: listen(2) on our own socket.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(connect);
            }
            self.told("TcpListenOverflow");
        });
    }

    /// A certificate that is replaced by one that has expired, and renewed.
    fn expired_certificate(&self) {
        let expiry = "kldtrace_certificate_expiry_timestamp_seconds";
        self.prometheus.wait_for_news(expiry);
        let names = ["n-2.example"];
        let expired = self.authority.issue_until(&names, 2026);
        expired.write(self.certificate.path(), "n-2");
        let alert = "KldtraceCertificateUrgent";
        self.receiver.wait("/pagerduty", alert, TRIGGER);
        let renewed = self.authority.issue(&names);
        renewed.write(self.certificate.path(), "n-2");
        self.receiver.wait("/pagerduty", alert, RESOLVE);
    }

    /// Sixteen tasks for each CPU.
    fn busy_cpus(&self) {
        let busy = AtomicBool::new(true);
        let tasks = 16 * thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..tasks {
                scope.spawn(|| {
                    while busy.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                });
            }
            self.told("SchedRunqueueSlow");
            busy.store(false, SeqCst);
        });
    }

    /// A daemon that is killed pages, and when it is back that is told.
    fn killed_daemon(&mut self) {
        self.daemon.signal(libc::SIGKILL);
        self.daemon.ended();
        self.receiver.wait("/pagerduty", "NodeDown", TRIGGER);
        self.told("NodeDown");
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let config = Daemon::configuration(self.daemon.port, &socket, &self.more);
        fs::write(folder.path().join("c.toml"), config).unwrap();
        let _back = Daemon::run(folder, self.daemon.port);
        self.receiver.wait("/pagerduty", "NodeDown", RESOLVE);
        self.receiver.wait("/slack", "NodeDown", "RESOLVED");
    }
}

#[test]
fn faults_reach_the_right_people() {
    if !installed("prometheus") || !installed("prometheus-alertmanager") {
        return;
    }
    let Some(mut chain) = Chain::start() else {
        return;
    };
    // A kernel without ZFS does not serve its signals.
    let zfs = [("signal", "zfs.op_latency")];
    let own = chain.daemon.families("self");
    if own.integer("kldtrace_signal_available", &zfs) == 0 {
        chain.told("KldtraceSignalAbsent");
    }
    // Nobody takes what is pushed.
    chain.told("KldtracePushDown");
    chain.slow_disk();
    chain.refused_connects();
    chain.full_accept_queue();
    chain.expired_certificate();
    chain.busy_cpus();
    chain.killed_daemon();
    // Prometheus sent it before it knew of Alertmanager: again after a minute.
    chain.receiver.wait("/watchdog", "Watchdog", "firing");
    let told = chain.receiver.told.lock().unwrap();
    let pages = told.iter().filter(|(to, _)| to == "/pagerduty");
    let keys: BTreeSet<_> = pages
        .map(|(_, body)| {
            let page: Value = serde_json::from_str(body).unwrap();
            page["dedup_key"].as_str().unwrap().to_owned()
        })
        .collect();
    // The node and the certificate, and nothing else of a node that is down.
    assert_eq!(keys.len(), 2, "{told:?}");
}
