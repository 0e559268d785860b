//! A node and its peer, as namespaces with a link between them, and a place of
//! its own for what the node keeps.

use std::{
    fs::File,
    io::ErrorKind,
    net::UdpSocket,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use kldtrace::planes::{
    change::Change,
    interfaces,
    roots::Roots,
    saved::Files,
    state::{Lock, State},
    status::{self, Report},
};

/// Longest wait for something that must come.
pub const LIMIT: Duration = Duration::from_mins(1);
/// A port that the test's policies all let in.
pub const MARK: u16 = 7003;

/// Runs a shell's command; says whether it went well.
pub fn sh(command: &str) -> bool {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    output.status.success()
}

/// Waits for something that must come.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "{what} did not come");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs something in a namespace, in a thread of its own.
pub fn within<T: Send>(name: &str, run: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: setns takes a descriptor, which is open.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0);
            run()
        });
        thread.join().unwrap()
    })
}

/// The node; gone when dropped.
pub struct Node {
    pub name: String,
    pub peer: String,
    folder: tempfile::TempDir,
    pub roots: Roots,
}

impl Node {
    /// `tag` tells tests from each other; `None`: needs root.
    pub fn new(tag: &str) -> Option<Self> {
        if !super::super::kernel::root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let bpf = folder.path().join("bpf");
        let node = Self {
            name: format!("kldn{tag}"),
            peer: format!("kldp{tag}"),
            roots: Roots::under(folder.path()),
            folder,
        };
        let (name, peer) = (&node.name, &node.peer);
        // A test that was killed leaves its namespaces behind.
        sh(&format!("ip netns del {name}; ip netns del {peer}"));
        assert!(sh(&format!(
            "mkdir {bpf} && mount -t bpf bpf {bpf} && \
             ip netns add {name} && ip netns add {peer} && \
             ip -n {name} link set lo up && ip -n {peer} link set lo up",
            bpf = bpf.display()
        )));
        node.link();
        Some(node)
    }

    /// Makes a link that is up, with addresses 10.97.0.1 and .2.
    pub fn link(&self) {
        self.pair();
        self.raise();
    }

    /// Makes the link.
    pub fn pair(&self) {
        let (name, peer) = (&self.name, &self.peer);
        assert!(sh(&format!(
            "ip link add node netns {name} type veth peer name peer netns {peer}"
        )));
    }

    /// Gives its ends their addresses, and brings them up.
    pub fn raise(&self) {
        let (name, peer) = (&self.name, &self.peer);
        assert!(sh(&format!(
            "ip -n {peer} addr add 10.97.0.2/24 dev peer && ip -n {peer} link set peer up && \
             ip -n {name} addr add 10.97.0.1/24 dev node && ip -n {name} link set node up"
        )));
    }

    /// Takes everything away that was applied.
    pub fn forget(&self) {
        sh(&format!("rm -rf {}", self.roots.state.display()));
        self.forget_pins();
    }

    /// As a start of the machine does.
    pub fn forget_pins(&self) {
        let bpf = self.folder().join("bpf");
        assert!(sh(&format!(
            "umount {0} && mount -t bpf bpf {0}",
            bpf.display()
        )));
        wait_for("an end of all programs", || {
            let interfaces = within(&self.name, || interfaces::all().unwrap());
            interfaces.iter().all(|one| one.xdp.is_none()).then_some(())
        });
    }

    /// The folder of everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A policy of one plane on the interface, which lets UDP to these ports
    /// in, and to [`MARK`].
    pub fn policy(plane: &str, ports: &[u16]) -> String {
        let mut all = vec![MARK];
        all.extend(ports);
        format!(
            "[[plane]]\nname = \"{plane}\"\ninterfaces = [\"node\"]\n\
             prefixes = [\"10.97.0.0/24\"]\nmode = \"enforce\"\n\
             [[plane.rule]]\nname = \"udp\"\nverdict = \"allow\"\nprotocol = \"udp\"\n\
             ports = {all:?}\n"
        )
    }

    /// Writes a policy, and says where.
    pub fn file(&self, text: &str) -> PathBuf {
        let path = self.folder().join("policy.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A change to a policy; the caller is in the node's namespace.
    pub fn change(&self, text: &str, confirm: Option<u32>) -> anyhow::Result<Change> {
        let (files, policy) = Files::load(&self.file(text))?;
        let lock = Lock::wait(&self.roots, LIMIT)?;
        Change::apply(&self.roots, lock, files, policy, confirm)
    }

    /// Applies a policy.
    pub fn apply(&self, text: &str) -> State {
        within(&self.name, || {
            self.change(text, None).unwrap().finish().unwrap()
        })
    }

    /// Completes or drops what was interrupted.
    pub fn restore(&self) -> Option<State> {
        within(&self.name, || {
            let lock = Lock::wait(&self.roots, LIMIT).unwrap();
            let change = Change::restore(&self.roots, lock).unwrap();
            change.map(|change| change.finish().unwrap())
        })
    }

    pub fn report(&self) -> Report {
        within(&self.name, || status::report(&self.roots).unwrap())
    }

    /// The tool, in the node's namespace.
    pub fn tool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, env!("CARGO_BIN_EXE_kldtrace")])
            .args(["planes", "--root"])
            .arg(self.folder())
            .args(arguments)
            .env_remove("SSH_CONNECTION")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.tool(arguments).output().unwrap()
    }

    /// Which of these ports of the node the peer reaches. A packet to [`MARK`]
    /// comes behind: when it has arrived, so have those before, or never will.
    pub fn reached<const N: usize>(&self, ports: [u16; N]) -> [bool; N] {
        let bind = |port: u16| {
            let socket = UdpSocket::bind(("10.97.0.1", port)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let (marked, sockets) = within(&self.name, || (bind(MARK), ports.map(bind)));
        let sender = within(&self.peer, || UdpSocket::bind("10.97.0.2:0").unwrap());
        for port in ports {
            sender.send_to(b"?", ("10.97.0.1", port)).unwrap();
        }
        wait_for("a packet that is let in", || {
            sender.send_to(b"!", ("10.97.0.1", MARK)).unwrap();
            hears(&marked).then_some(())
        });
        sockets.map(|socket| hears(&socket))
    }
}

/// Whether something has arrived.
pub fn hears(socket: &UdpSocket) -> bool {
    match socket.recv(&mut [0; 9]) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        sh(&format!(
            "ip netns del {}; ip netns del {}",
            self.name, self.peer
        ));
        sh(&format!("umount {}", self.folder().join("bpf").display()));
    }
}
