//! Reading /proc/net/dev in every network namespace: the interfaces' own
//! counters, and the occasion for the probe `wg_peers` to look at each
//! interface's peers (probes/src/wireguard/walk.rs).

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow};

use super::listen::namespaces::{Finder, enter_namespace};
use crate::signals::wireguard::accounts::InterfaceAccount;

/// More than 10,000 interfaces say.
const MOST: u64 = 4 << 20;

/// Interfaces by the inode of their network namespace and their name.
pub type Interfaces = HashMap<(u64, String), InterfaceAccount>;

/// Reads the interfaces of all namespaces. `false`: not all could be read.
///
/// # Errors
/// When there is no /proc.
pub fn interfaces(finder: &mut Finder) -> Result<(Interfaces, bool)> {
    let listing = finder.list()?;
    let mut complete = listing.hidden == 0;
    let mut interfaces = Interfaces::new();
    let mut mounted = Vec::new();
    for (inode, path) in listing.paths {
        // A process's folder shows its namespace, without going there.
        match process_file(&path) {
            Some(file) => complete &= take_in(inode, &file, &mut interfaces),
            None => mounted.push((inode, path)),
        }
    }
    if !mounted.is_empty() {
        // What only a bind mount holds must be visited, by a thread that dies
        // there.
        let visitor = thread::Builder::new()
            .name("namespaces".into())
            .spawn(move || visit(mounted))
            .context("thread for network namespaces")?;
        let (found, all) = visitor
            .join()
            .map_err(|_| anyhow!("thread for network namespaces panicked"))?;
        interfaces.extend(found);
        complete &= all;
    }
    Ok((interfaces, complete))
}

fn process_file(path: &Path) -> Option<PathBuf> {
    let process = path.strip_prefix("/proc").ok()?;
    let process = process.components().next()?;
    Some(Path::new("/proc").join(process).join("net/dev"))
}

fn visit(namespaces: Vec<(u64, PathBuf)>) -> (Interfaces, bool) {
    let mut interfaces = Interfaces::new();
    let mut complete = true;
    for (inode, path) in namespaces {
        match enter_namespace(&path, inode) {
            Ok(true) => {
                let file = Path::new("/proc/thread-self/net/dev");
                complete &= take_in(inode, file, &mut interfaces);
            }
            // It has just gone.
            Ok(false) => {}
            Err(error) => {
                let error = format!("{error:#}");
                tracing::debug!(path = %path.display(), %error, "namespace not visited");
                complete = false;
            }
        }
    }
    (interfaces, complete)
}

/// `false`: it could not be read, though its namespace is there.
fn take_in(inode: u64, file: &Path, into: &mut Interfaces) -> bool {
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(MOST).read_to_string(&mut text));
    match read {
        Ok(_) => {
            into.extend(parse(&text).map(|(name, account)| ((inode, name), account)));
            true
        }
        // Its process has ended: another may be there, of which the next
        // listing knows.
        Err(_) => fs::metadata(file).is_ok(),
    }
}

/// `dev_seq_printf_stats` of net/core/net-procfs.c: a line of 16 numbers for
/// each interface, below two lines of names.
fn parse(text: &str) -> impl Iterator<Item = (String, InterfaceAccount)> + '_ {
    text.lines().skip(2).filter_map(|line| {
        // A name has no space, but may have a colon.
        let (name, numbers) = line.rsplit_once(':')?;
        let numbers: Vec<u64> = numbers
            .split_ascii_whitespace()
            .map_while(|number| number.parse().ok())
            .collect();
        let account = InterfaceAccount {
            received: *numbers.get(1)?,
            received_errors: *numbers.get(2)?,
            received_dropped: *numbers.get(3)?,
            sent: *numbers.get(9)?,
            sent_errors: *numbers.get(10)?,
            sent_dropped: *numbers.get(11)?,
        };
        Some((name.trim_start().to_owned(), account))
    })
}

const KALLSYMS: &str = "/proc/kallsyms";

/// The address of a symbol of the kernel.
///
/// # Errors
/// When the kernel does not tell it.
pub fn address(symbol: &str) -> Result<u64> {
    let text = fs::read(KALLSYMS).context(KALLSYMS)?;
    let address = text
        .split(|&byte| byte == b'\n')
        .filter_map(|line| str::from_utf8(line).ok())
        .find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?;
            (words.nth(1)? == symbol && words.next().is_none()).then_some(address)
        })
        .with_context(|| format!("no symbol {symbol} in {KALLSYMS}"))?;
    match u64::from_str_radix(address, 16) {
        Ok(0) => Err(anyhow!(
            "{KALLSYMS} hides addresses (kernel.kptr_restrict, or no CAP_SYSLOG)"
        )),
        other => other.with_context(|| format!("{KALLSYMS}: {symbol} at {address:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
wg-storage: 1480      10    1    2    0     1          0         0     2960      20    3    4    0     0       0          0
 eth0:1:  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
";

    #[test]
    fn interfaces_by_name() {
        let all: HashMap<_, _> = parse(TEXT).collect();
        assert_eq!(all.len(), 3);
        assert_eq!(
            all["wg-storage"],
            InterfaceAccount {
                received: 10,
                received_errors: 1,
                received_dropped: 2,
                sent: 20,
                sent_errors: 3,
                sent_dropped: 4,
            }
        );
        assert_eq!(all["eth0:1"].sent, 10);
    }

    #[test]
    fn what_is_cut_short_is_left_out() {
        for length in 0..TEXT.len() {
            let _ = parse(&TEXT[..length]).count();
        }
        assert_eq!(parse("a\nb\nwg0: 1 2 3").count(), 0);
        assert_eq!(parse("a\nb\nwg0: 1 -2 3 4 5 6 7 8 9 10 11 12").count(), 0);
    }

    #[test]
    fn a_process_shows_its_namespace() {
        let own = process_file(Path::new("/proc/self/ns/net"));
        assert_eq!(own.as_deref(), Some(Path::new("/proc/self/net/dev")));
        assert_eq!(process_file(Path::new("/run/netns/a")), None);
    }

    #[test]
    fn this_machine_has_interfaces() {
        let (interfaces, _) = interfaces(&mut Finder::default()).unwrap();
        assert!(interfaces.keys().any(|(_, name)| name == "lo"));
    }
}
