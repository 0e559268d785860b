//! Bad input: configurations, clients, ports and sockets in use, and daemons
//! that are none.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Output, Stdio},
    thread,
    time::Duration,
};

use kldtrace::{config::Config, selection};

use super::common::{Daemon, free_port, kldtrace, root, wait_for};

/// Runs `kldtrace daemon`, which must fail, on such a configuration.
fn refused(config: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    fs::write(&path, config).unwrap();
    let daemon = kldtrace()
        .args(["daemon", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    let check = kldtrace()
        .args(["config", "--check"])
        .arg(&path)
        .output()
        .unwrap();
    for output in [&daemon, &check] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    // Before it attaches or listens: both say the same.
    assert_eq!(daemon.stderr, check.stderr);
    String::from_utf8(daemon.stderr).unwrap()
}

#[test]
fn input_hostile_configurations_are_refused_by_line() {
    let many = "x = 1\n".repeat(2 << 18);
    let deep = format!("a = {}", "[".repeat(100_000));
    for (config, said) in [
        (
            &b"\x7fELF\x02\x01\x01\0\0\0\xff\xfe"[..],
            &["c.toml:1:"][..],
        ),
        (b"\xff\xfe[", &["c.toml:1:1: not UTF-8"]),
        (&vec![b'#'; 2 << 20], &["larger than 1MiB"]),
        (many.as_bytes(), &["larger than 1MiB"]),
        (deep.as_bytes(), &["c.toml:1:"]),
        (b"[listen]\naddress = \"127.0", &["c.toml:2:"]),
        (
            b"[limits]\nevent_bufer = \"1MiB\"\n\n[lsiten]\n",
            &[
                "c.toml:2:1:",
                "did you mean \"event_buffer\"",
                "c.toml:4:",
                "did you mean \"listen\"",
            ],
        ),
        (
            b"[limits]\nevent_buffer = 65536\n",
            &["c.toml:2:16:", "has no unit"],
        ),
        (b"[limits]\nevent_buffer = \"1MB\"\n", &["c.toml:2:16:"]),
        (
            b"[signals]\nenable = [\"sched.nonsense\"]\n",
            &["c.toml:2:11:", "unknown signal"],
        ),
        (
            b"[hooks]\navoid = [\"uprobe\"]\n",
            &["c.toml:2:10:", "\"tp_btf\""],
        ),
    ] {
        let error = refused(config);
        for said in said {
            assert!(error.contains(said), "{said}: {error}");
        }
        assert!(error.len() < 8192, "{} bytes of complaint", error.len());
    }
    let missing = kldtrace()
        .args(["daemon", "--config", "/nonexistent.toml"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&missing.stderr);
    assert!(
        error.contains("/nonexistent.toml: cannot be read"),
        "{error}"
    );
}

#[test]
fn input_a_configuration_cut_anywhere_is_read_or_refused() {
    let example: String = Config::example()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let mut refused = 0;
    for cut in 0..example.len() {
        if let Err(error) = Config::parse(&example[..cut], "c.toml", selection::names()) {
            assert!(error.to_string().starts_with("c.toml:"), "{error}");
            refused += 1;
        }
    }
    assert!(Config::parse(&example, "c.toml", selection::names()).is_ok());
    println!("{refused} of {} cuts refused", example.len());
    assert!(refused > 100);
}

/// A daemon that must not start; what it says.
fn fails(port: u16, prepare: impl FnOnce(PathBuf)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    prepare(socket.clone());
    let config = Daemon::configuration(port, &socket, "");
    fs::write(folder.path().join("c.toml"), config).unwrap();
    let mut daemon = Daemon::run(folder, port);
    let status = daemon.ended();
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    daemon.log()
}

#[test]
fn input_ports_and_sockets_in_use_are_named() {
    if !root() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let log = fails(port, |_| {});
    assert!(
        log.contains(&format!("127.0.0.1:{port}")) && log.contains("in use"),
        "{log}"
    );
    let log = fails(free_port(), |socket| fs::write(socket, "mine").unwrap());
    assert!(log.contains("is there and is not a socket"), "{log}");
    let log = fails(free_port(), |socket| fs::create_dir(socket).unwrap());
    assert!(log.contains("is there and is not a socket"), "{log}");

    // What a killed daemon left is taken over.
    let mut killed = Daemon::start("[signals]\nenable = [\"self.*\"]").unwrap();
    killed.signal(libc::SIGKILL);
    killed.ended();
    assert!(killed.socket().exists() && UnixStream::connect(killed.socket()).is_err());
    let folder = std::mem::replace(&mut killed.folder, tempfile::tempdir().unwrap());
    let next = Daemon::run(folder, killed.port);
    wait_for("the next daemon", || next.get("/healthz", "").0 == 200);
    assert!(UnixStream::connect(next.socket()).is_ok());
}

#[test]
fn input_bad_clients_do_not_keep_the_daemon_from_others() {
    let Some(mut daemon) = Daemon::start("[signals]\nenable = [\"block.*\", \"self.*\"]") else {
        return;
    };
    let mut open = Vec::new();
    let endless = b"GET /metrics HTTP/1.1\r\nX: "
        .iter()
        .chain(&vec![b'x'; 1 << 20])
        .copied()
        .collect();
    for bytes in [
        Vec::new(),
        b"GET /met".to_vec(),
        b"\0\x16\x03\x01\xff\xff".to_vec(),
        endless,
    ] {
        for _ in 0..20 {
            let mut tcp = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
            let mut unix = UnixStream::connect(daemon.socket()).unwrap();
            // It may hang up in the middle.
            let _ = tcp.write_all(&bytes);
            let _ = unix.write_all(&bytes);
            open.push((tcp, unix));
        }
    }
    assert_eq!(daemon.get("/metrics", "").0, 200);
    assert_eq!(daemon.get("/healthz", &"a/b,".repeat(1000)).0, 200);
    assert!(!daemon.families("block").0.is_empty());
    // A subject that does not exist has no families.
    assert!(daemon.families("nonsense").0.is_empty());
    // They do not keep it from stopping either.
    daemon.signal(libc::SIGTERM);
    assert_eq!(daemon.ended().code(), Some(0), "{}", daemon.log());
    drop(open);
}

/// What a daemon that is none sends; it ends when the client has enough.
type Answer = fn(&mut UnixStream) -> std::io::Result<()>;

fn body(stream: &mut UnixStream, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Runs the tool against it.
fn ask(folder: &tempfile::TempDir, name: &str, answer: Answer, arguments: &[&str]) -> Child {
    let socket = folder.path().join(name);
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                // The first connection only asks whether somebody is there.
                let asked = stream.read(&mut [0; 4096]).unwrap_or(0);
                if asked > 0 {
                    let _ = answer(&mut stream);
                }
            });
        }
    });
    kldtrace()
        .args(arguments)
        .arg("--socket")
        .arg(socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn failed(output: &Output, said: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("kldtrace: "), "{error}");
    assert!(error.contains(said), "{said}: {error}");
    assert!(error.len() < 1000, "{error}");
    assert!(!error.contains('\x1b'), "{error:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn input_daemons_that_are_none_are_found_out() {
    let folder = tempfile::tempdir().unwrap();
    // One byte now and then, for ever: the tool must lose patience.
    let mut slow = ask(
        &folder,
        "slow",
        |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n[")?;
            loop {
                stream.write_all(b" ")?;
                thread::sleep(Duration::from_millis(100));
            }
        },
        &["latency", "sched"],
    );
    let answers: [(&str, Answer, &str); 9] = [
        (
            "rubbish",
            |s| s.write_all(b"\x1b[2Jhello\n"),
            "asking the daemon at",
        ),
        ("nothing", |_| Ok(()), "asking the daemon at"),
        ("text", |s| body(s, "not JSON"), "unreadable answer"),
        ("shape", |s| body(s, "{\"a\": [1, 2"), "unreadable answer"),
        ("other", |s| body(s, "[{\"name\": 7}]"), "unreadable answer"),
        (
            "deep",
            |s| body(s, &"[".repeat(100_000)),
            "unreadable answer",
        ),
        (
            "cut",
            |s| s.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n[]"),
            "asking the daemon at",
        ),
        (
            "sick",
            |s| s.write_all(b"HTTP/1.1 503 Unwell\r\ncontent-length: 11\r\n\r\nno \x1b[2Jmaps"),
            "503",
        ),
        (
            "huge",
            |s| {
                s.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n")?;
                let zeros = vec![b' '; 1 << 20];
                loop {
                    s.write_all(&zeros)?;
                }
            },
            "length limit exceeded",
        ),
    ];
    for (name, answer, said) in answers {
        for (command, arguments) in [("l", &["latency", "sched"][..]), ("d", &["doctor"])] {
            let tool = ask(&folder, &format!("{name}-{command}"), answer, arguments);
            failed(&tool.wait_with_output().unwrap(), said);
        }
    }
    // It gives up after 30 s; this is patience, not measurement.
    for _ in 0..120 {
        if slow.try_wait().unwrap().is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(500));
    }
    let _ = slow.kill();
    failed(&slow.wait_with_output().unwrap(), "no answer in 30 s");
}
