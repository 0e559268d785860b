//! A small HTTP server for the families, and a Prometheus to scrape it.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use kldtrace_exporters::{
    model::Family,
    prometheus::{Format, encode, negotiate},
};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a program is there; says so where it is not.
pub fn installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        // Past the test runner, which hides what a passing test prints.
        let hint = "(Debian: apt-get install prometheus)";
        let _ = writeln!(io::stderr(), "skipped: no {program} in PATH {hint}");
    }
    found
}

/// Fails unless `promtool check metrics` is content.
pub fn check_metrics(text: &[u8]) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start promtool");
    promtool
        .stdin
        .take()
        .expect("piped")
        .write_all(text)
        .expect("write to promtool");
    let output = promtool.wait_with_output().expect("wait for promtool");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "promtool: {}",
        String::from_utf8_lossy(&said)
    );
}

/// Serves the families: `/text` and `/openmetrics` as they say, all else as
/// the scraper's `Accept` asks. Its thread ends with the test process.
pub struct Server {
    address: SocketAddr,
    negotiated: Arc<Mutex<Vec<Format>>>,
}

impl Server {
    /// Serves on a free port.
    pub fn start(families: Vec<Family>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let negotiated = Arc::default();
        let formats = Arc::clone(&negotiated);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A scraper that hangs up is not the server's concern.
                let _ = stream.and_then(|stream| serve(stream, &families, &formats));
            }
        });
        Self {
            address,
            negotiated,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The formats that scrapers have asked for, each once.
    pub fn negotiated(&self) -> Vec<Format> {
        let mut formats = self
            .negotiated
            .lock()
            .expect("no panic while locked")
            .clone();
        formats.sort();
        formats.dedup();
        formats
    }
}

fn serve(
    mut stream: TcpStream,
    families: &[Family],
    negotiated: &Mutex<Vec<Format>>,
) -> io::Result<()> {
    let mut lines = BufReader::new(&stream).lines();
    let request = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut accept = None;
    for line in lines {
        let line = line?;
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("accept") => {
                accept = Some(value.trim().to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let format = match request.split(' ').nth(1) {
        Some("/text") => Format::Text,
        Some("/openmetrics") => Format::OpenMetrics,
        _ => {
            let format = negotiate(accept.as_deref());
            negotiated
                .lock()
                .expect("no panic while locked")
                .push(format);
            format
        }
    };
    let content_type = format.content_type();
    write!(
        stream,
        "HTTP/1.0 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
    )?;
    stream.write_all(&encode(format, families))
}

/// A Prometheus with native histograms; ends with this value.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `/<job>` of `target` each second for each job.
    pub fn start(target: SocketAddr, jobs: &[&str]) -> Self {
        let folder = TempDir::new().expect("temporary folder");
        let jobs = jobs.iter().map(|job| {
            format!(
                "- {{job_name: {job}, metrics_path: /{job}, \
                 static_configs: [{{targets: ['{target}']}}]}}\n"
            )
        });
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n{}",
            jobs.collect::<String>()
        );
        fs::write(folder.path().join("prometheus.yml"), config).expect("write configuration");
        let log = fs::File::create(folder.path().join("log")).expect("create log");

        // Free now, and soon Prometheus' own.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = free.local_addr().expect("address");
        drop(free);
        let child = Command::new("prometheus")
            .current_dir(folder.path())
            .arg("--enable-feature=native-histograms,exemplar-storage")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start prometheus");
        Self {
            child,
            address,
            folder,
        }
    }

    /// Waits until the job's target was scraped and understood.
    pub fn wait_for_scrape(&self, job: &str) {
        let start = Instant::now();
        let query = format!("up{{job='{job}'}} == 1");
        while self.query(&query).map_or(0, |samples| samples.len()) == 0 {
            assert!(
                start.elapsed() < PATIENCE,
                "job {job} was not scraped: {}\n{}",
                self.get("/api/v1/targets").unwrap_or_default(),
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The one sample that a query finds.
    pub fn one(&self, query: &str) -> Value {
        let mut samples = self.query(query).expect("an answer");
        assert_eq!(samples.len(), 1, "{query}: {samples:?}");
        samples.remove(0)
    }

    /// All exemplars of the series that a selector finds.
    pub fn exemplars(&self, selector: &str) -> Vec<Value> {
        let query = escaped(selector);
        let path = format!("/api/v1/query_exemplars?query={query}&start=0&end=9999999999");
        let body = self.get(&path).expect("an answer");
        let mut answer: Value = serde_json::from_str(&body).expect("JSON");
        let Value::Array(series) = answer["data"].take() else {
            panic!("{selector}: {body}");
        };
        let exemplars = series
            .into_iter()
            .map(|mut series| match series["exemplars"].take() {
                Value::Array(exemplars) => exemplars,
                _ => panic!("{selector}: {body}"),
            });
        exemplars.flatten().collect()
    }

    fn query(&self, query: &str) -> io::Result<Vec<Value>> {
        let query = escaped(query);
        let body = self.get(&format!("/api/v1/query?query={query}"))?;
        let mut answer: Value = serde_json::from_str(&body)?;
        match answer["data"]["result"].take() {
            Value::Array(samples) => Ok(samples),
            _ => Err(io::Error::other(format!("{query}: {body}"))),
        }
    }

    /// The body of an HTTP/1.0 answer, which is neither chunked nor compressed.
    fn get(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
        body.map(str::to_owned)
            .ok_or_else(|| io::Error::other("no body"))
    }
}

/// A text as a part of a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        write!(escaped, "%{byte:02x}").expect("write to a string");
    }
    escaped
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
