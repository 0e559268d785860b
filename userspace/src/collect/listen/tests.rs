mod fresh;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt as _,
    path::Path,
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

use super::*;
use fresh::{Fresh, run};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// The sums are of the whole node: live tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The folder of this process's cgroup v2.
fn own_cgroup() -> Option<PathBuf> {
    let (mounts, groups) = ("/proc/self/mounts", "/proc/self/cgroup");
    let (mounts, groups) = (
        fs::read_to_string(mounts).ok()?,
        fs::read_to_string(groups).ok()?,
    );
    let mount = mounts.lines().find_map(|line| {
        line.split(' ')
            .nth(1)
            .filter(|_| line.contains(" cgroup2 "))
    })?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(group))
}

/// Cgroups by their numbers.
fn unit(cgroup: u64) -> Arc<str> {
    cgroup.to_string().into()
}

/// Makes the next read list the namespaces and dump the listeners.
fn age(listeners: &mut Listeners) {
    let long_ago = Instant::now().checked_sub(DUMP);
    (listeners.listed, listeners.dumped) = (long_ago, long_ago);
    listeners.finder.distrust();
}

/// The drops of all units, by family and interface.
fn sum(listeners: &Listeners, family: &str, interface: &str) -> u64 {
    let of = |label: &Listening| label.family == family && &*label.interface == interface;
    listeners
        .drops()
        .iter()
        .filter(|(label, _)| of(label))
        .map(|(_, drops)| drops)
        .sum()
}

#[test]
fn equals_the_kernels_own_counters() {
    let _turn = turn();
    let Some(fresh) = Fresh::mounted("equal") else {
        return;
    };
    let first = fresh.listener(V4);
    fresh.flood(&first);
    let start = fresh.netstat();
    assert!(start.overflows > 0, "the queue did not overflow");

    // What was before the first read is the baseline.
    let mut listeners = Listeners::new();
    listeners.read(&unit).unwrap();
    assert_eq!((listeners.overflows(), sum(&listeners, "ipv4", "")), (0, 0));

    // No new listing, no new dump: the counters moved, so the drops are read.
    fresh.flood(&first);
    let now = fresh.netstat();
    listeners.read(&unit).unwrap();
    assert!(now.overflows > start.overflows);
    assert_eq!(listeners.overflows(), now.overflows - start.overflows);
    let ipv4 = now.drops - start.drops;
    assert_eq!(sum(&listeners, "ipv4", ""), ipv4);

    // Listeners first seen later count in full, in labels of their own.
    let second = fresh.listener(V6);
    fresh.flood(&second);
    let ipv6 = fresh.netstat().drops - now.drops;
    let bound = fresh.listener(V4);
    fresh
        .inside(|| setsockopt(&bound, BindToDevice, &"lo".into()))
        .unwrap();
    fresh.flood(&bound);
    let end = fresh.netstat();
    listeners.read(&unit).unwrap();
    assert!(ipv6 > 0);
    assert_eq!(sum(&listeners, "ipv4", ""), ipv4);
    assert_eq!(sum(&listeners, "ipv6", ""), ipv6);
    assert_eq!(sum(&listeners, "ipv4", "lo"), end.drops - now.drops - ipv6);
    assert_eq!(listeners.overflows(), end.overflows - start.overflows);

    // Closed and forgotten, then their namespace too: the sums stay.
    let before = (listeners.overflows(), listeners.drops().clone());
    let inode = fs::metadata(&fresh.path).unwrap().ino();
    assert_eq!(listeners.namespaces[&inode].sockets.len(), 3);
    drop((first, second, bound));
    for _ in 0..=MOST_MISSED {
        age(&mut listeners);
        listeners.read(&unit).unwrap();
    }
    assert_eq!(listeners.namespaces[&inode].sockets.len(), 0);
    drop(fresh);
    age(&mut listeners);
    listeners.read(&unit).unwrap();
    assert!(!listeners.namespaces.contains_key(&inode));
    assert_eq!(before, (listeners.overflows(), listeners.drops().clone()));
    assert_eq!(listeners.failures(), 0);
}

#[test]
fn a_process_holds_a_namespace() {
    let _turn = turn();
    let mut listeners = Listeners::new();
    listeners.read(&unit).unwrap();
    let Some(fresh) = Fresh::held() else { return };
    let listener = fresh.listener(V6);
    fresh.flood(&listener);
    let end = fresh.netstat();
    age(&mut listeners);
    listeners.read(&unit).unwrap();
    assert!(end.overflows > 0);
    assert_eq!(listeners.overflows(), end.overflows);
    assert_eq!(sum(&listeners, "ipv6", ""), end.drops);

    // The socket was made in the cgroup of this test.
    if let Some(folder) = own_cgroup() {
        let cgroup = unit(fs::metadata(folder).unwrap().ino());
        let counting = listeners.drops().iter().filter(|(_, drops)| **drops > 0);
        assert_eq!(
            counting
                .map(|(label, _)| label.unit.clone())
                .collect::<Vec<_>>(),
            [cgroup]
        );
    } else {
        println!("skipped: cgroup of a socket: no cgroup v2");
    }

    // Gone without a new listing: not an error, and nothing lost.
    drop((listener, fresh));
    listeners.read(&unit).unwrap();
    assert_eq!(
        (listeners.overflows(), listeners.failures()),
        (end.overflows, 0)
    );
}

#[test]
fn a_namespace_that_was_read_can_die() {
    let _turn = turn();
    let Some(fresh) = Fresh::mounted("dies") else {
        return;
    };
    let ours = format!("kld{}", process::id());
    let inode = fs::metadata(&fresh.path).unwrap().ino();
    let name = fresh
        .path
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let veth = [
        "ip", "link", "add", &ours, "type", "veth", "peer", "name", "eth0", "netns", &name,
    ];
    if !run(&veth) {
        return;
    }
    let mut listeners = Listeners::new();
    listeners.read(&unit).unwrap();
    assert!(listeners.namespaces[&inode].counted.is_some());
    drop(fresh);
    // Its end of the pair dies with it, and ours with its end.
    let ours = Path::new("/sys/class/net").join(ours);
    let died = (0..300).any(|_| {
        thread::sleep(Duration::from_millis(10));
        !ours.exists()
    });
    assert!(died, "something keeps the namespace alive");
}

/// What a namespace with one listener says.
fn view(cookie: u64, drops: u32) -> View {
    let socket = Socket {
        cookie: 7,
        cgroup: cookie,
        interface: 0,
        family: "ipv4",
        drops,
    };
    let netstat = Netstat {
        overflows: drops.into(),
        drops: drops.into(),
    };
    View {
        cookie,
        netstat,
        listeners: Some(Ok(vec![(socket, "".into())])),
    }
}

/// One that knows a namespace, from before the first read or not.
fn knowing(old: bool) -> Listeners {
    let namespaces = BTreeMap::from([(
        1,
        Namespace {
            old,
            ..Namespace::default()
        },
    )]);
    Listeners {
        namespaces,
        ..Listeners::default()
    }
}

#[test]
fn baselines_wraps_and_replacements() {
    for (old, first) in [(true, 0), (false, 10)] {
        let mut listeners = knowing(old);
        listeners.take(1, Some(view(5, 10)), &unit).unwrap();
        assert_eq!(
            (listeners.overflows(), sum(&listeners, "ipv4", "")),
            (first, first)
        );
        // A new namespace with the inode of a dead one: all of it is news.
        listeners.take(1, Some(view(6, 12)), &unit).unwrap();
        assert_eq!(
            (listeners.overflows(), sum(&listeners, "ipv4", "")),
            (first + 12, first + 12)
        );
    }
    let mut listeners = knowing(true);
    for (drops, sum_after) in [(u32::MAX - 1, 0), (3, 5), (2, 5), (4, 7)] {
        listeners.take(1, Some(view(5, drops)), &unit).unwrap();
        assert_eq!(sum(&listeners, "ipv4", ""), sum_after, "{drops}");
    }
    // An answer of a namespace that was never listed.
    listeners.take(2, Some(view(5, 99)), &unit).unwrap();
    assert_eq!(sum(&listeners, "ipv4", ""), 7);
}

#[test]
fn labels_are_bounded() {
    let mut listeners = knowing(false);
    for cookie in 0..2 * MOST_LABELS as u64 {
        listeners.take(1, Some(view(cookie, 1)), &unit).unwrap();
    }
    assert_eq!(listeners.drops().len(), MOST_LABELS + 1);
    assert_eq!(
        listeners.drops().values().sum::<u64>(),
        2 * MOST_LABELS as u64
    );
    let other = Listening {
        unit: OTHER.into(),
        interface: "".into(),
        family: "ipv4",
    };
    assert_eq!(listeners.drops()[&other], MOST_LABELS as u64);
    // Labels that never counted go with their listeners.
    let mut listeners = knowing(true);
    listeners.take(1, Some(view(1, 1)), &unit).unwrap();
    assert_eq!(listeners.drops().len(), 1);
    listeners.namespaces.clear();
    listeners.prune();
    assert_eq!(listeners.drops().len(), 0);
}
