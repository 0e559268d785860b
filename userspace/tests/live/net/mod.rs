//! Hosts of a test's own: a network namespace for the traffic and its
//! counters, a cgroup for the label `unit`, and a link between two of them.

mod delay;
mod socket;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use kldtrace::kernel::cgroup2;

use self::delay::{DelayLine, tun};
pub use self::socket::{Info, connect, disconnect, readable, reset, set_option};
use super::common::{proc_table, sh, wait_for};

/// The port that servers listen on: each has a namespace to itself.
pub const PORT: u16 = 7000;

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The value of the label `family`.
    pub fn label(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// Host `number` of the link.
    pub fn host(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 77, 0, number).into(),
            Self::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// An address behind the link's server, which knows no way to it.
    pub fn beyond(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 78, 0, 1).into(),
            Self::V6 => Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// Where the server listens.
    pub fn server(self) -> SocketAddr {
        SocketAddr::new(self.host(2), PORT)
    }
}

/// A network namespace and a cgroup, both removed when dropped.
pub struct Host {
    name: String,
    namespace: File,
    cgroup: PathBuf,
    /// Its end of the link; no other interface of the machine has this name.
    pub interface: String,
}

impl Host {
    fn new(name: String) -> Self {
        sh(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ));
        let cgroup = cgroup2::root().expect("cgroup v2").join(&name);
        fs::create_dir(&cgroup).unwrap();
        let host = Self {
            namespace: File::open(format!("/run/netns/{name}")).unwrap(),
            interface: name.clone(),
            cgroup,
            name,
        };
        // No waiting for duplicates of link-local addresses.
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
        // What one connection has learnt must not change the next.
        host.sysctl("net/ipv4/tcp_no_metrics_save", "1");
        // A test that fails should not wait two minutes for it.
        host.sysctl("net/ipv4/tcp_syn_retries", "3");
        // The test counts ICMP errors.
        host.sysctl("net/ipv4/icmp_ratelimit", "0");
        host.sysctl("net/ipv6/icmp/ratelimit", "0");
        host
    }

    /// The value of the label `unit`.
    pub fn unit(&self) -> &str {
        &self.name
    }

    /// The labels of its connections by its link.
    pub fn labels(&self, family: Family) -> [(&str, &str); 3] {
        [
            ("unit", self.unit()),
            ("interface", &self.interface),
            ("family", family.label()),
        ]
    }

    /// The same with another interface.
    pub fn labels_on<'a>(&'a self, interface: &'a str, family: Family) -> [(&'a str, &'a str); 3] {
        [
            ("unit", self.unit()),
            ("interface", interface),
            ("family", family.label()),
        ]
    }

    /// Runs something in its namespace.
    pub fn in_namespace<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        // A thread of its own: only it enters the namespace.
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // SAFETY: setns takes a descriptor, which is open.
                let entered =
                    unsafe { libc::setns(self.namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0, "{}", io::Error::last_os_error());
                run()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs something in its namespace and its cgroup: sockets made there are
    /// its own for good, whoever uses them. Keep it short, others wait.
    pub fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        in_cgroup(&self.cgroup, || self.in_namespace(run))
    }

    /// An unconnected TCP socket of its own.
    pub fn socket(&self, family: Family) -> TcpStream {
        let domain = match family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        self.within(|| {
            // SAFETY: socket takes numbers; the descriptor is new.
            let fd = unsafe { libc::socket(domain, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            // SAFETY: as above; nobody else owns it.
            TcpStream::from(unsafe { OwnedFd::from_raw_fd(fd) })
        })
    }

    /// A connection of its own to the link's server.
    pub fn connect(&self, family: Family) -> TcpStream {
        let stream = self.socket(family);
        connect(&stream, family.server()).unwrap();
        stream
    }

    /// A listening socket of its own, with all its addresses of a family.
    pub fn listen(&self, family: Family) -> TcpListener {
        self.within(|| TcpListener::bind(family.server())).unwrap()
    }

    /// Loads a rule set into its namespace, in place of any other.
    pub fn nft(&self, rules: &str) {
        let mut nft = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = nft.stdin.take().unwrap();
        write!(input, "flush ruleset\n{rules}\n").unwrap();
        drop(input);
        assert!(nft.wait().unwrap().success(), "{rules}");
    }

    /// Packets that a named counter of the table `inet t` has seen.
    pub fn nft_packets(&self, counter: &str) -> u64 {
        let command = format!(
            "ip netns exec {} nft list counter inet t {counter}",
            self.name
        );
        let text = sh(&command);
        let mut words = text.split_whitespace();
        words.find(|word| *word == "packets").unwrap();
        words.next().unwrap().parse().unwrap()
    }

    /// Sets a sysctl of its namespace, by its path below /proc/sys.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.in_namespace(|| fs::write(format!("/proc/sys/{path}"), value))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    /// A number of TCP in its namespace, of both families together.
    pub fn snmp(&self, column: &str) -> u64 {
        self.in_namespace(|| proc_table("/proc/thread-self/net/snmp", "Tcp", column))
    }

    /// Its TCP sockets that are neither listening nor closed nor in
    /// TIME_WAIT, orphans included.
    pub fn living(&self) -> usize {
        let sockets = self.in_namespace(|| {
            ["tcp", "tcp6"]
                .map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap())
        });
        let states = sockets.iter().flat_map(|text| {
            let rows = text.lines().skip(1);
            rows.filter_map(|row| row.split_whitespace().nth(3))
        });
        // include/net/tcp_states.h: TIME_WAIT, CLOSE, LISTEN
        states
            .filter(|state| !["06", "07", "0A"].contains(state))
            .count()
    }

    /// `ip` in its namespace.
    pub fn ip(&self, command: &str) {
        sh(&format!("ip -n {} {command}", self.name));
    }

    fn address(&self, number: u8) {
        for (family, mask, more) in [(Family::V4, 24, ""), (Family::V6, 64, "nodad")] {
            let (address, interface) = (family.host(number), &self.interface);
            self.ip(&format!(
                "address add {address}/{mask} dev {interface} {more}"
            ));
        }
        self.ip(&format!("link set {} up", self.interface));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.name])
            .status();
        // A thread that has been joined may not be quite gone: it stays where
        // it was, and a cgroup with a task in it is busy.
        for _ in 0..50 {
            if fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("left behind: {}", self.cgroup.display());
    }
}

/// Runs something in a cgroup, while others wait that want another.
pub fn in_cgroup<T>(cgroup: &Path, run: impl FnOnce() -> T) -> T {
    // A cgroup (that is not threaded) takes whole processes only.
    static MOVING: Mutex<()> = Mutex::new(());
    let _moving = MOVING.lock().unwrap_or_else(PoisonError::into_inner);
    let _stay = Stay::in_cgroup(cgroup);
    run()
}

/// The whole process in another cgroup; moves back when dropped.
struct Stay {
    home: PathBuf,
}

impl Stay {
    fn in_cgroup(cgroup: &Path) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let home = cgroup2::root().unwrap().join(own.unwrap());
        let stay = Self { home };
        fs::write(cgroup.join("cgroup.procs"), "0").unwrap();
        stay
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        if let Err(error) = fs::write(self.home.join("cgroup.procs"), "0") {
            eprintln!("{}: {error}", self.home.display());
        }
    }
}

/// Two hosts and the link between them: 10.77.0.1 and fd77::1 are the
/// client's, .2 and ::2 the server's.
pub struct Lab {
    pub client: Host,
    pub server: Host,
    _line: Option<DelayLine>,
}

impl Lab {
    /// Two hosts without a link.
    fn hosts() -> (Host, Host) {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}x{number}", std::process::id());
        (Host::new(format!("kc{id}")), Host::new(format!("ks{id}")))
    }

    /// A veth pair: as fast as it gets, with segmentation offload.
    pub fn veth() -> Self {
        let (client, server) = Self::hosts();
        client.ip(&format!(
            "link add {} type veth peer name {} netns {}",
            client.interface, server.interface, server.name
        ));
        client.address(1);
        server.address(2);
        Self::ready(client, server, None)
    }

    /// A line that holds each packet for a time.
    pub fn delayed(time: Duration) -> Self {
        let (client, server) = Self::hosts();
        let line = DelayLine::new(tun(&client), tun(&server), time);
        client.address(1);
        server.address(2);
        Self::ready(client, server, Some(line))
    }

    /// Waits until packets come through, both ways: a link that has just come
    /// up loses the first, and neighbours have to find each other.
    fn ready(client: Host, server: Host, line: Option<DelayLine>) -> Self {
        for family in Family::BOTH {
            for ((from, to), number) in [(&client, &server), (&server, &client)]
                .into_iter()
                .zip([2, 1])
            {
                let address = SocketAddr::new(family.host(number), PORT);
                let receiver = to.in_namespace(|| UdpSocket::bind(address)).unwrap();
                let sender = SocketAddr::new(family.host(3 - number), 0);
                let sender = from.in_namespace(|| UdpSocket::bind(sender)).unwrap();
                wait_for("the link", || {
                    // Refused while there is no route yet.
                    let _ = sender.send_to(b"?", address);
                    readable(receiver.as_fd(), Duration::from_millis(50))
                });
            }
        }
        Self {
            client,
            server,
            _line: line,
        }
    }
}
