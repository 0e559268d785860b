//! Listings that nft would print, and that it would not.
#![expect(
    clippy::needless_pass_by_value,
    reason = "JSON is written where it is handed over"
)]

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{Bound, Fate, Node, Packet, Ruleset, check, follow};
use crate::planes::{policy::Prefix, read};

fn node() -> Node {
    let mut node = Node::default();
    for (name, address, length) in [
        ("wg-storage", "10.251.0.1", 24),
        ("wg-workload", "10.252.0.1", 24),
        ("eth0", "192.0.2.7", 24),
    ] {
        let address = address.parse().unwrap();
        let link = Prefix::new(address, length);
        let addresses = vec![(address, link)];
        node.interfaces.insert(name.to_owned(), addresses);
    }
    node
}

fn packet() -> Packet {
    Packet {
        arrives: "wg-storage".to_owned(),
        bound: Bound::Here,
        source: "10.251.0.9".parse().unwrap(),
        destination: "10.251.0.1".parse().unwrap(),
        protocol: 6,
        port: 2049,
        kind: 0,
    }
}

fn chain(name: &str, hook: Option<(&str, &str)>) -> Json {
    let mut chain = json!({"family": "inet", "table": "t", "name": name, "handle": 1});
    if let Some((hook, policy)) = hook {
        chain["hook"] = hook.into();
        chain["prio"] = 0.into();
        chain["policy"] = policy.into();
    }
    json!({ "chain": chain })
}

fn rule(chain: &str, handle: u64, expressions: Json) -> Json {
    json!({"rule": {"family": "inet", "table": "t", "chain": chain, "handle": handle,
        "expr": expressions}})
}

fn read_all(objects: Vec<Json>) -> Ruleset {
    let bytes = json!({ "nftables": objects }).to_string();
    Ruleset::read(bytes.as_bytes()).unwrap()
}

fn dports(right: Json) -> Json {
    json!({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
        "right": right}})
}

#[test]
fn chains_that_jump_in_circles_or_without_end_are_given_up() {
    let mut objects = vec![chain("in", Some(("input", "accept")))];
    objects.extend((0..17).map(|number| chain(&format!("c{number}"), None)));
    let jump = |to: &str| json!([{"jump": {"target": to}}]);
    let mut circle = objects.clone();
    circle.push(rule("in", 1, jump("c0")));
    circle.push(rule("c0", 1, jump("c1")));
    circle.push(rule("c1", 1, jump("c0")));
    let fate = follow(&read_all(circle), &node(), &packet());
    assert!(
        matches!(&fate, Fate::Unknown(why) if why.contains("too deep")),
        "{fate:?}"
    );
    // Each chain jumps four times to the next: 4^17 ways.
    for number in 0..16 {
        let next = format!("c{}", number + 1);
        for handle in 0..4 {
            objects.push(rule(&format!("c{number}"), handle, jump(&next)));
        }
    }
    objects.push(rule("in", 1, jump("c1")));
    let fate = follow(&read_all(objects), &node(), &packet());
    assert_eq!(fate, Fate::Unknown("too many rules to follow".to_owned()));
}

#[test]
fn what_cannot_be_told_matters_only_where_it_decides() {
    let mark = json!({"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}});
    let fate = |policy: &str, verdict: Json| {
        let objects = vec![
            chain("in", Some(("input", policy))),
            rule("in", 7, json!([mark, verdict])),
        ];
        follow(&read_all(objects), &node(), &packet())
    };
    let unknown = Fate::Unknown("meta mark in chain inet t in, handle 7".to_owned());
    assert_eq!(fate("accept", json!({"accept": null})), Fate::Passes);
    assert_eq!(fate("accept", json!({"drop": null})), unknown);
    assert_eq!(fate("drop", json!({"accept": null})), unknown);
    let dropped = fate("drop", json!({"drop": null}));
    assert!(matches!(dropped, Fate::Dropped(_)), "{dropped:?}");
    // A destination that is translated is another packet.
    let translated = fate("accept", json!({"dnat": {"addr": "10.0.0.1"}}));
    assert!(matches!(translated, Fate::Unknown(_)), "{translated:?}");
}

#[test]
fn dormant_tables_and_other_interfaces_are_passed_over() {
    let mut objects = vec![
        json!({"table": {"family": "inet", "name": "t", "handle": 1, "flags": ["dormant"]}}),
        chain("in", Some(("input", "drop"))),
    ];
    assert_eq!(
        follow(&read_all(objects.clone()), &node(), &packet()),
        Fate::Passes
    );
    objects.remove(0);
    assert!(matches!(
        follow(&read_all(objects), &node(), &packet()),
        Fate::Dropped(_)
    ));
    let ingress = |device: &str| {
        let chain = json!({"chain": {"family": "netdev", "table": "t", "name": "i", "handle": 1,
            "dev": device, "hook": "ingress", "prio": 0, "policy": "drop"}});
        follow(&read_all(vec![chain]), &node(), &packet())
    };
    assert_eq!(ingress("eth0"), Fate::Passes);
    assert!(matches!(ingress("wg-storage"), Fate::Dropped(_)));
}

const POLICY: &str = r#"
[[plane]]
name = "storage"
interfaces = ["wg-storage"]
prefixes = ["10.251.0.0/24"]

[[plane.rule]]
name = "some"
verdict = "allow"
protocol = "tcp"
ports = ["2000-2100"]

[[plane.rule]]
name = "shadowed"
verdict = "allow"
protocol = "tcp"
ports = [2049]

[[plane]]
name = "workload"
interfaces = ["wg-workload"]
prefixes = ["10.252.0.0/24"]

[[cross]]
name = "volumes"
from = "workload"
to = "storage"
at = "both"
protocol = "tcp"
ports = [2049]

[[plane]]
name = "away"
interfaces = ["nowhere0"]

[[plane.rule]]
name = "unseen"
verdict = "allow"
"#;

#[test]
fn each_kind_of_packet_is_tried_where_it_goes() {
    let policy = read::parse(POLICY, "test", &|_| unreachable!()).unwrap();
    let said = |objects: Vec<Json>| {
        let found = check(&policy, &read_all(objects), &node()).unwrap();
        let lines = found
            .iter()
            .map(|one| format!("{}: {}", one.line, one.message));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(said(Vec::new()), [""; 0]);
    // One port in the middle of a range.
    let one = vec![
        chain("in", Some(("input", "accept"))),
        rule(
            "in",
            3,
            json!([dports(json!({"set": [2049]})), {"reject": null}]),
        ),
    ];
    let expected = [
        "7: nftables drops a part of what rule \"some\" allows, such as \
         tcp 10.251.0.2:40000 > 10.251.0.1:2049 on wg-storage: chain inet t in, handle 3",
        "24: nftables drops a part of what rule \"volumes\" allows, such as \
         tcp 10.252.0.2:40000 > 10.251.0.1:2049 on wg-workload: chain inet t in, handle 3",
    ];
    assert_eq!(said(one), expected);
    // What goes through the node meets another chain.
    let through = vec![
        chain("fwd", Some(("forward", "drop"))),
        rule(
            "fwd",
            4,
            json!([
                {"match": {"op": "==", "left": {"meta": {"key": "oifname"}}, "right": "wg-work*"}},
                {"accept": null}
            ]),
        ),
    ];
    let expected = "24: nftables drops a part of what rule \"volumes\" allows, such as \
         tcp 10.252.0.2:40000 > 10.251.0.2:2049 on wg-workload: chain inet t fwd, its policy";
    assert_eq!(said(through), [expected]);
}

/// JSON of the words that nft writes, in places where it may not.
fn listing() -> impl Strategy<Value = Json> {
    let words = [
        "nftables", "table", "chain", "rule", "set", "map", "elem", "family", "name", "handle",
        "hook", "prio", "policy", "expr", "match", "op", "left", "right", "==", "!=", "in",
        "payload", "protocol", "field", "saddr", "dport", "tcp", "ip", "meta", "key", "iifname",
        "ct", "state", "vmap", "data", "jump", "target", "accept", "drop", "prefix", "addr", "len",
        "range", "concat", "&", "inet", "t", "c", "input", "@t", "*", "10.0.0.1", "limit", "inv",
        "val", "reject", "type", "fib", "flags", "result", "daddr", "dev",
    ];
    let word = prop::sample::select(words.to_vec());
    let leaf = prop_oneof![
        word.clone().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        any::<bool>().prop_map(Json::from),
        Just(Json::Null),
    ];
    leaf.prop_recursive(8, 128, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::vec((word.clone(), inner), 0..6).prop_map(|entries| {
                let entries = entries.into_iter();
                entries
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_listing_makes_it_panic(
        objects in prop::collection::vec(listing(), 0..6),
        expressions in prop::collection::vec(listing(), 0..6),
        elements in listing(),
    ) {
        let bytes = json!({ "nftables": objects }).to_string();
        let _ = Ruleset::read(bytes.as_bytes());
        let objects = vec![
            json!({"set": {"family": "inet", "table": "t", "name": "t", "elem": [elements]}}),
            chain("c", Some(("input", "accept"))),
            rule("c", 1, expressions.clone().into()),
            rule("c", 2, json!([{"match": {"op": "==", "left": expressions, "right": elements}}])),
        ];
        let ruleset = read_all(objects);
        let _ = follow(&ruleset, &node(), &packet());
        let policy = read::parse(POLICY, "test", &|_| unreachable!()).unwrap();
        let _ = check(&policy, &ruleset, &node());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Ruleset::read(&bytes);
    }
}
