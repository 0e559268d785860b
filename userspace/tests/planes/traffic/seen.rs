//! What nftables counts of first packets in a namespace: a second opinion on
//! what was sent, and on what has passed the planes' filters.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use serde_json::Value as Json;

use super::net::Net;

/// A first packet: interface, protocol, source, destination, and port.
pub type First = (String, &'static str, String, String, u16);

/// Where packets are counted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Where they have come in, and have passed the planes' filters; there
    /// they end, and nothing answers.
    End,
    /// Where they leave.
    Leaving,
}

const SETS: [(&str, &str, &str); 4] = [
    ("tcp4", "ip", "tcp"),
    ("tcp6", "ip6", "tcp"),
    ("udp4", "ip", "udp"),
    ("udp6", "ip6", "udp"),
];

const SYN: &str = "tcp flags & (syn|ack) == syn";

/// Begins to count in a namespace: SYNs, and datagrams.
pub fn watch(net: &Net, space: &str, at: At) {
    let (hook, device) = match at {
        At::Leaving => ("output", "oifname"),
        At::End => ("prerouting", "iifname"),
    };
    let mut sets = String::new();
    let mut rules = String::new();
    for (set, family, protocol) in SETS {
        let key = format!("{device} . {family} saddr . {family} daddr . {protocol} dport");
        let first = if protocol == "tcp" { SYN } else { "" };
        writeln!(
            sets,
            "set {set} {{ typeof {key}; flags dynamic; size 65535; counter; }}"
        )
        .unwrap();
        writeln!(rules, "{first} add @{set} {{ {key} }}").unwrap();
    }
    if at == At::End {
        writeln!(rules, "{SYN} drop\nmeta l4proto udp drop").unwrap();
    }
    let file = net.path(&format!("{space}.nft"));
    let text = format!(
        "table inet seen {{\n{sets}chain first {{ type filter hook {hook} priority raw; \
         policy accept;\n{rules}}}\n}}\n"
    );
    fs::write(&file, text).unwrap();
    net.ok(space, &format!("nft -f {file}"));
}

/// First packets so far.
pub fn seen(net: &Net, space: &str) -> BTreeMap<First, u64> {
    let mut seen = BTreeMap::new();
    for (set, _, protocol) in SETS {
        let listing = net.ok(space, &format!("nft -j list set inet seen {set}"));
        let listing: Json = serde_json::from_str(&listing).unwrap();
        let items = listing["nftables"].as_array().unwrap();
        let set = items.iter().find_map(|item| item.get("set")).unwrap();
        for element in set["elem"].as_array().into_iter().flatten() {
            let element = &element["elem"];
            let packets = element["counter"]["packets"].as_u64().unwrap();
            let [device, from, to, port] = &element["val"]["concat"].as_array().unwrap()[..] else {
                panic!("{element}");
            };
            let text = |value: &Json| value.as_str().unwrap().to_owned();
            let port = u16::try_from(port.as_u64().unwrap()).unwrap();
            let first = (text(device), protocol, text(from), text(to), port);
            assert_eq!(seen.insert(first, packets), None, "{element}");
        }
    }
    seen
}
