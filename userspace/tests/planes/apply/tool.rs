//! The subcommands, as people call them.

use std::{
    os::unix::process::CommandExt as _,
    process::{Output, Stdio},
};

use kldtrace::planes::state::{Lock, State};

use super::node::{LIMIT, Node, sh, wait_for};

fn said(output: &Output) -> String {
    let both = [&output.stdout, &output.stderr];
    both.map(|text| String::from_utf8_lossy(text)).concat()
}

fn well(node: &Node, arguments: &[&str]) -> String {
    let output = node.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    said(&output)
}

fn badly(node: &Node, arguments: &[&str]) -> String {
    let output = node.run(arguments);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{arguments:?}: {}",
        said(&output)
    );
    said(&output)
}

#[test]
fn each_subcommand_does_what_it_says() {
    let Some(node) = Node::new("tool") else {
        return;
    };
    let nothing = well(&node, &["status"]);
    assert_eq!(nothing, "no policy is applied\n");
    assert!(badly(&node, &["confirm"]).contains("no policy waits to be confirmed"));
    assert!(badly(&node, &["rollback"]).contains("there is no policy to take back"));
    assert!(well(&node, &["restore"]).contains("nothing to restore"));

    let policy = Node::policy("p", &[7001]);
    let path = node.file(&policy);
    let path = path.to_str().unwrap();
    assert!(badly(&node, &["diff", path]).contains("+name = \"udp\""));
    assert!(well(&node, &["apply", path]).contains("generation 1 applied"));
    assert_eq!(well(&node, &["diff", path]), "");
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    let status = well(&node, &["status"]);
    let said = [
        "generation 1, applied ",
        " by ",
        "p (enforce)",
        "node: XDP native, tcx on",
    ];
    for words in said.into_iter().chain(["udp of p", "default of p"]) {
        assert!(status.contains(words), "{words}: {status}");
    }
    let json = well(&node, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["planes"][0]["interfaces"][0]["xdp"], "native");
    let rules = json["planes"][0]["rules"].as_array().unwrap();
    let udp = rules.iter().find(|rule| rule["name"] == "udp").unwrap();
    assert!(udp["passed"]["packets"].as_u64() >= Some(2), "{udp}");

    node.file(&Node::policy("p", &[7002]));
    assert!(badly(&node, &["diff", path]).contains("-ports = [7003, 7001]\n+ports = [7003, 7002]"));
    assert!(well(&node, &["apply", path, "--confirm", "3600"]).contains("taken back in 3600 s"));
    assert!(badly(&node, &["apply", path]).contains("generation 2 is not confirmed yet"));
    let status = well(&node, &["status"]);
    assert!(
        status.contains("unless `kldtrace planes confirm` comes"),
        "{status}"
    );
    assert!(well(&node, &["confirm"]).contains("generation 2 stays"));
    assert_eq!(node.reached([7001, 7002]), [false, true]);
    assert!(well(&node, &["rollback"]).contains("back to generation 1"));
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    assert!(badly(&node, &["rollback"]).contains("there is no policy to return to"));
    assert!(well(&node, &["status"]).contains("generation 2 was taken back"));

    assert!(badly(&node, &["panic-open"]).contains("say --yes"));
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    assert!(well(&node, &["panic-open", "--yes"]).contains("everything passes"));
    assert_eq!(node.reached([7001, 7002]), [true, true]);
    assert!(badly(&node, &["status"]).contains("PROBLEM: everything passes"));
    assert!(well(&node, &["apply", path]).contains("generation 3 applied"));
    assert_eq!(node.reached([7001, 7002]), [false, true]);
}

#[test]
fn a_bad_policy_changes_nothing() {
    let Some(node) = Node::new("bad") else { return };
    node.apply(&Node::policy("p", &[7001]));
    let before = State::load(&node.roots).unwrap();
    let cases = [
        ("[[plane]]\n", "policy.toml:1:"),
        ("\u{feff}", "policy.toml"),
        // Grave: two planes claim an interface.
        (
            &*(Node::policy("p", &[]) + "\n[[plane]]\nname = \"q\"\ninterfaces = [\"node\"]\n"),
            "not applied (--force does so all the same)",
        ),
    ];
    for (text, expected) in cases {
        let path = node.file(text);
        let said = badly(&node, &["apply", path.to_str().unwrap()]);
        assert!(said.contains(expected), "{text:?}: {said}");
    }
    assert!(badly(&node, &["apply", "/nonexistent"]).contains("cannot be read"));
    // Somebody else is at work.
    let path = node.file(&Node::policy("p", &[7002]));
    let path = path.to_str().unwrap();
    let held = Lock::wait(&node.roots, LIMIT).unwrap();
    assert!(badly(&node, &["apply", path]).contains("another kldtrace is changing the planes"));
    drop(held);
    // A policy that would cut the session that it is typed in.
    let session = node
        .tool(&["apply", path])
        .env("SSH_CONNECTION", "10.97.0.2 50000 10.97.0.1 22")
        .output()
        .unwrap();
    assert!(
        said(&session).contains("this would cut the session"),
        "{}",
        said(&session)
    );
    assert!(!session.status.success());
    assert_eq!(node.reached([7001, 7002]), [true, false]);
    assert_eq!(State::load(&node.roots).unwrap(), before);
}

#[test]
fn without_a_bpf_file_system_nothing_is_attached() {
    let Some(node) = Node::new("nobpf") else {
        return;
    };
    let bpf = node.folder().join("bpf");
    assert!(sh(&format!("umount {}", bpf.display())));
    let path = node.file(&Node::policy("p", &[]));
    let said = badly(&node, &["apply", path.to_str().unwrap()]);
    assert!(said.contains("mount -t bpf bpf /sys/fs/bpf"), "{said}");
    assert_eq!(node.reached([7001]), [true]);
}

/// The session is cut: its whole process group is killed, as is whoever
/// applied the policy.
#[test]
fn a_cut_session_does_not_keep_a_policy() {
    let Some(node) = Node::new("cut") else { return };
    node.apply(&Node::policy("p", &[7001]));
    let path = node.file(&Node::policy("p", &[7002]));
    let mut apply = node.tool(&["apply", path.to_str().unwrap(), "--confirm", "2"]);
    let mut apply = apply
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let group = libc::pid_t::try_from(apply.id()).unwrap();
    wait_for("the policy", || {
        let state = State::load(&node.roots).unwrap();
        (state.last == 2 && state.next.is_none()).then_some(())
    });
    for signal in [libc::SIGHUP, libc::SIGKILL] {
        // SAFETY: signals the group that was made above; its leader is not
        // waited for yet, so the number is still its own.
        unsafe { libc::kill(-group, signal) };
    }
    apply.wait().unwrap();
    wait_for("the policy before", || {
        let taken = State::load(&node.roots).unwrap().taken_back;
        taken.map(|taken| assert_eq!(taken.generation, 2))
    });
    assert_eq!(node.reached([7001, 7002]), [true, false]);
}
