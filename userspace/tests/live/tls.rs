//! TLS on the daemon's listener, against curl, openssl and a real Prometheus.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    authority::{Authority, Issued},
    common::{Daemon, free_port, installed, root, sh, wait_for},
    prometheus::Prometheus,
};

/// A daemon that speaks TLS, and the files of both sides.
struct Secured {
    daemon: Daemon,
    ca: Authority,
    folder: PathBuf,
}

impl Secured {
    fn start(names: &str) -> Option<Self> {
        if !root() || !installed("curl") {
            return None;
        }
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().to_owned();
        let ca = Authority::new("ours");
        fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
        let port = free_port();
        let at = folder.display();
        let tls = format!(
            "tls_certificate = \"{at}/server.pem\"\ntls_key = \"{at}/server.key\"\n\
             tls_client_ca = \"{at}/ca.pem\"\ntls_client_names = [{names}]\n\
             [signals]\nenable = [\"self.*\"]"
        );
        let config = Daemon::configuration(port, &folder.join("s"), &tls);
        fs::write(folder.join("c.toml"), config).unwrap();
        ca.issue(&["localhost"]).write(&folder, "server");
        ca.issue(&["prom.example"]).write(&folder, "client");
        let daemon = Daemon::run(temporary, port);
        let secured = Self { daemon, ca, folder };
        wait_for("the daemon", || secured.curl("client").0 == "200");
        Some(secured)
    }

    /// Status (000: none) of a scrape with the certificate of this name, and
    /// what curl says.
    fn curl(&self, name: &str) -> (String, String) {
        let url = format!("https://localhost:{}/metrics", self.daemon.port);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert"])
            .arg(self.folder.join("ca.pem"));
        if !name.is_empty() {
            curl.arg("--cert")
                .arg(self.folder.join(format!("{name}.pem")));
            curl.arg("--key")
                .arg(self.folder.join(format!("{name}.key")));
        }
        let output = curl.arg(url).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }

    fn shows(&self, issued: &Issued) -> (String, String) {
        issued.write(&self.folder, "shown");
        self.curl("shown")
    }

    fn number(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        self.daemon.families("self").integer(metric, labels)
    }

    fn refused(&self) -> u64 {
        let labels = [("listener", "metrics"), ("reason", "tls")];
        self.number("kldtrace_connections_dropped", &labels)
    }

    fn renewals(&self) -> u64 {
        self.number("kldtrace_certificate_renewals", &[("purpose", "listen")])
    }

    fn failures(&self) -> u64 {
        self.number("kldtrace_certificate_failures", &[("purpose", "listen")])
    }

    /// When the certificate expires, as openssl has it from the listener.
    fn served_until(&self) -> f64 {
        let (at, port) = (self.folder.display(), self.daemon.port);
        let end = sh(&format!(
            "openssl s_client -connect localhost:{port} -tls1_3 -cert {at}/client.pem \
             -key {at}/client.key </dev/null 2>/dev/null | openssl x509 -noout -enddate"
        ));
        let end = end.trim().strip_prefix("notAfter=").unwrap();
        sh(&format!("date -d '{end}' +%s")).trim().parse().unwrap()
    }

    fn told_until(&self) -> f64 {
        let families = self.daemon.families("self");
        let purpose = [("purpose", "listen")];
        families.float("kldtrace_certificate_expiry_timestamp_seconds", &purpose)
    }
}

#[test]
fn tls_lets_in_whom_it_should() {
    let Some(it) = Secured::start("\"prom.example\", \"spiffe://kldload/prometheus\"") else {
        return;
    };
    assert_eq!(it.refused(), 0);
    let uri = it.ca.issue(&["spiffe://kldload/prometheus"]);
    assert_eq!(it.shows(&uri).0, "200", "{}", it.daemon.log());
    let other = Authority::new("another");
    let mut refused = 0;
    for (why, issued) in [
        ("expired", it.ca.issue_until(&["prom.example"], 2020)),
        ("wrong authority", other.issue(&["prom.example"])),
        ("wrong name", it.ca.issue(&["evil.example"])),
    ] {
        let (status, said) = it.shows(&issued);
        assert_eq!(status, "000", "{why}");
        assert!(said.contains("alert"), "{why}: {said}");
        refused += 1;
        assert_eq!(it.refused(), refused, "{why}");
    }
    assert_eq!(it.curl("").0, "000", "without a certificate");
    // Plain text gets no answer that could be taken for one.
    let mut plain = TcpStream::connect(("127.0.0.1", it.daemon.port)).unwrap();
    plain
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(it.refused(), refused + 2);
    // Versions before 1.3 are not spoken.
    let (at, port) = (it.folder.display(), it.daemon.port);
    let old = format!(
        "openssl s_client -connect localhost:{port} -tls1_2 -cert {at}/client.pem \
         -key {at}/client.key </dev/null 2>&1 || true"
    );
    let said = sh(&old);
    assert!(said.contains("alert protocol version"), "{said}");
    let log = it.daemon.log();
    assert!(log.contains("TLS refused"), "{log}");
    assert_eq!(it.curl("client").0, "200");
}

#[test]
fn tls_renews_under_connections() {
    let Some(it) = Secured::start("") else {
        return;
    };
    assert!((it.told_until() - it.served_until()).abs() < 1.0);
    // A connection that stays, by somebody who is not us.
    let (at, port) = (it.folder.display(), it.daemon.port);
    let mut kept = Command::new("openssl")
        .args(["s_client", "-quiet", "-tls1_3", "-connect"])
        .arg(format!("localhost:{port}"))
        .args([
            "-cert",
            &format!("{at}/client.pem"),
            "-key",
            &format!("{at}/client.key"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut to, mut from) = (kept.stdin.take().unwrap(), kept.stdout.take().unwrap());
    let mut ask = || {
        to.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut reply = Vec::new();
        let mut byte = [0];
        while !reply.ends_with(b"attached\n") {
            assert_eq!(from.read(&mut byte).unwrap(), 1, "the connection has ended");
            reply.push(byte[0]);
        }
    };
    ask();

    // Half a pair is not taken.
    let new = it.ca.issue_until(&["localhost"], 2090);
    fs::write(it.folder.join("server.pem"), &new.certificate).unwrap();
    wait_for("the half pair to be seen", || it.failures() == 1);
    let before = it.served_until();
    assert!((it.told_until() - before).abs() < 1.0);
    assert!(it.daemon.log().contains("do not fit one another"));
    ask();
    // The other half, by renaming.
    fs::write(it.folder.join("new"), &new.key).unwrap();
    fs::rename(it.folder.join("new"), it.folder.join("server.key")).unwrap();
    wait_for("the pair", || it.renewals() == 1);
    let after = it.served_until();
    assert!(before - after > 8.0 * 365.0 * 86400.0, "{before} {after}");
    assert!((it.told_until() - after).abs() < 1.0);
    ask();

    // Another authority: its clients come in, those of the first do not.
    let other = Authority::new("another");
    let both = Issued {
        certificate: new.certificate.clone(),
        key: new.key.clone(),
    };
    both.write(&it.folder, "server");
    fs::write(it.folder.join("clients.pem"), other.pem()).unwrap();
    let trusted = it.folder.join("ca.pem");
    let ours = fs::read_to_string(&trusted).unwrap();
    fs::write(&trusted, format!("{ours}{}", other.pem())).unwrap();
    wait_for("the second authority", || it.renewals() == 2);
    assert_eq!(it.shows(&other.issue(&["x"])).0, "200");
    assert_eq!(it.curl("client").0, "200");
    ask();
    assert_eq!(it.failures(), 1);
    drop(to);
    let _ = kept.kill();
    let _ = kept.wait();
}

#[test]
fn tls_that_never_comes_does_not_stop_a_scrape() {
    let Some(it) = Secured::start("") else {
        return;
    };
    let connect = || TcpStream::connect(("127.0.0.1", it.daemon.port)).unwrap();
    let mut silent: Vec<_> = (0..300).map(|_| connect()).collect();
    // The beginning of a handshake, and never its end.
    for one in silent.iter_mut().step_by(2) {
        let _ = one.write_all(b"\x16\x03\x01\x02\x00\x01");
    }
    assert_eq!(it.curl("client").0, "200");
    let labels = [("listener", "metrics"), ("reason", "evicted")];
    let evicted = it.number("kldtrace_connections_dropped", &labels);
    assert!(evicted >= 300 - 64, "{evicted}");
}

#[test]
fn tls_that_cannot_be_had_is_said_at_the_start() {
    if !root() {
        return;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().to_owned();
    let at = folder.display();
    let tls = format!("tls_certificate = \"{at}/server.pem\"\ntls_key = \"{at}/server.key\"");
    let port = free_port();
    let config = Daemon::configuration(port, &folder.join("s"), &tls);
    fs::write(folder.join("c.toml"), config).unwrap();
    let mut daemon = Daemon::run(temporary, port);
    assert_eq!(daemon.ended().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("server.pem: cannot be read"), "{log}");
    assert!(!log.contains("attached"), "{log}");
}

fn scrape_config(folder: &Path, port: u16, certificate: &str) -> String {
    let at = folder.display();
    format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: kldtrace\n  scheme: https\n  \
         tls_config: {{ca_file: {at}/ca.pem, cert_file: {at}/{certificate}.pem, \
         key_file: {at}/{certificate}.key}}\n  static_configs: [{{targets: ['localhost:{port}']}}]\n"
    )
}

#[test]
fn prometheus_scrapes_by_mutual_tls_through_a_renewal() {
    if !installed("prometheus") {
        return;
    }
    let Some(it) = Secured::start("\"prom.example\"") else {
        return;
    };
    it.ca.issue(&["evil.example"]).write(&it.folder, "evil");
    let port = it.daemon.port;
    let evil = Prometheus::with(&scrape_config(&it.folder, port, "evil"));
    let good = Prometheus::with(&scrape_config(&it.folder, port, "client"));
    good.wait_for_news("kldtrace_connections");
    wait_for("the other to try", || !evil.query("up").is_empty());
    assert_eq!(evil.one("up")["value"][1], "0");
    assert!(evil.query("kldtrace_connections").is_empty());

    it.ca
        .issue_until(&["localhost"], 2090)
        .write(&it.folder, "server");
    wait_for("the renewal", || it.renewals() == 1);
    good.wait_for_news("kldtrace_certificate_renewals_total");
    good.wait_for_news("kldtrace_certificate_renewals_total");
    assert_eq!(
        good.one("kldtrace_certificate_renewals_total")["value"][1],
        "1"
    );
    assert_eq!(good.one("min_over_time(up[5m])")["value"][1], "1");
}
