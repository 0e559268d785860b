//! A pair of keepalived: one of them has the service's addresses.

use std::{fmt::Write as _, fs, thread, time::Duration};

use super::{
    super::apply::node::wait_for,
    net::{EXTERNAL, MANAGEMENT, Net, Plane, example, without},
    program::{Program, installed},
};

const ON: [Plane; 2] = [MANAGEMENT, EXTERNAL];
/// The last part of addresses of the service.
const SERVICE: u8 = 100;

/// Whether the addresses are there: of each plane those of both families.
type Held = [[bool; 2]; 2];
const ALL: Held = [[true; 2]; 2];
const NONE: Held = [[false; 2]; 2];

fn keepalived(net: &Net, space: &str, priority: u8) -> Program {
    // Version 3 of VRRP, which counts in hundredths of a second.
    let mut config = "global_defs {\n vrrp_version 3\n}\n".to_owned();
    for (number, plane) in ON.into_iter().enumerate() {
        for family in 0..2 {
            let interface = plane.interface;
            let router = 51 + 2 * number + family;
            let address = plane.host(family, SERVICE);
            let addresses = ["", "native_ipv6\n"][family].to_owned()
                + &match family {
                    0 => format!("virtual_ipaddress {{\n{address}/24\n}}"),
                    _ => format!("virtual_ipaddress {{\nfe80::{SERVICE}/64\n{address}/64\n}}"),
                };
            writeln!(
                config,
                "vrrp_instance {}{family} {{\nstate BACKUP\ninterface {interface}\n\
                 virtual_router_id {router}\npriority {priority}\nadvert_int 0.2\n{addresses}\n}}",
                plane.name
            )
            .unwrap();
        }
    }
    let name = format!("keepalived{priority}");
    let file = net.path(&name);
    fs::write(&file, config).unwrap();
    let script = format!("exec $(command -v keepalived) -n -l -f {file} -p {file}.a -r {file}.b");
    Program::start(net, space, &name, &script)
}

fn held(net: &Net, space: &str) -> Held {
    ON.map(|plane| {
        let addresses = net.ok(space, &format!("ip -br addr show dev {}", plane.interface));
        [0, 1].map(|family| {
            let own = plane.host(family, SERVICE) + "/";
            addresses
                .split_whitespace()
                .any(|one| one.starts_with(&own))
        })
    })
}

/// Waits until the node and its neighbour have what they should.
fn wait(net: &Net, node: Held, peer: Held) {
    wait_for(&format!("{node:?} and {peer:?}"), || {
        let is = (held(net, &net.node), held(net, &net.peer));
        (is == (node, peer)).then_some(())
    });
}

#[test]
fn a_backup_stays_one_while_the_master_is_heard() {
    if !installed(&["keepalived", "ping"]) {
        return;
    }
    let Some(net) = Net::new("vrrp") else { return };
    let master = keepalived(&net, &net.peer, 100);
    wait(&net, NONE, ALL);
    let before = net.counts();
    let backup = keepalived(&net, &net.node, 50);
    wait_for("it to listen", || {
        backup.said().contains("Startup complete").then_some(())
    });
    // An advertisement is missed after 0.8 s.
    thread::sleep(Duration::from_secs(3));
    wait(&net, NONE, ALL);
    assert!(!backup.said().contains("MASTER"), "{}", backup.said());
    let came = net.counts().since(&before);
    println!("{came:?}");
    assert!(came.refused().is_empty(), "{came:?}");
    for plane in ON {
        // Five in a second of each family.
        let heard = came.of(&format!("{} pass vrrp", plane.name));
        assert!((20..=60).contains(&heard), "{came:?}");
    }

    // A master that hangs, and comes back.
    master.signal(libc::SIGSTOP);
    wait(&net, ALL, ALL);
    master.signal(libc::SIGCONT);
    wait(&net, NONE, ALL);
    // One that ends.
    drop(master);
    wait(&net, ALL, NONE);
    for plane in ON {
        for family in 0..2 {
            let address = plane.host(family, SERVICE);
            net.ok(&net.peer, &format!("ping -q -c 1 -W 2 {address}"));
        }
    }
    let _master = keepalived(&net, &net.peer, 100);
    wait(&net, NONE, ALL);
    // Without the rule both are masters.
    net.apply(&without("vrrp"));
    wait(&net, ALL, ALL);
    net.apply(&example());
    wait(&net, NONE, ALL);
}
