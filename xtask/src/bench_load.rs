//! `cargo xtask bench-load`: the loads that `bench` measures under.
//!
//! Each is a process of its own, so that its CPU affinity, its cgroup and its
//! end are its own; it prints how much it got done in a second.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// The load to make.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    load: Load,
}

#[derive(clap::Subcommand)]
enum Load {
    /// One byte to and fro between two processes on one CPU.
    Pingpong {
        #[arg(long)]
        cpu: usize,
        #[arg(long)]
        seconds: u64,
    },
    /// The other end of ping-pong.
    Pong,
    /// Random direct reads of 4 KiB in a file here, and synced writes.
    Block {
        #[arg(long)]
        seconds: u64,
    },
    /// Connections over loopback, each with some traffic.
    Tcp {
        /// Both ends on this CPU; without it, wherever they come to run.
        #[arg(long)]
        cpu: Option<usize>,
        #[arg(long)]
        seconds: u64,
    },
    /// Reads of 4 KiB that the file system's cache serves; prints the
    /// nanoseconds that one takes.
    CachedReads { file: PathBuf, count: u64 },
    /// Appends of 4 KiB, each synced; prints the nanoseconds that one takes.
    Fsyncs { file: PathBuf, count: u64 },
    /// Sleeps and wakes in one cgroup after the other.
    Wander { cgroups: Vec<PathBuf> },
}

/// Runs the load.
pub fn main(args: &Args) -> Result<ExitCode> {
    match &args.load {
        Load::Pingpong { cpu, seconds } => pingpong(*cpu, Duration::from_secs(*seconds))?,
        Load::Pong => pong()?,
        Load::Block { seconds } => block(Duration::from_secs(*seconds))?,
        Load::Tcp { cpu, seconds } => tcp(*cpu, Duration::from_secs(*seconds))?,
        Load::CachedReads { file, count } => cached_reads(file, *count)?,
        Load::Fsyncs { file, count } => fsyncs(file, *count)?,
        Load::Wander { cgroups } => wander(cgroups)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Repeats `work` for `time` and prints how often in a second.
fn repeat(time: Duration, what: &str, mut work: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let mut count = 0_u64;
    while start.elapsed() < time {
        work()?;
        count += 1;
    }
    println!(
        "{:.1} {what}/s",
        count as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Binds this thread, and those that it starts.
fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("CPU {cpu}"))
}

fn pingpong(cpu: usize, time: Duration) -> Result<()> {
    // The child inherits it.
    stay_on(cpu)?;
    let mut pong = Command::new(std::env::current_exe()?)
        .args(["bench-load", "pong"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the other end")?;
    let mut to = pong.stdin.take().context("no pipe to the other end")?;
    let mut from = pong.stdout.take().context("no pipe from the other end")?;
    let mut byte = [0];
    repeat(time, "round trips", || {
        to.write_all(&byte)?;
        Ok(from.read_exact(&mut byte)?)
    })?;
    drop(to);
    pong.wait()?;
    Ok(())
}

/// Unbuffered, until the other end closes.
fn pong() -> Result<()> {
    let mut from = File::open("/proc/self/fd/0")?;
    let mut to = OpenOptions::new().write(true).open("/proc/self/fd/1")?;
    let mut byte = [0];
    while from.read(&mut byte)? == 1 {
        to.write_all(&byte)?;
    }
    Ok(())
}

/// What O_DIRECT asks for: memory that is aligned as the device's blocks are.
#[repr(align(4096))]
struct Page([u8; 4096]);

fn block(time: Duration) -> Result<()> {
    const PAGES: u64 = 16_384;
    let path = Path::new("block.load");
    fs::write(path, vec![0x5a; 4096 * PAGES as usize]).context("cannot write block.load")?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(path)
        .context("cannot open block.load for direct access")?;
    file.sync_all()?;
    let mut page = Page([0; 4096]);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut turn = 0_u64;
    repeat(time, "requests", || {
        // Marsaglia's xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let place = random % PAGES * 4096;
        turn += 1;
        if turn.is_multiple_of(8) {
            file.write_all_at(&page.0, place)?;
            file.sync_data()?;
        } else {
            file.read_exact_at(&mut page.0, place)?;
        }
        Ok(())
    })?;
    Ok(fs::remove_file(path)?)
}

fn tcp(cpu: Option<usize>, time: Duration) -> Result<()> {
    cpu.map_or(Ok(()), stay_on)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // Ends with the process.
    thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .try_for_each(|stream| echo(&stream))
    });
    let mut buffer = vec![0; 16 * 1024];
    repeat(time, "connections", || {
        let mut stream = TcpStream::connect(address)?;
        for _ in 0..16 {
            stream.write_all(&buffer)?;
            stream.read_exact(&mut buffer)?;
        }
        Ok(())
    })
}

fn echo(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

fn cached_reads(path: &Path, count: u64) -> Result<()> {
    const BLOCKS: u64 = 256;
    fs::write(path, vec![0x5a; 4096 * BLOCKS as usize]).context("cannot write the file")?;
    let file = File::open(path)?;
    each(count, |turn| {
        Ok(file.read_exact_at(&mut [0; 4096], turn % BLOCKS * 4096)?)
    })
}

fn fsyncs(path: &Path, count: u64) -> Result<()> {
    let mut file = File::create(path).context("cannot make the file")?;
    each(count, |_| {
        file.write_all(&[0x5a; 4096])?;
        Ok(file.sync_all()?)
    })
}

/// Does `work` so often, and prints the nanoseconds that each took.
fn each(count: u64, mut work: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let start = Instant::now();
    for turn in 0..count {
        work(turn)?;
    }
    println!("{}", start.elapsed().as_nanos() / u128::from(count.max(1)));
    Ok(())
}

/// Leaves a few waits of every kind in each cgroup, and ends outside of them.
fn wander(cgroups: &[PathBuf]) -> Result<()> {
    let enter = |cgroup: &Path| {
        // 0 is whoever writes.
        let file = cgroup.join("cgroup.procs");
        fs::write(&file, "0").with_context(|| format!("cannot write {}", file.display()))
    };
    for cgroup in cgroups {
        enter(cgroup)?;
        for _ in 0..3 {
            thread::sleep(Duration::from_micros(100));
            thread::yield_now();
        }
    }
    let root = cgroups.first().and_then(|cgroup| cgroup.parent());
    root.map_or(Ok(()), enter)
}
