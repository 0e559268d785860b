//! A real Prometheus, as Debian has it.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::common::{free_port, get, wait_for};

/// A Prometheus with native histograms; ends with this value.
pub struct Prometheus {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Prometheus {
    /// One that scrapes a port each second.
    pub fn start(target: u16) -> Self {
        Self::with(&format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: kldtrace, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        ))
    }

    /// One with this configuration.
    pub fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        Self::in_folder(folder)
    }

    /// One whose configuration is in a folder.
    pub fn in_folder(folder: tempfile::TempDir) -> Self {
        Self::run(folder, &["--enable-feature=native-histograms"])
    }

    /// The same with other options.
    pub fn run(folder: tempfile::TempDir, options: &[&str]) -> Self {
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let port = free_port();
        let child = Command::new("prometheus")
            .current_dir(folder.path())
            .args(options)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            folder,
        }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has it read them again.
    pub fn reload(&self) {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGHUP) };
    }

    /// The whole answer to a request of its API, whose path ends where a text
    /// goes that is encoded here.
    pub fn ask(&self, path: &str, text: &str) -> Value {
        let mut path = path.to_owned();
        for byte in text.bytes() {
            write!(path, "%{byte:02x}").unwrap();
        }
        let (_, body) = get(self.port, &path, "");
        serde_json::from_slice(&body).unwrap_or_default()
    }

    /// The samples that a query finds.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let mut answer = self.ask("/api/v1/query?query=", query);
        match answer["data"]["result"].take() {
            Value::Array(samples) => samples,
            _ => Vec::new(),
        }
    }

    /// Of a query that finds one.
    pub fn one(&self, query: &str) -> Value {
        let mut samples = self.query(query);
        assert_eq!(samples.len(), 1, "{query}: {samples:?}");
        samples.remove(0)
    }

    /// Its value.
    pub fn number(&self, query: &str) -> f64 {
        parse(&self.one(query)["value"][1])
    }

    /// Waits for a sample of the series that was taken after this moment.
    pub fn wait_for_news(&self, series: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        wait_for(&format!("a scrape of {series}"), || {
            let when = self.query(&format!("timestamp({series})"));
            when.first()
                .is_some_and(|when| parse(&when["value"][1]) > now.as_secs_f64())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            println!("prometheus: {}", log.unwrap_or_default());
        }
    }
}

/// The number in a field of a sample.
pub fn parse(field: &Value) -> f64 {
    field.as_str().unwrap().parse().unwrap()
}
