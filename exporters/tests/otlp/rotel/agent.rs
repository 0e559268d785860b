//! rotel in a folder of its own.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The receiver in a folder of its own; ended when dropped.
pub struct Rotel {
    child: Child,
    folder: tempfile::TempDir,
    /// Its ports.
    pub grpc: u16,
    pub http: u16,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Rotel {
    /// Starts what `cargo xtask setup --for test` installs; `None`, and a line
    /// that says so, without it.
    pub fn start() -> Option<Self> {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?;
        let program = target.join("rotel/rotel/rotel-agent");
        let version = Command::new(&program).arg("--version").output();
        if !version.is_ok_and(|output| output.status.success()) {
            let hint = "(`cargo xtask setup --for test` installs it)";
            println!("skipped: rotel does not start {hint}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (grpc, http) = (free_port(), free_port());
        let says = File::create(folder.path().join("says")).unwrap();
        let child = Command::new(program)
            .args(["start", "--exporter=blackhole"])
            .args(["logs", "traces", "metrics"].map(|signal| format!("--debug-log={signal}")))
            .arg("--debug-log-verbosity=detailed")
            .arg(format!("--otlp-grpc-endpoint=127.0.0.1:{grpc}"))
            .arg(format!("--otlp-http-endpoint=127.0.0.1:{http}"))
            .current_dir(&folder)
            // Its log would come between the lines.
            .env("RUST_LOG", "off")
            .stdout(says.try_clone().unwrap())
            .stderr(says)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let rotel = Self {
            child,
            folder,
            grpc,
            http,
        };
        for port in [grpc, http] {
            rotel.wait("a port", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        Some(rotel)
    }

    /// What it has printed.
    pub fn says(&self) -> String {
        let says = fs::read(self.folder.path().join("says")).unwrap();
        String::from_utf8_lossy(&says).into_owned()
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            let late = start.elapsed() > Duration::from_secs(20);
            assert!(!late, "{what}: {}", self.says());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bucket as it is printed, by the program's own arithmetic: its bounds in
/// seconds, and its count.
pub type Bucket = (f64, f64, u64);

/// `Bucket (0.5, 1], Count: 3`.
pub fn bucket(line: &str) -> Option<Bucket> {
    let (bounds, count) = line.strip_prefix("Bucket ")?.split_once(", Count: ")?;
    let (lower, upper) = bounds.get(1..bounds.len() - 1)?.split_once(", ")?;
    Some((
        lower.parse().ok()?,
        upper.parse().ok()?,
        count.parse().ok()?,
    ))
}

/// Whether those of `found` that are not empty are `expected`: bounds agree to
/// a millionth, and are 9 % apart.
pub fn are(found: &[Bucket], expected: &[Bucket]) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= b * 1e-6;
    let found = found.iter().filter(|(.., count)| *count > 0);
    found.clone().count() == expected.len()
        && found.zip(expected).all(|(found, expected)| {
            close(found.0, expected.0) && close(found.1, expected.1) && found.2 == expected.2
        })
}
