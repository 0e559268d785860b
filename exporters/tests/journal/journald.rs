//! A systemd-journald of our own: in a mount namespace, with its journal in a
//! folder of the test.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Debian's and Red Hat's place of it.
const PROGRAM: &str = "/usr/lib/systemd/systemd-journald";

/// No messages of the kernel, which come when they want, no limits, and files
/// that are soon full. Auditing stays as it is: that is the whole kernel's.
const SETTINGS: &str = "[Journal]\nReadKMsg=no\nAudit=\nRateLimitIntervalSec=0\n\
    RateLimitBurst=0\nForwardToWall=no\nSeal=no\nLineMax=1M\nSyncIntervalSec=1s\n\
    SystemMaxUse=400M\nSystemMaxFileSize=1M\nMaxLevelStore=debug\n";

pub struct Journald {
    child: Child,
    folder: TempDir,
}

/// Waits until something holds.
#[track_caller]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < until, "waited 30 s for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Journald {
    /// One that writes to its /var; `None`, and a line that says why: there can
    /// be none here.
    pub fn start() -> Option<Self> {
        Self::with(true)
    }

    /// One that writes to its /run until it is told to flush, as after boot.
    pub fn before_flush() -> Option<Self> {
        Self::with(false)
    }

    fn with(flushed: bool) -> Option<Self> {
        let why = if !Path::new(PROGRAM).exists() {
            Some("no systemd-journald")
        // SAFETY: geteuid has no preconditions.
        } else if unsafe { libc::geteuid() } != 0 {
            Some("needs root")
        } else {
            None
        };
        if let Some(why) = why {
            println!("skipped: {why}");
            return None;
        }
        // journald removes its files in /run only from a file system in memory.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        for part in ["log", "etc", "run/systemd/journal"] {
            fs::create_dir_all(folder.path().join(part)).unwrap();
        }
        fs::write(folder.path().join("etc/journald.conf"), SETTINGS).unwrap();
        let child = run(folder.path(), flushed);
        let journald = Self { child, folder };
        journald.answers();
        Some(journald)
    }

    fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    fn answers(&self) {
        wait_for("journald to answer", || {
            let output = UnixStream::connect(self.path("run/systemd/journal/stdout"));
            let native = UnixDatagram::unbound().unwrap().connect(self.socket());
            output.is_ok() && native.is_ok()
        });
        self.write_journalctl();
    }

    /// Its /var/log/journal.
    pub fn directory(&self) -> PathBuf {
        self.path("log")
    }

    /// A journalctl that sees its /run and /var where they belong.
    pub fn journalctl(&self) -> PathBuf {
        self.path("journalctl")
    }

    /// Another process writes the script: a child of another test's thread
    /// could hold our file for a moment, and what is written to cannot be run.
    fn write_journalctl(&self) {
        let namespace = format!("/proc/{}/ns/mnt", self.child.id());
        let inside = format!("#!/bin/sh\nexec nsenter --mount={namespace} journalctl \"$@\"\n");
        let mut command = Command::new("sh");
        command.args(["-c", "printf %s \"$1\" > \"$0\" && chmod +x \"$0\""]);
        command.arg(self.journalctl()).arg(inside);
        assert!(command.status().unwrap().success());
    }

    /// Its socket for native messages.
    pub fn socket(&self) -> PathBuf {
        self.path("run/systemd/journal/socket")
    }

    /// Its socket for syslog's messages, which all users may write to.
    pub fn syslog(&self) -> PathBuf {
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.folder.path(), everybody).unwrap();
        self.path("run/systemd/journal/dev-log")
    }

    /// Writes an entry as sd_journal_send does:
    /// <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
    pub fn send(&self, fields: &[(&str, &[u8])]) {
        send(&self.socket(), fields);
    }

    /// A program's standard output, as systemd connects it.
    pub fn output(&self, identifier: &str) -> UnixStream {
        let path = self.path("run/systemd/journal/stdout");
        let mut stream = UnixStream::connect(path).unwrap();
        // Identifier, unit, priority, whether it has prefixes, three forwards.
        let head = format!("{identifier}\n\n6\n0\n0\n0\n0\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    fn show(&self, how: &[&str]) -> String {
        let mut command = Command::new(self.journalctl());
        command.args(["--quiet", "--merge", "--output-fields=MESSAGE"]);
        command.args(how);
        let output = command.output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until the journal has a line.
    #[track_caller]
    pub fn wait_for(&self, line: &str) {
        wait_for(&format!("{line:?} in the journal"), || {
            let all = self.show(&["--output=cat"]);
            all.lines().any(|one| one == line)
        });
    }

    /// How many entries there are.
    pub fn entries(&self) -> u64 {
        self.count(&[])
    }

    /// How many entries there are behind one.
    pub fn behind(&self, cursor: &str) -> u64 {
        self.count(&["--after-cursor", cursor])
    }

    fn count(&self, which: &[&str]) -> u64 {
        let all = self.show(&[which, &["--output=export"]].concat());
        let begins = |line: &&str| line.starts_with("__CURSOR=s=");
        all.lines().filter(begins).count() as u64
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Archives the file that is written to, and begins another.
    pub fn rotate(&self) {
        let before = self.archived().len();
        self.signal(libc::SIGUSR2);
        wait_for("an archived file", || self.archived().len() > before);
    }

    /// Files that are full.
    pub fn archived(&self) -> Vec<PathBuf> {
        let machines = fs::read_dir(self.directory()).unwrap().flatten();
        let files = machines.flat_map(|machine| fs::read_dir(machine.path()).unwrap().flatten());
        let mut files: Vec<_> = files
            .map(|file| file.path())
            .filter(|path| path.to_string_lossy().contains('@'))
            .collect();
        files.sort();
        files
    }

    /// Removes all files that are full, as journald does when there is no room.
    pub fn vacuum(&self) {
        let mut command = Command::new("journalctl");
        command.arg("--directory").arg(self.directory());
        command.args(["--quiet", "--vacuum-files=1"]);
        assert!(command.status().unwrap().success());
        wait_for("no archived file", || self.archived().is_empty());
    }

    /// Has it move its entries from /run to /var.
    pub fn flush(&self) {
        self.signal(libc::SIGUSR1);
        wait_for("the journal to be in /var", || {
            self.path("run/systemd/journal/flushed").exists()
        });
    }

    /// Ends it as systemd does.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        self.child.wait().unwrap();
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts another with the same journal.
    pub fn resume(&mut self) {
        self.child = run(self.folder.path(), true);
        self.answers();
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, flushed: bool) -> Child {
    if flushed {
        fs::write(folder.join("run/systemd/journal/flushed"), "").unwrap();
    }
    for socket in ["socket", "stdout", "dev-log"] {
        let _ = fs::remove_file(folder.join("run/systemd/journal").join(socket));
    }
    let script = "mkdir -p /var/log/journal && mount --bind \"$0/run\" /run \
        && mount --bind \"$0/log\" /var/log/journal \
        && mount --bind \"$0/etc\" /etc/systemd && exec \"$1\"";
    Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", script])
        .arg(folder)
        .arg(PROGRAM)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Writes an entry to a socket for native messages.
pub fn send(socket: &Path, fields: &[(&str, &[u8])]) {
    let mut message = Vec::new();
    for (name, value) in fields {
        message.extend_from_slice(name.as_bytes());
        message.push(b'\n');
        message.extend_from_slice(&(value.len() as u64).to_le_bytes());
        message.extend_from_slice(value);
        message.push(b'\n');
    }
    let datagram = UnixDatagram::unbound().unwrap();
    let sent = datagram.send_to(&message, socket).unwrap();
    assert_eq!(sent, message.len());
}
