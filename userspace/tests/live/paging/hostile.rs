//! Names that somebody chose to do harm, all the way to whoever is told.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use kldtrace::kernel::cgroup2;

use super::{chain::Chain, network::refused};
use crate::net::in_cgroup;

/// Quotes, braces, what is a template's, Slack's and a terminal's. A cgroup may
/// have any byte in its name but a slash, a line end and the zero.
const HARM: &str = "\"'`}{\t\r\\{{ .Labels.job }}{{ end }}${match}<!channel>&amp;%s\u{202e}é #: ";
/// A plane has 64 bytes at most, and no control characters.
pub const PLANE: &str = "\"'`}{\\{{ $labels.job }}{{ end }}<!channel>&amp;%s\u{202e}é #: ";
/// The name of n-3 is of Prometheus' configuration, and may have line ends.
pub const NODE: &str = "n-3\n\"'}{{ .Labels.job }}<!channel>";
/// A path has 4096 bytes at most, with those of the mount and of a file.
const DEEP: usize = 20;
const LONG: usize = 200;

/// A cgroup below others of such names. A daemon that starts later calls it by
/// the whole path.
pub struct Unit {
    path: PathBuf,
}

impl Unit {
    pub fn new() -> Self {
        let root = cgroup2::root().expect("cgroup v2");
        let line = root.join("a\nb");
        fs::create_dir(&line).expect_err("the kernel takes no line end");
        let part = format!("{HARM}{}", "x".repeat(LONG - HARM.len()));
        let path: PathBuf = vec![part; DEEP].iter().collect();
        let unit = Self { path };
        fs::create_dir_all(unit.folder()).unwrap();
        unit
    }

    /// The value of its label.
    pub fn name(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn folder(&self) -> PathBuf {
        cgroup2::root().unwrap().join(&self.path)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let root = cgroup2::root().unwrap();
        let below = self.path.ancestors();
        for path in below.filter(|path| *path != Path::new("")) {
            let _ = fs::remove_dir(root.join(path));
        }
    }
}

/// As kldtrace.tmpl writes it for Slack, which reads `<!channel>` as a call to
/// everybody.
pub fn for_slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

impl Chain {
    /// Connects of a unit with 4 KB of such a name.
    pub fn hostile_unit(&mut self) {
        let unit = self.unit.name().to_owned();
        assert!(unit.len() > 4000);
        let folder = self.unit.folder();
        in_cgroup(&folder, || refused(1));
        let counter = "kldtrace_tcp_connect_failures_total{unit=~\".*Labels.job.*\"} > 0";
        self.prometheus.wait_for_news(counter);
        let begun = Instant::now();
        in_cgroup(&folder, || refused(1000));
        let says = format!("{unit} on n-1 cannot connect: refused");
        self.pages(
            begun,
            "the same from a unit with a hostile name of 4 KB",
            "TcpConnectsFailing",
            &["#network"],
            &says,
        );
        self.undone("TcpConnectsFailing");
        // Whole in the text; Alertmanager cuts the title.
        let told = self.receiver.told.lock().unwrap();
        let whole = for_slack(&says);
        let mut messages = told.iter().filter(|one| one.text.contains(&whole));
        let title = messages.next().unwrap().text.lines().next().unwrap();
        assert!(title.chars().count() <= 1024, "{title}");
    }

    /// Crossings to a plane with such a name.
    pub fn hostile_plane(&mut self) {
        self.planes.apply(PLANE);
        let counter = "kldtrace_plane_packets_total{plane=~\".*labels.job.*\",reason=\"cross\"}";
        self.prometheus.wait_for_news(counter);
        let begun = Instant::now();
        self.planes.cross();
        let says = format!("Somebody tries to cross from or to the plane {PLANE} on {NODE}");
        self.pages(
            begun,
            "the same to a plane with a hostile name",
            "PlaneCrossing",
            &["page-network", "#network"],
            &says,
        );
        self.undone("PlaneCrossing");
    }
}
