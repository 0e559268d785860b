//! Programs that run beside a test.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use super::{super::pair::sh, net::Net};

/// Whether programs are installed; says that the test is skipped if not.
pub fn installed(programs: &[&str]) -> bool {
    for program in programs {
        if !sh(&format!("command -v {program}")) {
            println!("skipped: {program} is not installed");
            return false;
        }
    }
    true
}

/// A program in a namespace, with all that it starts; ended when dropped.
pub struct Program {
    child: Child,
    log: String,
}

impl Program {
    /// Starts a shell's command, which `exec`s what is meant.
    pub fn start(net: &Net, space: &str, name: &str, script: &str) -> Self {
        let log = net.path(&format!("{name}.log"));
        let to = fs::File::create(&log).unwrap();
        let mut command = net.command(space, "sh");
        let command: &mut Command = command
            .args(["-c", script])
            .stdout(to.try_clone().unwrap())
            .stderr(to)
            .process_group(0);
        let child = command.spawn().unwrap();
        Self { child, log }
    }

    /// What it has written.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Sends a signal to it and what it has started.
    pub fn signal(&self, signal: i32) {
        let group = self.child.id().cast_signed();
        // SAFETY: signals the group that was made above; its leader is not
        // waited for yet, so the number is still its own.
        unsafe { libc::kill(-group, signal) };
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
        self.signal(libc::SIGTERM);
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(5) {
                self.signal(libc::SIGKILL);
            }
            thread::sleep(Duration::from_millis(10));
        }
        if thread::panicking() {
            println!("{}:\n{}", self.log, self.said());
        }
    }
}
