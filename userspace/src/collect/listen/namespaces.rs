//! The network namespaces of the node, and visits to them.
//!
//! Nothing of a namespace is kept open between visits: an open socket, or an
//! open file below its /proc/net, keeps the namespace and its interfaces alive
//! after the last process and bind mount of it are gone.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, Read as _},
    mem,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    net::if_::if_indextoname,
    sched::{CloneFlags, setns},
};

use super::netlink::{Diag, Socket};

/// This process's namespace, which is visited without capabilities.
const OWN: &str = "/proc/self/ns/net";
/// The link to a process's namespace, below its folder.
const LINK: &str = "ns/net";
/// How long the namespace of a process is taken to be the one it was in: to
/// ask costs 3 us a process.
const WALK: Duration = Duration::from_mins(1);
/// Where `ip netns` and the container runtimes hold namespaces by bind mounts.
const MOUNTS: [&str; 2] = ["/run/netns", "/var/run/netns"];
/// Far more than /proc/net/netstat says.
const MOST_NETSTAT: u64 = 1 << 16;

/// The network namespaces that exist.
pub struct Listing {
    /// Inode of the namespace to a path that leads there.
    pub paths: BTreeMap<u64, PathBuf>,
    /// Processes of other namespaces that this daemon may not see.
    pub hidden: usize,
}

/// `ListenOverflows` and `ListenDrops` of a namespace since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Netstat {
    pub overflows: u64,
    pub drops: u64,
}

/// A namespace to visit.
pub struct Stop {
    pub inode: u64,
    pub path: PathBuf,
    /// Its cookie and counters at the last visit that read its listeners:
    /// where they have not moved, the listeners are not read again.
    pub known: Option<(u64, Netstat)>,
}

/// A listener and the name of the interface that it is bound to.
pub type Named = (Socket, Arc<str>);

/// What a namespace says.
pub struct View {
    pub cookie: u64,
    pub netstat: Netstat,
    /// Its listeners with the names of their interfaces, unless nothing moved.
    pub listeners: Option<Result<Vec<Named>>>,
}

/// Finds namespaces.
#[derive(Debug, Default)]
pub struct Finder {
    /// Process to the inode of its namespace.
    known: HashMap<u32, u64>,
    walked: Option<Instant>,
}

impl Finder {
    /// Finds the namespaces of processes, and those held by bind mounts.
    /// Namespaces that only a thread other than a process's first is in are
    /// not seen; a process that changes namespaces is seen at the next [`WALK`].
    pub fn list(&mut self) -> Result<Listing> {
        let own = fs::metadata(OWN).context(OWN)?;
        let mut listing = Listing {
            paths: BTreeMap::from([(own.ino(), OWN.into())]),
            hidden: 0,
        };
        for entry in MOUNTS
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok())
            .flatten()
            .flatten()
        {
            let path = entry.path();
            // A file of another file system is a name whose mount is gone.
            if let Ok(found) = fs::metadata(&path)
                && found.dev() == own.dev()
            {
                listing.paths.entry(found.ino()).or_insert(path);
            }
        }
        if self.walked.is_none_or(|walked| walked.elapsed() >= WALK) {
            self.known.clear();
            self.walked = Some(Instant::now());
        }
        let before = mem::take(&mut self.known);
        for entry in fs::read_dir("/proc").context("/proc")?.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let process = entry.path();
            let inode = before
                .get(&pid)
                .map_or_else(|| namespace_of(&process, own.ino()), |&inode| Ok(inode));
            match inode {
                Ok(inode) => {
                    self.known.insert(pid, inode);
                    listing
                        .paths
                        .entry(inode)
                        .or_insert_with(|| process.join(LINK));
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    listing.hidden += 1;
                }
                // It has exited.
                Err(_) => {}
            }
        }
        Ok(listing)
    }

    /// Has the next listing look at every process again.
    pub fn distrust(&mut self) {
        self.walked = None;
    }
}

/// The inode of a process's namespace. A process that may not be asked can
/// still be told to be in `own`: each namespace has its own inodes below
/// /proc/[pid]/net, which are shown to all (`proc_tgid_net_lookup`,
/// fs/proc/proc_net.c).
fn namespace_of(process: &Path, own: u64) -> io::Result<u64> {
    let inode = |path: &Path| fs::metadata(path).map(|found| found.ino());
    inode(&process.join(LINK)).or_else(|error| {
        let in_own = error.kind() == io::ErrorKind::PermissionDenied
            && inode(&process.join("net/netstat"))? == inode(Path::new("/proc/self/net/netstat"))?;
        if in_own { Ok(own) } else { Err(error) }
    })
}

/// The answer of a namespace; `None`: its path leads there no longer.
pub type Answer = (u64, Result<Option<View>>);

/// Visits the namespaces: its own in this thread, the others in one that dies
/// in the last of them.
pub fn visit(stops: Vec<Stop>) -> Result<Vec<Answer>> {
    let own = fs::metadata(OWN).context(OWN)?.ino();
    let (here, others): (Vec<_>, Vec<_>) = stops.into_iter().partition(|stop| stop.inode == own);
    let mut answers = walk(here, |_| Ok(true));
    if !others.is_empty() {
        let walker = thread::Builder::new()
            .name("namespaces".into())
            .spawn(|| walk(others, enter))
            .context("thread for network namespaces")?;
        answers.extend(
            walker
                .join()
                .map_err(|_| anyhow!("thread for network namespaces panicked"))?,
        );
    }
    Ok(answers)
}

fn walk(stops: Vec<Stop>, enter: fn(&Stop) -> Result<bool>) -> Vec<Answer> {
    let mut buffer = Vec::with_capacity(1 << 14);
    let answers = stops.into_iter().map(|stop| {
        let answer = enter(&stop)
            .and_then(|entered| entered.then(|| look(stop.known, &mut buffer)).transpose())
            .with_context(|| format!("network namespace {}", stop.path.display()));
        (stop.inode, answer)
    });
    answers.collect()
}

fn enter(stop: &Stop) -> Result<bool> {
    enter_namespace(&stop.path, stop.inode)
}

/// Takes this thread into a namespace; `false`: its path leads there no longer.
///
/// # Errors
/// When the kernel refuses.
pub fn enter_namespace(path: &Path, inode: u64) -> Result<bool> {
    let gone = |error: &io::Error| {
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
    };
    let file = match File::open(path) {
        Err(error) if gone(&error) => return Ok(false),
        other => other.context("open (needs CAP_SYS_PTRACE)")?,
    };
    if file.metadata()?.ino() != inode {
        return Ok(false);
    }
    setns(&file, CloneFlags::CLONE_NEWNET)
        .context("setns (needs CAP_SYS_ADMIN, and RestrictNamespaces= must allow net)")?;
    Ok(true)
}

/// Reads the namespace of this thread.
fn look(known: Option<(u64, Netstat)>, buffer: &mut Vec<u8>) -> Result<View> {
    let path = Path::new("/proc/thread-self/net/netstat");
    buffer.clear();
    File::open(path)
        .and_then(|file| file.take(MOST_NETSTAT).read_to_end(buffer))
        .with_context(|| path.display().to_string())?;
    let netstat = netstat(buffer).with_context(|| format!("{}: no ListenDrops", path.display()))?;
    let mut diag = Diag::open()?;
    let cookie = diag.namespace();
    // After the counters: what is dropped in between moves them next time.
    let listeners = (known != Some((cookie, netstat))).then(|| diag.listeners().map(name));
    Ok(View {
        cookie,
        netstat,
        listeners,
    })
}

/// Names the interfaces that listeners are bound to, in their own namespace.
fn name(sockets: Vec<Socket>) -> Vec<Named> {
    let mut known = HashMap::<u32, Arc<str>>::from([(0, "".into())]);
    let named = sockets.into_iter().map(|socket| {
        let name = known.entry(socket.interface).or_insert_with(|| {
            if_indextoname(socket.interface).map_or("".into(), |name| name.to_string_lossy().into())
        });
        (socket, name.clone())
    });
    named.collect()
}

/// Finds the two counters in /proc/net/netstat, which has a line of names
/// above each line of numbers (`netstat_seq_show`, net/ipv4/proc.c).
fn netstat(text: &[u8]) -> Option<Netstat> {
    let whole = str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let mut lines = whole
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut netstat = (None, None);
    for (name, number) in names
        .split_ascii_whitespace()
        .zip(numbers.split_ascii_whitespace())
    {
        match name {
            "ListenOverflows" => netstat.0 = number.parse().ok(),
            "ListenDrops" => netstat.1 = number.parse().ok(),
            _ => {}
        }
    }
    Some(Netstat {
        overflows: netstat.0?,
        drops: netstat.1?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_by_their_names() {
        let text =
            b"TcpExt: A ListenOverflows ListenDrops B\nTcpExt: 1 22 333 4\nIpExt: A\nIpExt: 5\n";
        assert_eq!(
            netstat(text),
            Some(Netstat {
                overflows: 22,
                drops: 333
            })
        );
        for length in 0..text.len() {
            // Read once both lines of its pair are there, and no line is cut.
            let whole = length > 58 && text[..length].ends_with(b"\n");
            assert_eq!(netstat(&text[..length]).is_some(), whole, "{length}");
        }
        for hostile in [
            &b""[..],
            b"\xff\xfe",
            b"TcpExt: ListenOverflows ListenDrops\n",
            b"TcpExt: ListenOverflows ListenDrops\nTcpExt: 1\n",
            b"TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 -1\n",
            b"TcpExt: ListenOverflows\nTcpExt: 99999999999999999999\n",
        ] {
            assert_eq!(netstat(hostile), None);
        }
    }
}
