//! A daemon in a namespace of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use kldtrace::cli::client::Client;

use super::pair::Pair;

const KLDTRACE: &str = env!("CARGO_BIN_EXE_kldtrace");
/// Where it serves `/metrics`, in its namespace.
pub const ADDRESS: &str = "127.0.0.1:9750";

/// A daemon in the namespace of a node, with a BPF file system and a
/// /var/lib of its own. All of it goes when it ends.
pub struct Daemon {
    child: Child,
    /// Its socket.
    pub socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts it with more configuration: whole sections.
    pub fn start(pair: &Pair, folder: &Path, more: &str) -> Self {
        let socket = folder.join("s");
        let config = folder.join("c.toml");
        let text = format!(
            "[listen]\naddress = \"{ADDRESS}\"\nsocket = \"{}\"\n{more}\n",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let log = folder.join("log");
        let script = format!(
            "ip link set lo up && mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs tmpfs /var/lib && \
             exec {KLDTRACE} daemon --config {}",
            config.display()
        );
        let child = Command::new("ip")
            .args(["netns", "exec", &pair.node, "sh", "-c", &script])
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let daemon = Self { child, socket, log };
        daemon.wait_for("it to answer", |daemon| {
            Client::find(&daemon.socket, "planes").is_ok_and(|client| client.is_some())
        });
        daemon
    }

    /// Waits until something holds.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !is(self) {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_mins(1), "{what}: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The tool where the daemon is.
    pub fn tool(&self, arguments: &[&str]) -> Command {
        self.command(KLDTRACE, arguments)
    }

    /// Another program there.
    pub fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let process = self.child.id().to_string();
        command.args(["-t", &process, "-m", "-n", program]);
        command.args(arguments);
        command
    }

    /// Runs it to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.tool(arguments).output().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that a command said.
pub fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}
