//! Lines of all kinds, as they are written and as they arrive.

use std::{
    collections::BTreeSet, io::Write as _, os::unix::process::CommandExt as _, process::Command,
};

use super::{Node, double::Stored, list, numbers, write};

fn find<'a>(stored: &'a [Stored], line: &str) -> &'a Stored {
    let found: Vec<_> = stored.iter().filter(|one| one.line == line).collect();
    assert_eq!(found.len(), 1, "{line:?}");
    found[0]
}

#[test]
fn every_line_arrives_once_and_in_order() {
    let Some(node) = Node::start(|_| ()) else {
        return;
    };
    write(&node.journald, 0..3000);
    node.journald.wait_for("number 2999");
    node.journald.rotate();
    write(&node.journald, 3000..5000);
    node.read_up_to("number 4999");
    let (stored, counts, _journald) = node.end();
    assert_eq!(numbers(&stored), list(0..5000));
    // journald itself says a few words.
    assert_eq!(counts.shipped, stored.len() as u64);
    assert!((5001..5010).contains(&counts.shipped), "{counts:?}");
    assert_eq!((counts.gaps, counts.lost, counts.restarts), (0, 0, 0));
    assert_eq!((counts.resyncs, counts.unreadable, counts.cut), (0, 0, 0));
}

#[test]
fn lines_of_all_forms_arrive_as_they_were_written() {
    let Some(node) = Node::start(|_| ()) else {
        return;
    };
    let journald = &node.journald;
    let everything: Vec<u8> = (0..=255).collect();
    journald.send(&[
        (
            "MESSAGE",
            b"first\nsecond\n\n__CURSOR=i=1\nMESSAGE=none\n\nlast",
        ),
        ("PRIORITY", b"3"),
        ("SYSLOG_IDENTIFIER", b"a\nb"),
        ("CODE_FILE", b"src/x.c"),
        ("CODE_LINE", b"17"),
        ("SECRET_FIELD", b"not for you"),
    ]);
    journald.send(&[("MESSAGE", &everything), ("MESSAGE_ID", &[0xff, 0xfe])]);
    journald.send(&[("MESSAGE", b""), ("SYSLOG_IDENTIFIER", b"empty")]);
    journald.send(&[("PRIORITY", b"0"), ("SYSLOG_IDENTIFIER", b"without")]);
    journald.send(&[("MESSAGE", b"emergency"), ("PRIORITY", b"0")]);
    journald.send(&[("MESSAGE", "the end \u{1f980}".as_bytes())]);
    node.read_up_to("the end \u{1f980}");
    let (stored, counts, _journald) = node.end();

    let one = find(
        &stored,
        "first\nsecond\n\n__CURSOR=i=1\nMESSAGE=none\n\nlast",
    );
    let expected = [
        ("level", "error"),
        ("SYSLOG_IDENTIFIER", "a\nb"),
        ("CODE_FILE", "src/x.c"),
        ("CODE_LINE", "17"),
        ("_TRANSPORT", "journal"),
    ];
    for (name, value) in expected {
        assert_eq!(one.metadata[name], value, "{name}");
    }
    assert!(!format!("{stored:?}").contains("not for you"));
    let pid = std::process::id().to_string();
    assert_eq!(one.metadata["_PID"], pid);
    let text = String::from_utf8_lossy(&everything);
    assert_eq!(
        find(&stored, &text).metadata["MESSAGE_ID"],
        "\u{fffd}\u{fffd}"
    );
    let emergency = find(&stored, "emergency");
    assert_eq!(emergency.metadata["level"], "critical");
    assert_eq!(emergency.metadata["PRIORITY"], "0");
    // One with an empty message, and one with none at all.
    let empty = stored.iter().filter(|one| one.line.is_empty());
    let mut empty: Vec<_> = empty
        .map(|one| &*one.metadata["SYSLOG_IDENTIFIER"])
        .collect();
    empty.sort_unstable();
    assert_eq!(empty, ["empty", "without"]);
    find(&stored, "the end \u{1f980}");
    assert_eq!((counts.resyncs, counts.unreadable), (0, 0));
}

#[test]
fn users_journals_are_read_with_the_systems_own() {
    let Some(node) = Node::start(|_| ()) else {
        return;
    };
    // journald has a file with numbers of its own for each of them.
    for number in 0..60 {
        let mut logger = Command::new("logger");
        logger.uid([0, 12345, 23456][number % 3]).arg("--socket");
        logger.arg(node.journald.syslog());
        let line = format!("number {number}");
        assert!(logger.arg(line).status().unwrap().success());
    }
    node.read_up_to("number 59");
    let (stored, counts, _journald) = node.end();
    assert_eq!(numbers(&stored), list(0..60));
    assert_eq!((counts.gaps, counts.lost), (0, 0));
    let uids: BTreeSet<_> = stored.iter().map(|one| &*one.metadata["_UID"]).collect();
    assert_eq!(uids, BTreeSet::from(["0", "12345", "23456"]));
}

#[test]
fn lines_that_are_written_at_once_keep_their_order_and_number() {
    let Some(node) = Node::start(|_| ()) else {
        return;
    };
    let mut output = node.journald.output("one-write");
    // journald gives all lines that it reads at once the same time.
    let lines = (0..300).map(|line| format!("{}\n", line / 3));
    let lines: String = lines.chain(["the end\n".to_owned()]).collect();
    output.write_all(lines.as_bytes()).unwrap();
    node.read_up_to("the end");
    let (mut stored, ..) = node.end();
    stored.retain(|one| one.metadata["SYSLOG_IDENTIFIER"] == "one-write");
    stored.sort_by_key(|one| one.time_ns);
    let stored: String = stored.iter().map(|one| one.line.clone() + "\n").collect();
    assert_eq!(stored, lines);
}

#[test]
fn a_huge_line_is_cut_and_says_so() {
    let Some(node) = Node::start(|settings| settings.line = 10_000) else {
        return;
    };
    let mut output = node.journald.output("huge");
    // journald ends a line where the writer's process changes. What the kernel
    // took before journald had asked for it has none: the huge line's first part
    // could be that.
    output.write_all(b"before\n").unwrap();
    node.journald.wait_for("before");
    let huge = "é".repeat(200_000);
    output
        .write_all(format!("{huge}\nafter\n").as_bytes())
        .unwrap();
    node.read_up_to("after");
    let (stored, counts, _journald) = node.end();
    let cut = stored.iter().find(|one| one.line.starts_with('é')).unwrap();
    assert_eq!(cut.line, huge[..10_000]);
    assert_eq!(cut.metadata["truncated_bytes"], "390000");
    find(&stored, "after");
    assert_eq!((counts.cut, counts.resyncs), (1, 0));
}
