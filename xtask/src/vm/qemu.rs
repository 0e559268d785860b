//! Booting a guest, saving it, and listening to it when it goes on.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::booted::Booted;
use super::build::Parts;
use super::given;
use super::initramfs::Root;
use super::matrix::Clock;
use crate::sh;

/// Disks of a guest, for pools and the like.
pub const DISKS: usize = 6;
/// Size of each; the files are sparse.
pub const DISK: u64 = 512 << 20;
const MEMORY: &str = "2048";
const COMMAND_LINE: &str =
    "console=ttyS0 panic=-1 quiet loglevel=4 mitigations=off nokaslr tsc=reliable rdinit=/init";
/// What emulates.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// How long a boot may take: some 20 s with nothing beside it.
const BOOT: Duration = Duration::from_mins(10);
/// What a kernel that has crashed says, whatever of (`__die_header` of
/// arch/x86/kernel/dumpstack.c).
const CRASHED: &str = "[#1]";
/// What the guest says when it has booted.
const READY: &str = "kldtrace-guest-ready";
/// What is then said to QEMU's monitor. It stops the guest when it has all.
const SAVE: &str = "migrate_set_parameter max-bandwidth 64G\n\
    migrate \"exec:exec cat > \\\"$STATE\\\"\"\ninfo migrate\nquit\n";
/// What the guest says last.
const ENDED: &str = "kldtrace-guest-ended ";

/// The parts of a guest's machine that do not depend on a run.
pub fn machine(parts: &Parts, arguments: &str) -> Vec<String> {
    // Emulation, also where /dev/kvm exists: on hosts that are guests
    // themselves stock kernels may not boot under it.
    let mut machine = vec!["-machine", "q35", "-cpu", "max", "-accel"];
    machine.extend(match parts.clock {
        // One thread for all processors: what counts instructions needs it.
        // Two nanoseconds each.
        Clock::Instructions => &["tcg,thread=single", "-icount", "shift=1,sleep=off"][..],
        Clock::Host => &["tcg,thread=multi"],
    });
    machine.extend(["-smp", "2", "-m", MEMORY, "-no-reboot", "-nodefaults"]);
    machine.extend(["-display", "none", "-device", "virtio-serial-pci"]);
    machine.extend(["-device", "virtserialport,chardev=results,name=results"]);
    let mut machine: Vec<_> = machine.into_iter().map(str::to_owned).collect();
    machine.push("-append".to_owned());
    machine.push(format!("{COMMAND_LINE} {arguments}"));
    machine
}

/// Boots a guest with this root until it waits for what it is given, and saves
/// it in `folder`, as `state`.
///
/// # Errors
/// When it does not boot, or is not saved.
pub fn boot(parts: &Parts, root: &Root, arguments: &str, folder: &Path) -> Result<()> {
    let console = folder.join("console");
    let nothing = folder.join("nothing");
    File::create(&nothing)?.set_len(given::SIZE)?;
    let mut command = command(parts, root, arguments, &nothing)?;
    command
        .args(["-chardev", "file,id=results,path=/dev/stderr"])
        .args(["-monitor", "stdio", "-serial"])
        .arg(format!("file:{}", console.display()))
        .env("STATE", folder.join("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start qemu")?;
    let (mut monitor, said, results) = (
        child.stdin.take().context("no standard input")?,
        child.stdout.take().context("no standard output")?,
        child.stderr.take().context("no standard error")?,
    );
    let (mut ready, mut heard) = (false, String::new());
    listen(results, BOOT, |text| {
        heard.push_str(text);
        heard.push('\n');
        // The monitor takes one command after the other.
        ready = text.contains(READY)
            && monitor.write_all(SAVE.as_bytes()).is_ok()
            && monitor.flush().is_ok();
        !ready
    });
    if !ready {
        let _ = child.kill();
    }
    let said = io::read_to_string(said)?;
    child.wait()?;
    if !ready {
        bail!(
            "the guest did not boot: {heard}\nits console:\n{}",
            end_of(&console)
        );
    }
    if !said.contains("Migration status: completed") {
        bail!("qemu did not save the guest: {said}");
    }
    // Some crashes end a process of the guest, and not the guest.
    if end_of(&console).contains(CRASHED) {
        bail!("the guest crashed; its console:\n{}", end_of(&console));
    }
    (0..DISKS).try_for_each(|number| fs::remove_file(disk(&nothing, number)))?;
    Ok(fs::remove_file(nothing)?)
}

/// Lets a guest that has booted go on with a disk of what it is given, beside
/// which its own are made; `line` takes what it says. Returns the status of its
/// script.
///
/// # Errors
/// When it crashes, or is not done in time.
pub fn run(
    booted: &Booted,
    given: &Path,
    limit: Duration,
    mut line: impl FnMut(&str),
) -> Result<i32> {
    let console = given.with_file_name("console");
    let mut command = goes_on(booted, given)?;
    command
        .args(["-chardev", "file,id=results,path=/dev/stdout"])
        .args(["-monitor", "none", "-serial"])
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot start qemu")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut ended = None;
    let in_time = listen(stdout, limit, |text| {
        match text.trim_end().strip_prefix(ENDED) {
            Some(status) => ended = status.parse().ok(),
            None => line(text.trim_end_matches('\r')),
        }
        ended.is_none()
    });
    // Nobody needs its disks any more, nor that it powers off.
    let _ = child.kill();
    child.wait()?;
    let outcome = if in_time {
        "the guest ended early"
    } else {
        "the guest was not done in time"
    };
    match ended {
        Some(status) => Ok(status),
        None => bail!(
            "{outcome}; it went on from {}; its console, {}:\n{}",
            booted.state.display(),
            console.display(),
            end_of(&console)
        ),
    }
}

/// Hands on lines as they come, until there are no more or `line` wants no
/// more; whether that was in time.
fn listen(
    from: impl Read + Send + 'static,
    limit: Duration,
    mut line: impl FnMut(&str) -> bool,
) -> bool {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for text in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&text).into_owned();
            // What nobody wants is read all the same: the guest would wait.
            let _ = send.send(text);
        }
    });
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match receive.recv_timeout(left) {
            Ok(text) if line(&text) => {}
            Ok(_) | Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}

/// Lets a guest go on whose console is this terminal.
///
/// # Errors
/// When qemu cannot be started.
pub fn shell(booted: &Booted, given: &Path) -> Result<ExitStatus> {
    let mut command = goes_on(booted, given)?;
    command.args(["-chardev", "null,id=results", "-serial", "mon:stdio"]);
    command.status().context("cannot start qemu")
}

/// A guest that goes on from where its boot ended.
fn goes_on(booted: &Booted, given: &Path) -> Result<Command> {
    let mut command = command(&booted.parts, &booted.root, booted.arguments, given)?;
    command
        .args(["-incoming", "exec:exec cat \"$STATE\""])
        .env("STATE", &booted.state);
    Ok(command)
}

fn command(parts: &Parts, root: &Root, arguments: &str, given: &Path) -> Result<Command> {
    let mut command = match parts.clock {
        // Others first: its clock does not care.
        Clock::Instructions => {
            let mut command = sh::command("nice");
            command.args(["-n", "19", PROGRAM]);
            command
        }
        Clock::Host => sh::command(PROGRAM),
    };
    command
        .args(machine(parts, arguments))
        .arg("-kernel")
        .arg(&parts.kernel)
        .arg("-initrd")
        .arg(&root.archive);
    let drive = |file: &Path, rest: &str| {
        let file = file.display();
        [
            "-drive".to_owned(),
            format!("file={file},format=raw,if=virtio,{rest}"),
        ]
    };
    for number in 0..DISKS {
        let disk = disk(given, number);
        // New for each run: no pool of the last one may be found on it.
        let _ = fs::remove_file(&disk);
        File::create(&disk)?.set_len(DISK)?;
        command.args(drive(&disk, "cache=unsafe"));
    }
    command.args(drive(given, "readonly=on"));
    Ok(command)
}

/// One of a guest's own disks.
fn disk(given: &Path, number: usize) -> PathBuf {
    given.with_file_name(format!("disk{number}"))
}

/// The last lines of a console.
fn end_of(console: &PathBuf) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().rev().take(100).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
