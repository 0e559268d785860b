//! The example policy, and what the check says of others.

use kldtrace::planes::{
    check::{self, Finding, Session},
    compile,
    explain::{packet, told},
    host::Host,
    read,
};

use super::agree::{no_files, read};

const EXAMPLE: &str = "../docs/examples/planes.toml";

fn interfaces() -> Vec<String> {
    ["lo", "eth0", "wg-mgmt", "wg-storage", "wg-workload"]
        .map(str::to_owned)
        .to_vec()
}

/// Each service of the platform, and what must not pass, as a node sees it.
#[test]
fn the_example_does_what_it_says() {
    let policy = read::load(EXAMPLE.as_ref()).unwrap();
    let compiled = compile::image(&policy, 1).unwrap();
    let cases = include_str!("example.txt").lines();
    let mut judged = 0;
    for line in cases.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [plane, text, expected] = columns[..] else {
            panic!("{line}");
        };
        let number = policy
            .planes
            .iter()
            .position(|one| one.name == plane)
            .unwrap();
        let facts = packet(text).unwrap();
        let outcome = Host::new(compiled.cells.clone()).judge(number as u8 + 1, &facts);
        let found = told(&outcome, &compiled);
        assert!(found.starts_with(expected), "{plane}: {text}: {found}");
        judged += 1;
    }
    assert!(judged > 20);
}

#[test]
fn the_example_has_nothing_to_find_but_a_missing_interface() {
    let policy = read::load(EXAMPLE.as_ref()).unwrap();
    let session = Session::parse("10.250.0.9 50000 10.250.0.2 22");
    assert!(session.is_some());
    let found = check::check(&policy, &interfaces(), session).unwrap();
    assert!(found.is_empty(), "{found:?}");
    let found = check::check(&policy, &["eth0".to_owned()], None).unwrap();
    let missing = found.iter().filter(|f| f.message.contains("no interface"));
    assert_eq!(missing.count(), 3);
}

fn findings(text: &str, session: &str) -> Vec<(usize, String, bool)> {
    let found = check::check(&read(text), &interfaces(), Session::parse(session)).unwrap();
    let told = |finding: Finding| (finding.line, finding.message, finding.grave);
    found.into_iter().map(told).collect()
}

#[test]
fn the_check_finds_what_is_wrong() {
    let head = "[floor]\nplane = \"m\"\n[[plane]]\nname = \"m\"\ninterfaces = [\"wg-mgmt\"]\nprefixes = [\"10.250.0.0/24\"]\nmode = \"enforce\"\n";
    let rule = |name: &str, keys: &str| {
        format!("[[plane.rule]]\nname = \"{name}\"\nverdict = \"allow\"\n{keys}\n")
    };
    let shadowed = [
        head,
        &rule("a", "protocol = \"tcp\"\nports = [\"1-100\"]"),
        &rule(
            "b",
            "protocol = \"tcp\"\nports = [50]\nsources = [\"10.250.0.7\"]",
        ),
        &rule("c", "protocol = \"tcp\"\nports = [\"90-101\"]"),
    ]
    .concat();
    assert_eq!(
        findings(&shadowed, ""),
        [(
            13,
            "rule \"b\" of m is never reached: before it matches \"a\" in line 8".to_owned(),
            false
        )]
    );
    // Two rules together hide a third.
    let together = [
        head,
        &rule("a", "sources = [\"10.250.0.0/25\"]"),
        &rule("b", "sources = [\"10.250.0.128/25\"]"),
        &rule("c", "sources = [\"@m\"]\nprotocol = \"udp\""),
    ]
    .concat();
    assert_eq!(
        findings(&together, ""),
        [(
            16,
            "rule \"c\" of m is never reached: before it matches \"a\" in line 8, \"b\" in line 12"
                .to_owned(),
            false
        )]
    );
    let other = "[[plane]]\nname = \"s\"\ninterfaces = [\"wg-*\"]\nprefixes = [\"10.250.0.0/24\", \"10.250.0.64/26\"]\n";
    let found = findings(&[head, other].concat(), "");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|(line, ..)| *line == 8), "{found:?}");
    assert_eq!(
        found.iter().filter(|(.., grave)| *grave).count(),
        2,
        "{found:?}"
    );

    let cut = findings(head, "203.0.113.1 50000 10.250.0.2 22");
    assert_eq!(
        cut,
        [(
            3,
            "this would cut the session you type in, 203.0.113.1:50000 > 10.250.0.2:22 on \"m\": \
             drop: no rule matches (default of m, line 3)"
                .to_owned(),
            true
        )]
    );
    assert!(findings(head, "10.250.0.5 50000 10.250.0.2 22").is_empty());
    let audit = head.replace("enforce", "audit");
    let cut = findings(&audit, "203.0.113.1 50000 10.250.0.2 22");
    assert!(matches!(&cut[..], [(3, _, false)]), "{cut:?}");
}

#[test]
fn errors_name_their_line() {
    for (text, message) in [
        ("", "p:1:1: no [[plane]]: nothing to enforce"),
        ("[[plane]\n", "p:1:9: "),
        (
            "[[plane]]\nname = \"a\"\ninterface = [\"x\"]",
            "p:1:1: [[plane]] without interfaces\np:3:1: unknown key \"interface\" in [[plane]] (did you mean \"interfaces\"?)",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = [\"x\"]\nmode = \"enforced\"",
            "p:4:8: mode in [[plane]] must be \"audit\" or \"enforce\" (did you mean \"enforce\"?)",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = [\"x\"]\nprefixes = [\"10.0.0.1/24\"]",
            "p:4:13: prefixes in [[plane]] has bits behind its length: write \"10.0.0.0/24\", not \"10.0.0.1/24\"",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[[plane.rule]]\nname = \"r\"",
            "p:4:1: a rule without a verdict: \"allow\" or \"drop\"",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nports = [22]",
            "p:4:1: ports need protocol = \"tcp\", \"udp\" or both",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nprotocol = \"tcp\"\nports = [70000]",
            "p:8:10: ports in [[plane.rule]] must be ports such as 22 or \"8000-8100\"",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[[plane.rule]]\nname = \"r\"\nverdict = \"drop\"\nrate = \"5/s\"",
            "p:4:1: a rate on a rule that drops: there is nothing to limit",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nsources = [\"@nobody\"]",
            "p:7:12: no set or plane \"nobody\" here",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\n[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"",
            "p:8:8: a second rule \"r\" here",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[[cross]]\nname = \"c\"\nfrom = \"a\"\nto = \"a\"",
            "p:4:1: from and to are the same plane",
        ),
        (
            "[[plane]]\nname = \"a\"\ninterfaces = \"x\"\n[sets]\nbad = { file = \"/nonexistent\" }",
            "p:5:7: /nonexistent: cannot be read: entity not found",
        ),
    ] {
        let error = read::parse(text, "p", &no_files).unwrap_err().to_string();
        assert!(
            error.starts_with(message),
            "{text}\n  found {error}\n  wanted {message}"
        );
    }
}

#[test]
fn files_of_sets_are_read_and_their_errors_have_their_line() {
    let text = "[sets]\nlist = { file = \"/list\" }\n[[plane]]\nname = \"a\"\ninterfaces = \"x\"\nblock = [\"list\"]";
    let with = |content: &'static str| {
        read::parse(text, "p", &move |path| {
            assert_eq!(path.to_str(), Some("/list"));
            Ok(content.as_bytes().to_vec())
        })
    };
    let policy =
        with("; Spamhaus\n10.0.0.0/8 ; SBL1\n\n# none\n2001:db8::/32\n10.0.0.0/8\n").unwrap();
    assert_eq!(
        format!("{:?}", policy.sets[0].prefixes),
        "[10.0.0.0/8, 2001:db8::/32]"
    );
    let error = with("10.0.0.0/8\n10.0.0/8\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "p:2:8: /list:2: must be a prefix such as \"10.0.0.0/24\", not \"10.0.0/8\""
    );
}
