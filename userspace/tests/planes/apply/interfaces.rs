//! Interfaces that come late, go, come back, get other names and namespaces.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use aya::programs::{Xdp, XdpMode};
use kldtrace::planes::{
    install::Programs,
    interfaces::{self, Mode},
    pins::Pins,
    watch::watch,
};
use kldtrace_abi::plane::Link;

use super::node::{Node, sh, wait_for, within};

/// A program that is none of ours, on an interface of this namespace for as
/// long as this is kept.
pub fn foreign_program(interface: &str) -> Programs {
    let mut programs = Programs::load(1, Link::Ethernet, 10, false).unwrap();
    let program = programs.ebpf.program_mut("plane_empty").unwrap();
    let program: &mut Xdp = program.try_into().unwrap();
    program.load().unwrap();
    program.attach(interface, XdpMode::default()).unwrap();
    programs
}

/// Runs something while interfaces are followed.
fn watched(node: &Node, run: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| within(&node.name, || watch(&node.roots, &stop)));
        let stopped = StopAtEnd(&stop);
        run();
        drop(stopped);
        watching.join().unwrap().unwrap();
    });
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits until an interface is filtered.
fn filtered(node: &Node, namespace: &str, name: &str) -> Option<Mode> {
    wait_for("a program", || {
        let all = within(namespace, || interfaces::all().unwrap());
        let here = all.into_iter().find(|interface| interface.name == name)?;
        Some(here.xdp?.mode)
    });
    let report = node.report();
    let mut all = report.planes.into_iter().flat_map(|plane| plane.interfaces);
    all.find(|interface| interface.name == name)?.xdp
}

#[test]
fn interfaces_come_and_go() {
    let Some(node) = Node::new("links") else {
        return;
    };
    let name = &node.name;
    let policy = Node::policy("p", &[7001]).replace("[\"node\"]", "[\"node\", \"l*\"]")
        + "\n[[plane]]\nname = \"q\"\ninterfaces = [\"other\"]\nmode = \"enforce\"\n\
           [[plane.rule]]\nname = \"udp\"\nverdict = \"allow\"\nprotocol = \"udp\"\nports = [7002, 7003]\n";
    assert!(sh(&format!("ip -n {name} link del node")));
    node.apply(&policy);
    watched(&node, || {
        // Later than whoever follows it, who has all programs ready.
        let pins = Pins::new(&node.roots);
        let ready = pins.epoch(&pins.epochs().unwrap().pop().unwrap());
        wait_for("the last program", || {
            ready.join("2-ethernet-in").exists().then_some(())
        });
        node.pair();
        let began = Instant::now();
        filtered(&node, name, "node");
        println!("filtered {:?} after it was created", began.elapsed());
        node.raise();
        wait_for("both programs", || {
            node.report().problems.is_empty().then_some(())
        });
        assert_eq!(filtered(&node, name, "node"), Some(Mode::Native));
        assert_eq!(node.reached([7001, 7002]), [true, false]);
        // Deleted and made again.
        assert!(sh(&format!("ip -n {name} link del node")));
        node.link();
        filtered(&node, name, "node");
        wait_for("both programs", || {
            node.report().problems.is_empty().then_some(())
        });
        assert_eq!(node.reached([7001, 7002]), [true, false]);
        // By another name it is another plane's.
        let rename = |from: &str, to: &str| {
            assert!(sh(&format!(
                "ip -n {name} link set {from} down && ip -n {name} link set {from} name {to} && \
                 ip -n {name} link set {to} up"
            )));
        };
        rename("node", "other");
        let on = |plane: &str| {
            let report = node.report();
            let planes = report.planes.into_iter().find(|one| one.name == plane);
            report.problems.is_empty() && !planes.unwrap().interfaces.is_empty()
        };
        wait_for("the other plane", || on("q").then_some(()));
        rename("other", "node");
        wait_for("the plane before", || on("p").then_some(()));
        assert_eq!(node.reached([7001, 7002]), [true, false]);
        // In generic mode, where the driver cannot.
        assert_eq!(filtered(&node, name, "lo"), Some(Mode::Generic));
    });
}

/// In another namespace an interface is filtered as before, until it is
/// deleted; back, it is known again.
#[test]
fn an_interface_that_moves_away_stays_filtered() {
    let Some(node) = Node::new("moves") else {
        return;
    };
    let (name, peer) = (&node.name, &node.peer);
    node.apply(&Node::policy("p", &[7001]));
    watched(&node, || {
        let moved = |from: &str, to: &str| {
            assert!(sh(&format!("ip -n {from} link set node netns {to}")));
        };
        moved(name, peer);
        let problem = wait_for("word of it", || node.report().problems.pop());
        assert!(problem.contains("moved to another namespace"), "{problem}");
        let there = within(peer, || interfaces::all().unwrap());
        let there = there
            .iter()
            .find(|interface| interface.name == "node")
            .unwrap();
        assert!(there.xdp.is_some(), "{there:?}");
        moved(peer, name);
        wait_for("its place", || {
            node.report().problems.is_empty().then_some(())
        });
        assert!(sh(&format!(
            "ip -n {name} addr add 10.97.0.1/24 dev node; ip -n {name} link set node up"
        )));
        assert_eq!(node.reached([7001, 7002]), [true, false]);
        moved(name, peer);
        let links = || {
            let links = std::fs::read_dir(node.roots.pins.join("links")).unwrap();
            let names = links.map(|link| link.unwrap().file_name().into_string().unwrap());
            names.collect::<Vec<_>>()
        };
        // Nothing in this namespace tells of its end, once that is so.
        wait_for("both links at their other place", || {
            let away = links().into_iter().all(|name| name.starts_with("away"));
            away.then_some(())
        });
        assert!(sh(&format!("ip -n {peer} link del node")));
        wait_for("nothing left", || links().is_empty().then_some(()));
    });
}

#[test]
fn another_program_on_an_interface_is_not_touched() {
    let Some(node) = Node::new("busy") else {
        return;
    };
    within(&node.name, || {
        let other = foreign_program("node");
        let error = node.change(&Node::policy("p", &[]), None).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("node: another XDP program is there"),
            "{error:#}"
        );
        drop(other);
        node.change(&Node::policy("p", &[]), None)
            .unwrap()
            .finish()
            .unwrap();
    });
}
