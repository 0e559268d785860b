//! What the live tests share.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use kldtrace::{
    catalogue,
    cli::client::Client,
    kernel::loader::Options,
    quantile,
    signals::{Labels, reader::Reader},
};
use kldtrace_exporters::model::{Family, Histogram, Series, Value};

/// Says why a test cannot run here. The runner counts these lines.
pub fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// Whether this is root; says so if not.
pub fn root() -> bool {
    // SAFETY: geteuid has no preconditions.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        skipped("needs root");
    }
    root
}

/// Probes attached by this process.
pub struct Probes(pub Reader);

impl Probes {
    /// Attaches the named signals; `None`, and a line that says so, without
    /// root. A signal that is absent fails the test.
    pub fn attach(names: &[&str]) -> Option<Self> {
        Self::attach_with(names, &Options::default())
    }

    /// The same with other loader options.
    pub fn attach_with(names: &[&str], options: &Options) -> Option<Self> {
        if !root() {
            return None;
        }
        let wanted: Vec<_> = names
            .iter()
            .map(|name| catalogue::find(name).unwrap_or_else(|| panic!("no signal {name}")))
            .collect();
        let reader = Reader::attach(&wanted, options, &Labels::at_most(2000)).unwrap();
        for name in names {
            assert!(reader.has(name), "{name}: {:?}", reader.signals());
        }
        Some(Self(reader))
    }

    /// All families of the attached signals.
    pub fn snapshot(&mut self) -> Snapshot {
        Snapshot(self.0.families(|_| true).unwrap())
    }
}

/// Families at one moment.
pub struct Snapshot(pub Vec<Family>);

impl Snapshot {
    /// The series of a family that have these labels.
    pub fn series<'a>(
        &'a self,
        metric: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Series> {
        // A misspelt name would be a zero that nobody notices.
        let known = catalogue::signals().any(|signal| signal.metric == metric);
        assert!(known, "no metric {metric}");
        let matches = |series: &&Series| {
            labels.iter().all(|(name, value)| {
                series
                    .labels
                    .iter()
                    .any(|(n, v)| n == name && &**v == *value)
            })
        };
        self.0
            .iter()
            .filter(move |family| family.name == metric)
            .flat_map(|family| &family.series)
            .filter(matches)
    }

    /// Sum of the matching series of a counter or gauge (name without
    /// `_total`); 0 where there is none.
    pub fn integer(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        self.series(metric, labels)
            .map(|series| match &series.value {
                Value::Integer(number) => *number,
                other => panic!("{metric} is no whole number: {other:?}"),
            })
            .sum()
    }

    /// Sum of the matching series of a counter or gauge in seconds.
    pub fn float(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(metric, labels)
            .map(|series| match &series.value {
                Value::Float(number) => *number,
                other => panic!("{metric} is no float: {other:?}"),
            })
            .sum()
    }

    /// The matching series of a histogram, merged.
    pub fn histogram(&self, metric: &str, labels: &[(&str, &str)]) -> Histogram {
        let mut merged = Histogram::default();
        for series in self.series(metric, labels) {
            match &series.value {
                Value::Histogram(histogram) => quantile::merge(&mut merged, histogram),
                other => panic!("{metric} is no histogram: {other:?}"),
            }
        }
        merged
    }
}

/// What a histogram gained between two snapshots.
pub fn gained(
    before: &Snapshot,
    after: &Snapshot,
    metric: &str,
    labels: &[(&str, &str)],
) -> Histogram {
    quantile::since(
        &after.histogram(metric, labels),
        &before.histogram(metric, labels),
    )
}

/// What a counter gained between two snapshots.
pub fn grew(before: &Snapshot, after: &Snapshot, metric: &str, labels: &[(&str, &str)]) -> u64 {
    after.integer(metric, labels) - before.integer(metric, labels)
}

/// Asserts that a duration lies within one bucket's error (4.4 %) of another,
/// plus a slack for what the test itself cannot know.
#[track_caller]
pub fn assert_close(measured: f64, expected: f64, slack: f64) {
    let error = (measured - expected).abs();
    assert!(
        error <= expected * 0.044 + slack,
        "measured {measured} s, expected {expected} s, slack {slack} s"
    );
}

/// Runs a command to its end; it must succeed.
#[track_caller]
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until something holds.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "waited 20 s for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The command under test.
pub fn kldtrace() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kldtrace"))
}

/// A port that nobody listens on at the moment.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A running daemon in a folder of its own; stopped when dropped.
pub struct Daemon {
    /// The process.
    pub child: Child,
    /// Folder with configuration, socket and log.
    pub folder: tempfile::TempDir,
    /// Port of /metrics.
    pub port: u16,
}

impl Daemon {
    /// Starts it with more configuration (whole sections); `None`, and a line
    /// that says so, without root.
    pub fn start(more: &str) -> Option<Self> {
        let daemon = Self::spawn(more)?;
        wait_for("the daemon to answer", || {
            let (status, _) = daemon.get("/healthz", "");
            status == 200
        });
        Some(daemon)
    }

    /// The same without waiting for it.
    pub fn spawn(more: &str) -> Option<Self> {
        if !root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config = Self::configuration(port, &folder.path().join("s"), more);
        fs::write(folder.path().join("c.toml"), config).unwrap();
        Some(Self::run(folder, port))
    }

    /// A configuration that listens there.
    pub fn configuration(port: u16, socket: &Path, more: &str) -> String {
        format!(
            "[listen]\naddress = \"127.0.0.1:{port}\"\nsocket = \"{}\"\n{more}\n",
            socket.display()
        )
    }

    /// Starts it with the file `c.toml` in a folder.
    pub fn run(folder: tempfile::TempDir, port: u16) -> Self {
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = kldtrace()
            .arg("daemon")
            .arg("--config")
            .arg(folder.path().join("c.toml"))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            folder,
            port,
        }
    }

    /// Replaces its configuration: what comes after `[listen]`.
    pub fn configure(&self, more: &str) {
        let config = Self::configuration(self.port, &self.socket(), more);
        fs::write(self.folder.path().join("c.toml"), config).unwrap();
    }

    /// Waits for a line in its log, so many times.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str, times: usize) {
        wait_for(&format!("{text:?} in the log"), || {
            self.log().matches(text).count() >= times
        });
    }

    /// Path of its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Status and body of a request; status 0: nobody answers.
    pub fn get(&self, path: &str, accept: &str) -> (u16, Vec<u8>) {
        get(self.port, path, accept)
    }

    /// The families of a subject, by the socket.
    pub fn families(&self, subject: &'static str) -> Snapshot {
        let client = Client::find(&self.socket(), subject)
            .unwrap()
            .expect("a daemon");
        Snapshot(client.families().unwrap())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Waits for its end, so that one that goes on fails the test.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the daemon to end", || {
            self.child.try_wait().unwrap().is_some()
        });
        self.child.wait().unwrap()
    }

    /// A line of /proc/PID/status in kB, such as `VmRSS`.
    pub fn memory(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        in_status(&fs::read_to_string(path).unwrap(), key).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        let _ = self.child.wait();
    }
}

/// One HTTP/1.0 request to this host: status and body.
pub fn get(port: u16, path: &str, accept: &str) -> (u16, Vec<u8>) {
    let Some((head, body)) = fetch(port, path, accept) else {
        return (0, Vec::new());
    };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.unwrap_or(0), body)
}

/// The same: head and body; `None`: nobody answers.
pub fn fetch(port: u16, path: &str, accept: &str) -> Option<(String, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let accept = if accept.is_empty() {
        String::new()
    } else {
        format!("Accept: {accept}\r\n")
    };
    let request = format!("GET {path} HTTP/1.0\r\nHost: test\r\n{accept}\r\n");
    let mut reply = Vec::new();
    stream.write_all(request.as_bytes()).ok()?;
    stream.read_to_end(&mut reply).ok()?;
    let end = reply.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    Some((head, reply[end + 4..].to_vec()))
}

/// Whether a program is in PATH; says so where it is not.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        skipped(&format!("{program} is not installed"));
    }
    found
}

/// A number of the text of /proc/PID/status, without its unit.
pub fn in_status(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(name, _)| *name == key)?;
    value.split_whitespace().next()?.parse().ok()
}

/// A number from a two-line table such as /proc/net/snmp.
pub fn proc_table(path: impl AsRef<Path>, table: &str, column: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let prefix = format!("{table}: ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == column).unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}
