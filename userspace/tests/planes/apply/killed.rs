//! Whoever changes a policy is killed, between any two steps and anywhere.

use std::{
    fs,
    net::UdpSocket,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use fastrand::Rng;
use kldtrace::planes::{
    change::Change,
    pins::Pins,
    roots::Roots,
    saved::{Files, Saved},
    state::{Lock, State, Why},
};

use super::node::{LIMIT, Node, hears, wait_for, within};

const OLD: [bool; 2] = [true, false];
const NEW: [bool; 2] = [false, true];
const PORTS: [u16; 2] = [7001, 7002];

/// What the test below runs in a process of its own.
#[test]
#[ignore = "a part of other tests"]
fn a_change_up_to_a_step() {
    let Ok(folder) = std::env::var("KLD_TEST_FOLDER") else {
        return;
    };
    let folder = std::path::Path::new(&folder);
    let steps: usize = std::env::var("KLD_TEST_STEPS").unwrap().parse().unwrap();
    let namespace = std::env::var("KLD_TEST_NAMESPACE").unwrap();
    let roots = Roots::under(folder);
    within(&namespace, || {
        let lock = Lock::wait(&roots, LIMIT).unwrap();
        let mut change = if std::env::var("KLD_TEST_BACK").is_ok() {
            Change::roll_back(&roots, lock, Why::Asked).unwrap()
        } else {
            let (files, policy) = Files::load(&folder.join("policy.toml")).unwrap();
            Change::apply(&roots, lock, files, policy, None).unwrap()
        };
        for _ in 0..steps {
            if change.step().unwrap().is_none() {
                fs::write(folder.join("done"), "").unwrap();
                return;
            }
        }
        // SAFETY: ends this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    });
}

/// Changes in another process, which kills itself after so many steps; says
/// whether it came to the end before.
fn changed_up_to(node: &Node, steps: usize, back: bool) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "apply::killed::a_change_up_to_a_step"])
        .args(["--ignored", "--nocapture"])
        .env("KLD_TEST_FOLDER", node.folder())
        .env("KLD_TEST_STEPS", steps.to_string())
        .env("KLD_TEST_NAMESPACE", &node.name)
        .stdout(Stdio::null());
    if back {
        child.env("KLD_TEST_BACK", "1");
    }
    child.status().unwrap();
    let done = node.folder().join("done");
    fs::remove_file(done).is_ok()
}

/// Kills a change from `old`, or from none, to `new` after each of its steps;
/// `back`: one back to `old`.
fn old_or_new(tag: &str, old: Option<&str>, new: &str, back: bool) {
    let Some(node) = Node::new(tag) else { return };
    let (before, after) = match (old, back) {
        (Some(_), false) => (OLD, NEW),
        (Some(_), true) => (NEW, OLD),
        (None, _) => ([true, true], NEW),
    };
    let mut seen = [0; 2];
    for steps in 1..100 {
        match old {
            Some(old) => _ = node.apply(old),
            None => node.forget(),
        }
        if back {
            node.apply(new);
        }
        node.file(new);
        let done = changed_up_to(&node, steps, back);
        let found = node.reached(PORTS);
        assert!(
            found == before || found == after,
            "after {steps} steps: {found:?}"
        );
        seen[usize::from(found == after)] += 1;
        // Whoever comes next completes or drops it, and nothing is left over.
        node.restore();
        let again = node.reached(PORTS);
        // Links that the killed one did not come to have new programs now.
        let went_on = found == before && again == after;
        assert!(again == found || went_on, "after {steps} steps: {again:?}");
        let state = State::load(&node.roots).unwrap();
        let pins = Pins::new(&node.roots);
        assert_eq!(state.next, None);
        let current = state.current.map(|one| one.generation);
        if current.is_some() {
            assert_eq!(pins.generation().unwrap(), current, "after {steps} steps");
            assert_eq!(pins.epochs().unwrap().len(), 1, "after {steps} steps");
        }
        let problems = node.report().problems;
        assert!(problems.is_empty(), "after {steps} steps: {problems:?}");
        let text = current.map(|one| Saved::load(&node.roots, one).unwrap().files.text);
        let wanted = if again == NEW { Some(new) } else { old };
        assert_eq!(text.as_deref(), wanted, "after {steps} steps");
        if done {
            println!(
                "{tag}: {steps} steps, {} of them before the moment",
                seen[0]
            );
            assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
            return;
        }
    }
    panic!("it has no end");
}

#[test]
fn killed_between_two_steps_there_is_the_old_policy_or_the_new_one() {
    old_or_new(
        "fast",
        Some(&Node::policy("p", &[7001])),
        &Node::policy("p", &[7002]),
        false,
    );
}

#[test]
fn killed_between_two_steps_of_the_first_policy_there_is_none_or_that() {
    old_or_new("first", None, &Node::policy("p", &[7002]), false);
}

/// The interface becomes another plane's, so its programs are others.
#[test]
fn killed_between_two_steps_of_new_programs_there_is_the_old_policy_or_the_new_one() {
    old_or_new(
        "epoch",
        Some(&Node::policy("p", &[7001])),
        &Node::policy("q", &[7002]),
        false,
    );
}

#[test]
fn killed_between_two_steps_of_going_back_there_is_the_old_policy_or_the_new_one() {
    old_or_new(
        "back",
        Some(&Node::policy("p", &[7001])),
        &Node::policy("p", &[7002]),
        true,
    );
}

/// Datagrams in this namespace for sockets without room, and for no socket.
fn datagrams() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let of = |wanted: &str| -> u64 {
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, value) = pairs.find(|(name, _)| *name == wanted).unwrap();
        value.parse().unwrap()
    };
    (of("RcvbufErrors"), of("NoPorts"))
}

/// Sends while others are killed: batches to a port that all policies let in,
/// each behind the other when the node has it whole, and as many to one that
/// none does. Returns how many were sent to each.
fn flood(node: &Node, stop: &AtomicBool, killed: &AtomicU64) -> u64 {
    const BATCH: u64 = 32;
    let inbox = within(&node.name, || UdpSocket::bind(("10.97.0.1", 7001)).unwrap());
    inbox.set_nonblocking(true).unwrap();
    let sender = within(&node.peer, || UdpSocket::bind("10.97.0.2:0").unwrap());
    let mut sent = 0;
    let mut received = 0;
    within(&node.name, || {
        let before = datagrams();
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..BATCH {
                sender.send_to(b"in", ("10.97.0.1", 7001)).unwrap();
                sender.send_to(b"out", ("10.97.0.1", 7002)).unwrap();
            }
            sent += BATCH;
            let kills = killed.load(Ordering::Relaxed);
            wait_for("a packet that should pass", || {
                while hears(&inbox) {
                    received += 1;
                }
                let now = datagrams();
                assert_eq!(
                    now.1, before.1,
                    "passed that should not, after {kills} kills"
                );
                (received + now.0 - before.0 == sent).then_some(())
            });
        }
    });
    sent
}

/// `kldtrace planes watch`, as in the daemon, and `apply` between two policies
/// are killed anywhere, in turns, while packets arrive.
fn killed_under_a_flood(tag: &str, times: u64) {
    let Some(node) = Node::new(tag) else { return };
    let policies = [
        Node::policy("p", &[7001]),
        Node::policy("p", &[7001, 7005])
            + "[[plane.rule]]\nname = \"more\"\nverdict = \"drop\"\nprotocol = \"tcp\"\n",
    ];
    node.apply(&policies[0]);
    let (stop, killed) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut rng = Rng::with_seed(5);
    let mut finished = 0;
    // How long an apply takes, on this machine and now: about half of them come
    // to their end.
    let mut takes = Duration::from_millis(50);
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&node, &stop, &killed));
        for turn in 0..times {
            let path = node.file(&policies[(turn / 2 % 2) as usize]);
            let applies = turn % 2 == 1;
            let mut command = if applies {
                node.tool(&["apply", path.to_str().unwrap()])
            } else {
                node.tool(&["watch"])
            };
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            thread::sleep(takes.mul_f64(rng.f64()) * 2);
            let _ = child.kill();
            let status = child.wait().unwrap();
            if applies && status.success() {
                finished += 1;
                takes = takes.mul_f64(0.8);
            } else if applies {
                takes = takes.mul_f64(1.25).min(LIMIT);
            }
            killed.fetch_add(1, Ordering::Relaxed);
            if flood.is_finished() {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap()
    });
    node.restore();
    let report = node.report();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    println!(
        "{times} killed, {finished} applied before that, {sent} packets that passed and as many \
         that did not"
    );
    assert!(
        finished > 0 && finished < times / 2,
        "{finished} of {times}"
    );
}

#[test]
fn nothing_passes_or_is_lost_while_others_are_killed() {
    killed_under_a_flood("flood", 60);
}

#[test]
#[ignore = "takes minutes"]
fn nothing_passes_or_is_lost_while_others_are_killed_a_thousand_times() {
    killed_under_a_flood("floods", 1000);
}
