//! Booting a guest and listening to it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};

use super::build::Parts;
use super::matrix::Clock;
use crate::sh;

/// Disks of a guest, for pools and the like.
const DISKS: usize = 6;
/// Size of each; the files are sparse.
const DISK: u64 = 512 << 20;
const MEMORY: &str = "2048";
const COMMAND_LINE: &str =
    "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off nokaslr tsc=reliable rdinit=/init";
/// What the guest says last.
const ENDED: &str = "kldtrace-guest-ended ";

/// Runs a guest, whose kernel is told `arguments` beside its usual ones; `line`
/// takes what it says. Returns the status of its script.
///
/// # Errors
/// When it does not boot, crashes, or is not done in time.
pub fn run(
    parts: &Parts,
    initramfs: &Path,
    folder: &Path,
    arguments: &str,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<i32> {
    let console = folder.join("console");
    let mut command = command(parts, initramfs, folder, arguments)?;
    command
        .args(["-display", "none", "-monitor", "none"])
        .args(["-device", "virtio-serial-pci"])
        .args(["-chardev", "file,id=results,path=/dev/stdout"])
        .args(["-device", "virtserialport,chardev=results,name=results"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start qemu")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for text in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            if send
                .send(String::from_utf8_lossy(&text).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let until = Instant::now() + limit;
    let mut ended = None;
    let outcome = loop {
        let left = until.saturating_duration_since(Instant::now());
        match receive.recv_timeout(left) {
            Ok(text) => match text.trim_end().strip_prefix(ENDED) {
                Some(status) => ended = status.parse().ok(),
                None => line(text.trim_end_matches('\r')),
            },
            Err(RecvTimeoutError::Disconnected) => break "the guest ended early",
            Err(RecvTimeoutError::Timeout) => break "the guest was not done in time",
        }
    };
    let _ = child.kill();
    child.wait()?;
    match ended {
        Some(status) => Ok(status),
        None => bail!(
            "{outcome}; its console, {}:\n{}",
            console.display(),
            end_of(&console)
        ),
    }
}

/// Runs a guest whose console is this terminal.
///
/// # Errors
/// When qemu cannot be started.
pub fn shell(parts: &Parts, initramfs: &Path, folder: &Path) -> Result<ExitStatus> {
    let mut command = command(parts, initramfs, folder, "")?;
    command.arg("-nographic");
    command.status().context("cannot start qemu")
}

fn command(parts: &Parts, initramfs: &Path, folder: &Path, arguments: &str) -> Result<Command> {
    const QEMU: &str = "qemu-system-x86_64";
    let mut command = match parts.clock {
        // Others first: its clock does not care.
        Clock::Instructions => {
            let mut command = sh::command("nice");
            command.args(["-n", "19", QEMU]);
            command
        }
        Clock::Host => sh::command(QEMU),
    };
    // Emulation, also where /dev/kvm exists: on hosts that are guests
    // themselves stock kernels may not boot under it.
    command.args(["-machine", "q35", "-cpu", "max"]);
    match parts.clock {
        // One thread for all processors: what counts instructions needs it.
        Clock::Instructions => command.args([
            "-accel",
            "tcg,thread=single",
            // Two nanoseconds each.
            "-icount",
            "shift=1,sleep=off",
        ]),
        Clock::Host => command.args(["-accel", "tcg,thread=multi"]),
    };
    command
        .args(["-smp", "2", "-m", MEMORY, "-no-reboot", "-nodefaults"])
        .arg("-append")
        .arg(format!("{COMMAND_LINE} {arguments}"))
        .arg("-kernel")
        .arg(&parts.kernel)
        .arg("-initrd")
        .arg(initramfs);
    for number in 0..DISKS {
        let disk = folder.join(format!("disk{number}"));
        // New for each run: no pool of the last one may be found on it.
        let _ = fs::remove_file(&disk);
        fs::File::create(&disk)?.set_len(DISK)?;
        command.arg("-drive").arg(format!(
            "file={},format=raw,if=virtio,cache=unsafe",
            disk.display()
        ));
    }
    Ok(command)
}

/// The last lines of a console.
fn end_of(console: &PathBuf) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().rev().take(100).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
