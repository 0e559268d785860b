//! Two BIRDs: BGP with BFD on each plane, in IPv4 and IPv6.

use std::{fmt::Write as _, fs};

use super::{
    super::apply::node::wait_for,
    net::{MANAGEMENT, Net, PARTNERS, Plane, STORAGE, WORKLOAD, example, without},
    program::{Program, installed},
};

/// Where they are neighbours, and how their sessions are called.
const SESSIONS: [(&str, Plane); 4] = [
    ("management", MANAGEMENT),
    ("storage", STORAGE),
    ("workload", WORKLOAD),
    ("partners", PARTNERS),
];
/// Sessions of both families.
const ALL: usize = 2 * SESSIONS.len();

struct Bird<'a> {
    net: &'a Net,
    number: u8,
    _program: Program,
}

impl<'a> Bird<'a> {
    /// Number 1 on the node, which waits for its neighbour to call: then
    /// nothing but the rules lets it in. Number 2 there.
    fn start(net: &'a Net, number: u8) -> Self {
        let other = 3 - number;
        let passive = if number == 1 { "passive yes;" } else { "" };
        let mut config = format!(
            "router id 10.0.0.{number};\nprotocol device {{ scan time 1; }}\n\
             protocol bfd {{ interface \"*\" {{ min rx interval 100 ms; \
             min tx interval 100 ms; }}; }}\n\
             protocol static s4 {{ ipv4; route 10.99.{number}.0/24 blackhole; }}\n\
             protocol static s6 {{ ipv6; route fd99:{number}::/64 blackhole; }}\n"
        );
        for (name, plane) in SESSIONS {
            for (family, channel) in ["ipv4", "ipv6"].into_iter().enumerate() {
                let (own, theirs) = (plane.host(family, number), plane.host(family, other));
                writeln!(
                    config,
                    "protocol bgp {name}{family} {{ local {own} as 6500{number}; \
                     neighbor {theirs} as 6500{other}; {passive} bfd on; hold time 6; \
                     connect delay time 1; connect retry time 1; error wait time 1, 2; \
                     {channel} {{ import all; export where source = RTS_STATIC; }}; }}"
                )
                .unwrap();
            }
        }
        let name = format!("bird{number}");
        let file = net.path(&format!("{name}.conf"));
        fs::write(&file, config).unwrap();
        let space = if number == 1 { &net.node } else { &net.peer };
        let socket = net.path(&name);
        let script = format!("exec $(command -v bird) -f -c {file} -s {socket} -P {socket}.pid");
        let program = Program::start(net, space, &name, &script);
        wait_for("its socket", || fs::exists(&socket).unwrap().then_some(()));
        Self {
            net,
            number,
            _program: program,
        }
    }

    fn ask(&self, question: &str) -> String {
        let script = format!("birdc -s bird{} {question}", self.number);
        self.net.ok(&self.net.peer, &script)
    }

    /// Sessions that are established, and those that BFD sees up.
    fn up(&self) -> (usize, usize) {
        let count = |text: String, word: &str| {
            let lines = text.lines();
            lines
                .filter(|line| line.split_whitespace().any(|one| one == word))
                .count()
        };
        (
            count(self.ask("show protocols"), "Established"),
            count(self.ask("show bfd sessions"), "Up"),
        )
    }

    /// Waits until so many sessions are established, and up.
    fn wait(&self, established: usize, up: usize) {
        wait_for(&format!("{established} sessions of {up}"), || {
            let is = self.up();
            (is == (established, up)).then_some(())
        });
    }
}

#[test]
fn bgp_and_bfd_come_up_on_each_plane() {
    if !installed(&["bird", "birdc"]) {
        return;
    }
    let Some(net) = Net::new("bgp") else { return };
    let before = net.counts();
    let (node, peer) = (Bird::start(&net, 1), Bird::start(&net, 2));
    for bird in [&node, &peer] {
        bird.wait(ALL, ALL);
        let other = 3 - bird.number;
        for (name, _) in SESSIONS {
            for (family, route) in [format!("10.99.{other}.0/24"), format!("fd99:{other}::/64")]
                .into_iter()
                .enumerate()
            {
                wait_for("a route", || {
                    let routes = bird.ask(&format!("show route protocol {name}{family}"));
                    routes.contains(&route).then_some(())
                });
            }
        }
    }
    let came = net.counts().since(&before);
    println!("{came:?}");
    assert!(came.refused().is_empty(), "{came:?}");
    for (_, plane) in SESSIONS {
        // A connection of each family, and BFD's packets as long as it is up.
        assert!(
            came.of(&format!("{} pass bgp", plane.name)) >= 2,
            "{came:?}"
        );
        assert!(came.of(&format!("{} pass bfd", plane.name)) > 2, "{came:?}");
    }

    // Without BFD's rule BFD is down, and BGP with it.
    net.apply(&without("bfd"));
    node.wait(0, 0);
    net.apply(&example());
    node.wait(ALL, ALL);
    peer.wait(ALL, ALL);
    // Without BGP's nothing comes in, also not in sessions that were there.
    net.apply(&without("bgp"));
    wait_for("an end of the sessions", || {
        (node.up().0 == 0).then_some(())
    });
    net.apply(&example());
    node.wait(ALL, ALL);
}
