//! Network namespaces to overflow listeners in.

use std::{
    fs,
    net::{IpAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Child, Command},
    thread,
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{Backlog, listen},
};

use super::Netstat;

/// Connects of which at least some find the queue full.
const CONNECTS: usize = 20;

/// A network namespace of its own, held by a bind mount or by a process.
pub struct Fresh {
    pub path: PathBuf,
    holder: Option<Child>,
}

impl Fresh {
    /// `None`, with the reason printed, where this machine has none to give.
    pub fn mounted(name: &str) -> Option<Self> {
        let name = format!("kldtrace-{name}-{}", process::id());
        run(&["ip", "netns", "add", &name])
            .then(|| Self {
                path: Path::new("/run/netns").join(name),
                holder: None,
            })?
            .up()
    }

    /// `None`, with the reason printed, where this machine has none to give.
    pub fn held() -> Option<Self> {
        let Ok(holder) = Command::new("unshare")
            .args(["--net", "sleep", "60"])
            .spawn()
        else {
            println!("skipped: no unshare(1)");
            return None;
        };
        let path = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        let fresh = Self {
            path,
            holder: Some(holder),
        };
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(10));
            if fs::metadata(&fresh.path).ok()?.ino()
                != fs::metadata("/proc/self/ns/net").ok()?.ino()
            {
                return fresh.up();
            }
        }
        println!("skipped: unshare(1) gives no network namespace");
        None
    }

    fn up(self) -> Option<Self> {
        self.inside(|| run(&["ip", "link", "set", "lo", "up"]))
            .then_some(self)
    }

    /// Runs `work` in the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(&self.path).unwrap();
        let enter = || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// A listener that holds at most two connections.
    pub fn listener(&self, address: IpAddr) -> TcpListener {
        self.inside(|| {
            let listener = TcpListener::bind((address, 0)).unwrap();
            listen(&listener, Backlog::new(1).unwrap()).unwrap();
            listener
        })
    }

    /// Overflows the listener's queue.
    pub fn flood(&self, listener: &TcpListener) {
        let address = listener.local_addr().unwrap();
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(10));
        self.inside(|| (0..CONNECTS).map(connect).collect::<Vec<_>>());
    }

    /// Its counters, when they have come to rest.
    pub fn netstat(&self) -> Netstat {
        let mut last = self.inside(netstat);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(200));
            let next = self.inside(netstat);
            if next == last {
                break;
            }
            last = next;
        }
        last
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            let _ = holder.kill();
            let _ = holder.wait();
        } else {
            run(&[
                "ip",
                "netns",
                "del",
                &self.path.file_name().unwrap().to_string_lossy(),
            ]);
        }
    }
}

/// Runs a command; prints why a test is skipped when it fails.
pub fn run(command: &[&str]) -> bool {
    match Command::new(command[0]).args(&command[1..]).output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => {
            println!(
                "skipped: {command:?}: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Err(error) => println!("skipped: {command:?}: {error}"),
    }
    false
}

/// The counters of this thread's namespace, as nstat(8) would find them.
fn netstat() -> Netstat {
    let text = fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().unwrap().split(' ').collect();
    let numbers: Vec<_> = lines.next().unwrap().split(' ').collect();
    let counter = |name| numbers[names.iter().position(|&other| other == name).unwrap()];
    Netstat {
        overflows: counter("ListenOverflows").parse().unwrap(),
        drops: counter("ListenDrops").parse().unwrap(),
    }
}
