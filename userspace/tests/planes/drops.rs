//! How many packets are dropped in a second, between two interfaces, against
//! nftables with the same policy: `cargo test -p kldtrace --test=planes --
//! --ignored --nocapture drops`. Nothing is asserted but that they are dropped.

use std::{io, os::fd::AsRawFd as _, time::Instant};

use kldtrace::planes::{
    compile,
    install::{Programs, write},
};
use kldtrace_abi::plane::{Action, Link, Outcome, Reason, count::counter};

use super::{
    agree::read,
    cost::told,
    kernel::root,
    packet::Packet,
    pair::{Pair, sh},
    run,
    spoof::sending,
    veth::{POLICY, attach},
};

const ROUNDS: usize = 7;
const PACKETS: u32 = 1_000_000;

/// The policy of the pair, as nftables has it.
const NFT: &str = "table inet f {
    chain in {
        type filter hook input priority 0; policy accept;
        ct state established,related accept
        meta l4proto { tcp, udp } th dport 7001 accept
        icmp type echo-request accept
        counter drop
    }
}";

/// Lets the node's interface take frames that have no buffer of a socket yet,
/// as it does with a program of XDP: by GRO.
fn gro() -> io::Result<()> {
    /// include/uapi/linux/ethtool.h and sockios.h.
    const ETHTOOL_SGRO: u32 = 0x2c;
    const SIOCETHTOOL: u64 = 0x8946;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    let mut value = [ETHTOOL_SGRO, 1];
    // `struct ifreq`: a name of 16 bytes, and a pointer.
    let mut request = [0_u64; 5];
    request[0] = u64::from_le_bytes(*b"node\0\0\0\0");
    request[2] = value.as_mut_ptr() as u64;
    // SAFETY: the kernel reads and writes both, which live until it returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, request.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Packets that nftables has dropped in a namespace.
fn dropped(node: &str) -> u64 {
    let listing = std::process::Command::new("ip")
        .args(["netns", "exec", node, "nft", "list", "ruleset"])
        .output()
        .unwrap();
    let text = String::from_utf8(listing.stdout).unwrap();
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[test]
#[ignore = "measures: wants a quiet machine"]
fn drops_per_second() {
    if !root() {
        return;
    }
    if !sh("command -v nft") {
        println!("skipped: nftables is not installed");
        return;
    }
    let pair = Pair::new("drops");
    let compiled = compile::image(&read(POLICY), 1).unwrap();
    let image = write(&compiled.cells).unwrap();
    let node = &pair.node;
    Pair::within(node, || gro().unwrap());
    let index = Pair::within(&pair.peer, || {
        nix::net::if_::if_nametoindex("peer").unwrap()
    });
    let packet = Packet {
        link: Link::Ethernet,
        protocol: 17,
        ..Packet::tcp(
            "10.99.0.2".parse().unwrap(),
            "10.99.0.1".parse().unwrap(),
            9,
        )
    };
    let mut bytes = packet.bytes();
    // To the node's own address, or its stack drops it before nftables.
    let output = std::process::Command::new("ip")
        .args(["netns", "exec", node, "cat", "/sys/class/net/node/address"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for (byte, digits) in bytes.iter_mut().zip(text.trim().split(':')) {
        *byte = u8::from_str_radix(digits, 16).unwrap();
    }
    // In the order of memory, as the program adds.
    let sum = |bytes: &[u8]| {
        let words = bytes
            .chunks(2)
            .map(|pair| u32::from(u16::from_ne_bytes([pair[0], pair[1]])));
        let sum = words.sum::<u32>();
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + sum) as u16
    };
    let rest = sum(&[&bytes[14..26], &bytes[30..34]].concat());
    let checksum = !sum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&checksum.to_ne_bytes());
    for spoof in [None, Some(rest)] {
        let sender = sending(spoof).unwrap();
        let send = || {
            let started = Instant::now();
            Pair::within(&pair.peer, || {
                run::live(&sender, &bytes, PACKETS, index).unwrap();
            });
            started.elapsed().as_secs_f64()
        };
        let (mut ours, mut nft) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let mut programs = Programs::load(1, Link::Ethernet, 100, false).unwrap();
            programs.swap(&image).unwrap();
            let counts = programs.counts().unwrap();
            Pair::within(node, || attach(&mut programs));
            let time = send();
            let default = compiled.rules.len() as u32;
            let outcome = Outcome {
                action: Action::Drop,
                reason: Reason::Default,
                detail: 0,
                limited: 0,
                rule: default,
                counter: default,
            };
            let packets = counts.read(counter(1, &outcome)).unwrap().packets;
            assert!(packets > 0);
            ours.push(packets as f64 / time);
            drop(programs);

            let rules = std::env::temp_dir().join(format!("drops-{}.nft", std::process::id()));
            std::fs::write(&rules, NFT).unwrap();
            let file = rules.display();
            assert!(sh(&format!("ip netns exec {node} nft -f {file}")));
            std::fs::remove_file(&rules).unwrap();
            let time = send();
            let packets = dropped(node);
            assert!(packets > 0);
            nft.push(packets as f64 / time);
            assert!(sh(&format!("ip netns exec {node} nft flush ruleset")));
        }
        let (ours, nft) = (median(ours), median(nft));
        let sources = if spoof.is_some() {
            "any source"
        } else {
            "one source"
        };
        println!(
            "  {sources}: planes {ours:.0} a second, nftables {nft:.0}: {:.2}",
            ours / nft
        );
        told(&serde_json::json!({"sources": sources, "planes": ours, "nftables": nft}));
    }
}
