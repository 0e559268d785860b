//! A node with the interfaces and addresses of the example policy, and a
//! neighbour on each of them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use kldtrace::planes::{
    change::Change,
    roots::Roots,
    saved::Files,
    state::Lock,
    status::{self, Report, Rule},
};

use super::super::{
    apply::node::LIMIT,
    kernel::root,
    pair::{Pair, sh},
};

/// A plane of the example: the node is 1 on it, its neighbour 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plane {
    pub name: &'static str,
    pub interface: &'static str,
    /// What its addresses of IPv4 and IPv6 begin with.
    pub prefixes: [&'static str; 2],
}

const fn plane(name: &'static str, interface: &'static str, prefixes: [&'static str; 2]) -> Plane {
    Plane {
        name,
        interface,
        prefixes,
    }
}

pub const MANAGEMENT: Plane = plane("management", "wg-mgmt", ["10.250.0.", "fd00:250::"]);
pub const STORAGE: Plane = plane("storage", "wg-storage", ["10.251.0.", "fd00:251::"]);
pub const WORKLOAD: Plane = plane("workload", "wg-workload", ["10.252.0.", "fd00:252::"]);
pub const EXTERNAL: Plane = plane("external", "eth0", ["203.0.113.", "2001:db8:113::"]);
/// The partners of the set `partners`, which are on the external plane as well.
pub const PARTNERS: Plane = plane("external", "eth0", ["198.51.100.", "2001:db8:100::"]);
/// One for each interface.
pub const PLANES: [Plane; 4] = [MANAGEMENT, STORAGE, WORKLOAD, EXTERNAL];

impl Plane {
    /// A host's address; `family` is 0 for IPv4 and 1 for IPv6.
    pub fn host(&self, family: usize, number: u8) -> String {
        format!("{}{number}", self.prefixes[family])
    }

    /// The node's address.
    pub fn node(&self, family: usize) -> String {
        self.host(family, 1)
    }

    /// The neighbour's.
    pub fn peer(&self, family: usize) -> String {
        self.host(family, 2)
    }
}

/// The policy, as it is shipped.
pub fn example() -> String {
    let text = fs::read_to_string("../docs/examples/planes.toml").unwrap();
    assert!(!text.contains("mode = \"audit\""), "it would let all pass");
    text
}

/// The policy without a rule, on whatever plane: what the rule is for ends.
pub fn without(name: &str) -> String {
    let text = example();
    let mut kept = Vec::new();
    let mut blocks = text.split("\n[[");
    let count = blocks.clone().count();
    kept.extend(blocks.next());
    let named = format!("name = \"{name}\"");
    kept.extend(
        blocks.filter(|block| !(block.starts_with("plane.rule") && block.contains(&named))),
    );
    assert!(kept.len() < count, "no rule {name}");
    kept.join("\n[[")
}

/// The node and its neighbour; gone when dropped.
pub struct Net {
    pub node: String,
    pub peer: String,
    folder: tempfile::TempDir,
    roots: Roots,
}

impl Net {
    /// With the example applied. `tag` tells tests from each other; `None`,
    /// and a line that says so: needs root.
    pub fn new(tag: &str) -> Option<Self> {
        if !root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let net = Self {
            node: format!("kldt{tag}n"),
            peer: format!("kldt{tag}p"),
            roots: Roots::under(folder.path()),
            folder,
        };
        let (node, peer) = (&net.node, &net.peer);
        let bpf = net.path("bpf");
        // A test that was killed leaves its namespaces behind.
        sh(&format!("ip netns del {node}; ip netns del {peer}"));
        assert!(sh(&format!(
            "mkdir {bpf} && mount -t bpf bpf {bpf} && ip netns add {node} && ip netns add {peer}"
        )));
        for space in [node, peer] {
            // Addresses are there at once; and packets of a forged source
            // meet nobody but the planes' filters.
            let settings = "cd /proc/sys/net && echo 0 | tee ipv6/conf/*/accept_dad \
                 ipv4/conf/*/rp_filter && echo 0 > ipv4/icmp_ratelimit";
            net.ok(space, settings);
            net.ok(space, "ip link set lo up");
        }
        for plane in PLANES {
            let Plane { interface, .. } = plane;
            assert!(sh(&format!(
                "ip link add {interface} netns {node} type veth \
                 peer name {interface} netns {peer}"
            )));
        }
        for plane in [&PLANES[..], &[PARTNERS]].concat() {
            let Plane { interface, .. } = plane;
            for (space, number) in [(node, 1), (peer, 2)] {
                for (family, length) in [24, 64].into_iter().enumerate() {
                    let address = plane.host(family, number);
                    net.ok(
                        space,
                        &format!("ip addr add {address}/{length} dev {interface}"),
                    );
                }
                net.ok(space, &format!("ip link set {interface} up"));
            }
        }
        net.apply(&example());
        let report = net.report();
        for plane in &report.planes {
            let [interface] = &plane.interfaces[..] else {
                panic!("{plane:?}");
            };
            assert!(interface.xdp.is_some() && interface.tcx, "{plane:?}");
            assert_eq!(plane.mode, "enforce", "{plane:?}");
        }
        Some(net)
    }

    /// Does something while the neighbour reaches one of the node's addresses
    /// through an interface, whichever plane's it is.
    pub fn through<T>(&self, plane: &Plane, to: &str, run: impl FnOnce() -> T) -> T {
        let by = plane.node(usize::from(to.contains(':')));
        let by = if by == to {
            String::new()
        } else {
            format!("via {by}")
        };
        let route = format!("{to} {by} dev {} metric 5", plane.interface);
        self.ok(&self.peer, &format!("ip route add {route}"));
        let done = run();
        self.ok(&self.peer, &format!("ip route del {route}"));
        done
    }

    /// A file in the test's folder.
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// Applies a policy, as the tool does.
    pub fn apply(&self, text: &str) {
        let file = self.path("planes.toml");
        fs::write(&file, text).unwrap();
        let (files, policy) = Files::load(Path::new(&file)).unwrap();
        Pair::within(&self.node, || {
            let lock = Lock::wait(&self.roots, LIMIT).unwrap();
            let change = Change::apply(&self.roots, lock, files, policy, None);
            change.unwrap().finish().unwrap();
        });
    }

    /// What `kldtrace planes status` shows.
    pub fn report(&self) -> Report {
        let report = Pair::within(&self.node, || status::report(&self.roots).unwrap());
        assert_eq!(report.problems, Vec::<String>::new());
        // Nobody listens to what is told of drops.
        let mut losses = report.losses.iter();
        assert!(
            losses.all(|(loss, _)| *loss == "plane_event"),
            "{:?}",
            report.losses
        );
        report
    }

    /// Packets so far, by plane, verdict, and rule or reason: of every packet
    /// one.
    pub fn counts(&self) -> Counts {
        let mut counts = BTreeMap::<_, u64>::new();
        for plane in self.report().planes {
            for one in plane.verdicts {
                let name = format!("{} {} {}", plane.name, one.verdict, one.reason);
                counts.insert(name, one.packets);
            }
            for Rule {
                rule,
                passed,
                dropped,
                over_rate,
                ..
            } in plane.rules
            {
                let kind = format!("({})", rule.kind);
                let mut what = if rule.name.is_empty() {
                    kind
                } else {
                    rule.name
                };
                if rule.place != rule.on {
                    what = format!("{}: {what}", rule.place);
                }
                for (verdict, of) in [
                    ("pass", passed),
                    ("drop", dropped),
                    ("over_rate", over_rate),
                ] {
                    let name = format!("{} {verdict} {what}", rule.on);
                    // `wireguard` is a rule as well as a reason.
                    *counts.entry(name).or_default() += of.packets;
                }
            }
        }
        Counts(counts)
    }

    /// A command in a namespace.
    pub fn command(&self, space: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", space, program])
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a shell's command in a namespace.
    pub fn run(&self, space: &str, script: &str) -> Output {
        let mut command = self.command(space, "sh");
        command.args(["-c", script]).output().unwrap()
    }

    /// The same, which must go well; returns what it writes.
    pub fn ok(&self, space: &str, script: &str) -> String {
        let output = self.run(space, script);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let (node, peer, bpf) = (&self.node, &self.peer, self.path("bpf"));
        sh(&format!(
            "ip netns del {node}; ip netns del {peer}; umount {bpf}"
        ));
    }
}

/// Packets by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<String, u64>);

impl Counts {
    /// Those that came since, without those of which none did.
    pub fn since(&self, before: &Self) -> Self {
        let grown = self.0.iter().map(|(name, count)| {
            let before = before.0.get(name).copied().unwrap_or(0);
            (name.clone(), count - before)
        });
        Self(grown.filter(|(_, count)| *count > 0).collect())
    }

    /// Those with a name; 0 if there are none.
    pub fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// All that did not pass, by name.
    pub fn refused(&self) -> BTreeMap<&str, u64> {
        let refused = self
            .0
            .iter()
            .filter(|(name, _)| name.contains(" drop ") || name.contains(" over_rate "));
        refused.map(|(name, count)| (&**name, *count)).collect()
    }
}
