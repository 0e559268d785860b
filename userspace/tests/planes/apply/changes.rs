//! From policy to policy: numbers that stay, deadlines, and what is damaged.

use std::{
    fmt::Write as _,
    fs,
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use kldtrace::planes::{
    change::{Change, Step},
    guard::guard,
    numbers::Numbers,
    open::panic_open,
    pins::{Epoch, Pins},
    state::{Lock, State, Why},
    watch::watch,
};

use super::{
    interfaces::foreign_program,
    node::{LIMIT, Node, hears, wait_for, within},
};

/// Packets that the rule `udp` has let in, by the plane.
fn passed(node: &Node, plane: &str, rule: &str) -> Option<u64> {
    let report = node.report();
    let plane = report.planes.iter().find(|one| one.name == plane)?;
    let rule = plane.rules.iter().find(|one| one.rule.name == rule)?;
    Some(rule.passed.packets)
}

#[test]
fn counts_stay_with_names() {
    let Some(node) = Node::new("count") else {
        return;
    };
    let rule = |name: &str, port: u16| {
        format!(
            "[[plane.rule]]\nname = \"{name}\"\nverdict = \"allow\"\nprotocol = \"udp\"\n\
             ports = [{port}]\n"
        )
    };
    let other = "[[plane]]\nname = \"first\"\ninterfaces = [\"none\"]\n".to_owned();
    let plane = Node::policy("p", &[]);
    let a = plane.clone() + &rule("a", 7001);
    node.apply(&a);
    node.reached([7001]);
    assert_eq!(passed(&node, "p", "a"), Some(1));
    // A plane and a rule before it.
    let both = other + &plane + &rule("b", 7002) + &rule("a", 7001);
    node.apply(&both);
    assert_eq!(passed(&node, "p", "a"), Some(1));
    node.reached([7001, 7002]);
    assert_eq!(
        (passed(&node, "p", "a"), passed(&node, "p", "b")),
        (Some(2), Some(1))
    );
    // Gone, but it can be returned to.
    node.apply(&(plane.clone() + &rule("b", 7002)));
    node.reached([7002]);
    within(&node.name, || {
        let lock = Lock::wait(&node.roots, LIMIT).unwrap();
        let back = Change::roll_back(&node.roots, lock, Why::Asked).unwrap();
        back.finish().unwrap();
    });
    assert_eq!(
        (passed(&node, "p", "a"), passed(&node, "p", "b")),
        (Some(2), Some(2))
    );
    // Gone for good: whoever gets its place begins at 0.
    node.apply(&plane);
    node.apply(&plane);
    node.apply(&(plane + &rule("c", 7001)));
    assert_eq!(passed(&node, "p", "c"), Some(0));
}

#[test]
fn what_nobody_confirms_is_taken_back() {
    let Some(node) = Node::new("late") else {
        return;
    };
    node.apply(&Node::policy("p", &[7001]));
    let unconfirmed = || {
        within(&node.name, || {
            let change = node.change(&Node::policy("p", &[7002]), Some(1)).unwrap();
            change.finish().unwrap().last
        })
    };
    // By its guardian.
    let generation = unconfirmed();
    assert_eq!(node.reached([7001, 7002]), [false, true]);
    assert!(within(&node.name, || guard(&node.roots, generation)).unwrap());
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    let taken = State::load(&node.roots).unwrap().taken_back.unwrap();
    assert_eq!(
        (taken.generation, taken.why),
        (generation, Why::NotConfirmed)
    );
    // By the daemon, when the guardian is dead.
    let generation = unconfirmed();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| within(&node.name, || watch(&node.roots, &stop)));
        wait_for("the policy before", || {
            let state = State::load(&node.roots).unwrap();
            let taken = state
                .taken_back
                .is_some_and(|taken| taken.generation == generation);
            taken.then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        watching.join().unwrap().unwrap();
    });
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    // Too late.
    let generation = unconfirmed();
    wait_for("the deadline", || {
        let state = State::load(&node.roots).unwrap();
        let left = state.current.unwrap().confirm.unwrap().deadline.left();
        left.unwrap().is_zero().then_some(())
    });
    let confirm = || Change::confirm(&node.roots, Lock::wait(&node.roots, LIMIT).unwrap());
    let error = within(&node.name, confirm).unwrap_err().to_string();
    assert_eq!(
        error,
        format!("too late: generation {generation} was taken back")
    );
    assert_eq!(node.reached([7001, 7002]), [true, false]);
}

#[test]
fn what_is_confirmed_stays() {
    let Some(node) = Node::new("stays") else {
        return;
    };
    node.apply(&Node::policy("p", &[7001]));
    let generation = within(&node.name, || {
        let change = node
            .change(&Node::policy("p", &[7002]), Some(3600))
            .unwrap();
        change.finish().unwrap();
        // Nothing else can be applied meanwhile.
        let error = node.change(&Node::policy("p", &[]), None).unwrap_err();
        assert!(
            error.to_string().contains("is not confirmed yet"),
            "{error}"
        );
        Change::confirm(&node.roots, Lock::wait(&node.roots, LIMIT).unwrap()).unwrap()
    });
    assert_eq!(generation, 2);
    // Its guardian has nothing left to do.
    assert!(!within(&node.name, || guard(&node.roots, generation)).unwrap());
    assert_eq!(node.reached([7001, 7002]), [false, true]);
}

/// As after a start of the machine: nothing is in the kernel, and another boot
/// id was written.
#[test]
fn a_start_of_the_machine_restores_what_was_confirmed() {
    let Some(node) = Node::new("boot") else {
        return;
    };
    node.apply(&Node::policy("p", &[7001]));
    within(&node.name, || {
        let change = node
            .change(&Node::policy("p", &[7002]), Some(3600))
            .unwrap();
        change.finish().unwrap();
    });
    let path = node.roots.state.join("state.json");
    let text = fs::read_to_string(&path).unwrap();
    let boot = kldtrace::planes::boot::id().unwrap();
    assert!(text.contains(&boot));
    fs::write(
        &path,
        text.replace(&boot, "00000000-0000-4000-8000-000000000000"),
    )
    .unwrap();
    node.forget_pins();
    assert_eq!(node.reached([7001, 7002]), [true, true]);
    node.restore();
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    assert!(node.report().problems.is_empty());
}

#[test]
fn broken_glass_lets_everything_pass_until_a_policy_is_applied() {
    let Some(node) = Node::new("open") else {
        return;
    };
    node.apply(&Node::policy("p", &[7001]));
    // Also when what is on disk is damaged, and somebody holds the lock.
    let path = node.roots.state.join("state.json");
    let good = fs::read(&path).unwrap();
    fs::write(&path, "{").unwrap();
    let failed = within(&node.name, || {
        let _held = Lock::wait(&node.roots, LIMIT).unwrap();
        panic_open(&node.roots)
    });
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(node.reached([7001, 7002]), [true, true]);
    fs::write(&path, good).unwrap();
    assert!(within(&node.name, || panic_open(&node.roots)).is_empty());
    assert!(node.restore().is_none(), "nobody closes it but a policy");
    assert_eq!(node.reached([7001, 7002]), [true, true]);
    assert_eq!(node.report().problems.len(), 1);
    node.apply(&Node::policy("p", &[7002]));
    assert_eq!(node.reached([7001, 7002]), [false, true]);
    assert!(node.report().problems.is_empty());
}

/// Pins of another version: its programs go on until ours take their links
/// over, and what is of the same form is kept.
#[test]
fn another_version_is_taken_over() {
    let Some(node) = Node::new("version") else {
        return;
    };
    node.apply(&Node::policy("p", &[7001]));
    let asked = within(&node.name, || UdpSocket::bind("10.97.0.1:7009").unwrap());
    let peer = within(&node.peer, || UdpSocket::bind("10.97.0.2:7009").unwrap());
    for socket in [&asked, &peer] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    let answered = || {
        peer.send_to(b"answer", "10.97.0.1:7009").unwrap();
        node.reached([7001]);
        asked.set_nonblocking(true).unwrap();
        hears(&asked)
    };
    asked.send_to(b"question", "10.97.0.2:7009").unwrap();
    peer.recv(&mut [0; 9]).unwrap();
    assert!(answered());
    let pins = Pins::new(&node.roots);
    let earlier = |map: Option<&str>| {
        let epoch = pins.epochs().unwrap().pop().unwrap();
        let other = Epoch {
            hash: 1,
            ..epoch.clone()
        };
        fs::rename(pins.epoch(&epoch), pins.epoch(&other)).unwrap();
        if let Some(name) = map {
            let shared = pins.shared(epoch.places).unwrap();
            let map = shared.into_iter().find(|one| one.name == name).unwrap();
            fs::rename(&map.path, map.path.with_file_name("other-00000001")).unwrap();
        }
        let problems = node.report().problems;
        assert!(problems[0].contains("another version's"), "{problems:?}");
        epoch.number
    };
    let number = earlier(None);
    node.restore();
    assert!(node.report().problems.is_empty());
    assert_eq!(pins.epochs().unwrap().pop().unwrap().number, number + 1);
    assert!(answered(), "its flow is known");
    assert_eq!(
        passed(&node, "p", "udp"),
        Some(4),
        "what was counted is kept"
    );
    // Flows of another form are forgotten, until the next packet leaves.
    earlier(Some("PLANE_FLOWS"));
    node.restore();
    assert!(node.report().problems.is_empty());
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    // What each CPU remembers of it holds for a lease, at most a second (`memo::LEASE`).
    thread::sleep(Duration::from_secs(1));
    assert!(!answered(), "its flow is forgotten");
    asked.send_to(b"question", "10.97.0.2:7009").unwrap();
    assert!(answered());
}

/// Whatever is lost on disk, a policy can be applied.
#[test]
fn a_policy_is_applied_over_one_that_nobody_knows() {
    let Some(node) = Node::new("lost") else {
        return;
    };
    node.apply(&Node::policy("p", &[7001]));
    fs::remove_dir_all(&node.roots.state).unwrap();
    node.apply(&Node::policy("q", &[7002]));
    assert_eq!(node.reached([7001, 7002]), [false, true]);
    assert!(node.report().problems.is_empty());
    let files = [
        ("state.json", "state"),
        ("policies/2/policy.toml", "policy"),
    ];
    for (name, what) in files {
        let path = node.roots.state.join(name);
        let good = fs::read(&path).unwrap();
        for bad in [&b""[..], b"{}", b"\xff\xfe", b"[[plane]]\nname = 1"] {
            fs::write(&path, bad).unwrap();
            let restored = within(&node.name, || {
                let lock = Lock::wait(&node.roots, LIMIT).unwrap();
                Change::restore(&node.roots, lock).map(|_| ())
            });
            assert!(restored.is_err(), "{what}: {bad:?}");
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(node.reached([7001, 7002]), [false, true]);
}

/// Numbers on disk are taken if each is of one name and within its range.
#[test]
fn numbers_that_cannot_be_are_refused() {
    let rule = |name: &str, counter: u32| {
        format!(r#"{{"on":"p","place":"p","kind":"rule","name":"{name}","counter":{counter}}}"#)
    };
    let read = |planes: &str, rules: &[String]| {
        let text = format!(r#"{{"planes":{{{planes}}},"rules":[{}]}}"#, rules.join(","));
        serde_json::from_str::<Numbers>(&text)
    };
    let good = [rule("a", 1), rule("b", 2)];
    let numbers = read(r#""p":1,"q":15"#, &good).unwrap();
    assert_eq!((numbers.plane("q"), numbers.most()), (Some(15), 2));
    let written = serde_json::to_string(&numbers).unwrap();
    assert_eq!(serde_json::from_str::<Numbers>(&written).unwrap(), numbers);
    for planes in [r#""p":0"#, r#""p":16"#, r#""p":1,"q":1"#, r#""p":-1"#] {
        assert!(read(planes, &good).is_err(), "{planes}");
    }
    for (first, second) in [
        (rule("a", 0), rule("b", 1)),
        (rule("a", 1), rule("b", 1)),
        (rule("a", 1), rule("a", 2)),
        (rule("a", 1), rule("b", u32::MAX)),
    ] {
        assert!(read("", &[first, second]).is_err());
    }
}

/// What fails midway changes nothing: here a plane's second interface has
/// another's XDP program by the time it is attached.
#[test]
fn a_policy_that_fails_midway_changes_nothing() {
    let Some(node) = Node::new("fails") else {
        return;
    };
    node.apply(&Node::policy("p", &[7001]));
    let name = &node.name;
    assert!(super::node::sh(&format!(
        "ip -n {name} link add second type veth peer name third && ip -n {name} link set second up"
    )));
    // With the programs that are there, and with new ones.
    for plane in ["p", "q"] {
        let two = Node::policy(plane, &[7002]).replace("[\"node\"]", "[\"node\", \"second\"]");
        let error = within(name, || {
            let mut change = node.change(&two, None).unwrap();
            // Before links, somebody else is faster.
            while !matches!(change.step().unwrap(), Some(Step::Swap)) {}
            let other = foreign_program("second");
            let error = change.finish().unwrap_err();
            drop(other);
            error
        });
        let text = format!("{error:#}");
        assert!(
            text.starts_with("nothing has changed: second: cannot attach by XDP"),
            "{text}"
        );
        assert_eq!(node.reached([7001, 7002]), [true, false]);
        let state = State::load(&node.roots).unwrap();
        assert_eq!((state.current.unwrap().generation, state.next), (1, None));
        let pins = Pins::new(&node.roots);
        assert_eq!(pins.generations().unwrap(), [1]);
        assert_eq!(pins.epochs().unwrap().len(), 1);
        assert!(!pins.next_epoch().exists());
    }
}

/// Ten thousand rules and a hundred thousand prefixes. Wanted is a second, in
/// a release build on a quiet machine.
#[test]
fn ten_thousand_rules_are_applied() {
    let Some(node) = Node::new("large") else {
        return;
    };
    let mut text = Node::policy("p", &[7001]);
    for number in 0..10_000 {
        let (high, low) = (number >> 8, number & 255);
        let _ = write!(
            text,
            "[[plane.rule]]\nname = \"r{number}\"\nverdict = \"allow\"\nprotocol = \"tcp\"\n\
             ports = [{}]\nsources = [\"10.{high}.{low}.0/24\"]\n",
            1000 + number
        );
    }
    for what in ["the first time", "again"] {
        let path = node.file(&text);
        let began = Instant::now();
        let output = node.run(&["apply", path.to_str().unwrap()]);
        println!("10,000 rules are applied {what} in {:?}", began.elapsed());
        assert!(output.status.success(), "{output:?}");
        text = text.replace(
            "\"allow\"\nprotocol = \"tcp\"",
            "\"drop\"\nprotocol = \"tcp\"",
        );
    }
    assert_eq!(node.reached([7001, 7002]), [true, false]);
}
