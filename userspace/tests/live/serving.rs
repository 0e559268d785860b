//! What clients can and cannot do to the daemon's listeners.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use super::common::{Daemon, wait_for};

const SMALL: &str = "[signals]\nenable = [\"self.*\"]";

/// Lets this process have so many files.
fn allow_files(count: u64) {
    let limit = libc::rlimit {
        rlim_cur: count,
        rlim_max: count,
    };
    // SAFETY: a valid struct, read only.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

fn dropped(daemon: &Daemon, listener: &str, reason: &str) -> u64 {
    let labels = [("listener", listener), ("reason", reason)];
    let families = daemon.families("self");
    families.integer("kldtrace_connections_dropped", &labels)
}

fn connect(daemon: &Daemon) -> TcpStream {
    TcpStream::connect(("127.0.0.1", daemon.port)).unwrap()
}

/// Whether the other side has ended the connection.
fn is_ended(stream: &mut TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// A request on a connection that stays.
fn ask(stream: &mut TcpStream) -> bool {
    let request = "GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n";
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    if stream.write_all(request.as_bytes()).is_err() {
        return false;
    }
    let mut reply = Vec::new();
    let mut part = [0; 1024];
    while !reply.ends_with(b"attached\n") {
        match stream.read(&mut part) {
            Ok(read) if read > 0 => reply.extend_from_slice(&part[..read]),
            _ => return false,
        }
    }
    reply.starts_with(b"HTTP/1.1 200")
}

#[test]
fn a_thousand_silent_connections_do_not_stop_a_scrape() {
    const SILENT: usize = 1000;
    let Some(daemon) = Daemon::start(SMALL) else {
        return;
    };
    allow_files(4096);
    // Prometheus is there already, and stays.
    let mut regular = connect(&daemon);
    assert!(ask(&mut regular));
    let mut silent: Vec<_> = (0..SILENT).map(|_| connect(&daemon)).collect();
    // Some begin a request and never end it.
    for one in silent.iter_mut().step_by(3) {
        let _ = one.write_all(b"GET /metr");
    }
    let (status, _) = daemon.get("/metrics", "");
    assert_eq!(status, 200);
    assert!(ask(&mut regular), "it has lost its connection to silence");

    let families = daemon.families("self");
    let number = |metric| families.integer(metric, &[("listener", "metrics")]);
    let limit = number("kldtrace_connections_max");
    assert_eq!(limit, 64);
    assert!(number("kldtrace_connections") <= limit);
    // One for each that found no room, those of the scrape among them.
    let evicted = dropped(&daemon, "metrics", "evicted");
    let needed = SILENT as u64 + 1 - limit;
    assert!((needed..needed + 10).contains(&evicted), "{evicted}");
    assert_eq!(dropped(&daemon, "metrics", "full"), 0);
    wait_for("the evicted to be ended", || {
        silent
            .iter_mut()
            .filter_map(|one| is_ended(one).then_some(()))
            .count() as u64
            >= needed
    });
    // The rest has its time, and then goes as well.
    wait_for("the silent to go", || {
        let families = daemon.families("self");
        families.integer("kldtrace_connections", &[("listener", "metrics")]) == 1
    });
    assert!(ask(&mut regular));
    let slow = dropped(&daemon, "metrics", "slow_request");
    assert!(
        slow > 0 && slow + evicted <= SILENT as u64,
        "{slow} {evicted}"
    );
    assert_eq!(dropped(&daemon, "socket", "evicted"), 0);
}

#[test]
fn the_oldest_idle_makes_room() {
    let config = "connections = 4\n[signals]\nenable = [\"self.*\"]";
    let Some(daemon) = Daemon::start(config) else {
        return;
    };
    let mut kept: Vec<_> = (0..4).map(|_| connect(&daemon)).collect();
    for one in &mut kept {
        assert!(ask(one));
    }
    let before = dropped(&daemon, "metrics", "evicted");
    assert!(ask(&mut connect(&daemon)));
    assert_eq!(dropped(&daemon, "metrics", "evicted"), before + 1);
    let ended: Vec<_> = kept.iter_mut().map(is_ended).collect();
    assert_eq!(ended, [true, false, false, false]);
}

/// Silence does not keep the daemon from stopping either.
#[test]
fn who_waits_is_let_go_when_the_daemon_stops() {
    let Some(mut daemon) = Daemon::start(SMALL) else {
        return;
    };
    let silent: Vec<_> = (0..10).map(|_| connect(&daemon)).collect();
    let mut regular = connect(&daemon);
    assert!(ask(&mut regular));
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended().code(), Some(0));
    let log = daemon.log();
    assert!(!log.contains("did not finish"), "{log}");
    drop((silent, regular));
}

/// Whatever is sent, the next who asks is answered.
#[test]
fn rubbish_is_survived() {
    let Some(daemon) = Daemon::start(SMALL) else {
        return;
    };
    let long = format!(
        "GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let accept = format!(
        "GET /metrics HTTP/1.0\r\nAccept: {}\r\n\r\n",
        ",;q=".repeat(900)
    );
    let encoding = format!(
        "GET /metrics HTTP/1.0\r\nAccept-Encoding: {}\r\n\r\n",
        ",;q=".repeat(900)
    );
    let body = "POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
    for sent in [
        long.as_bytes(),
        many.as_bytes(),
        accept.as_bytes(),
        encoding.as_bytes(),
        body.as_bytes(),
        b"GET /metrics?\xff%zz&&==%00 HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = connect(&daemon);
        let _ = stream.write_all(sent);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(daemon.get("/metrics", "").0, 200);
    }
}
