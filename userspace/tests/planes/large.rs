//! Policies of any size: what the cost of a packet is measured with.

use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;
use kldtrace::planes::policy::{Narrow, Plane, Policy, Prefix, Rule, Service, Set};
use kldtrace_abi::plane::{Rate, service::Always};

/// One plane with so many rules, each with a source of its own and a port, and
/// a block list of so many prefixes.
pub fn policy(rules: u32, prefixes: u32) -> Policy {
    let mut rng = Rng::with_seed(4);
    let v4 = |bits: u32, length: u8| Prefix::new(IpAddr::from(Ipv4Addr::from_bits(bits)), length);
    let rule = |number: u32| Rule {
        name: format!("r{number}"),
        line: number as usize + 2,
        pass: true,
        // Networks of 10.0.0.0/8, each once.
        sources: Some(vec![v4(0x0a00_0000 + (number << 8), 24)]),
        service: Service {
            protocols: vec![6],
            narrow: Narrow::Ports(vec![(
                1000 + (number % 60_000) as u16,
                1000 + (number % 60_000) as u16,
            )]),
        },
        ..Rule::default()
    };
    // From 64.0.0.0 on: hosts, and networks as published lists have them.
    let lengths = [32, 32, 32, 24, 24, 22, 20];
    let listed = (0..prefixes).map(|_| {
        let bits = 0x4000_0000 | rng.u32(..) >> 2;
        v4(bits, lengths[rng.usize(..lengths.len())])
    });
    Policy {
        planes: vec![Plane {
            name: "only".to_owned(),
            number: 1,
            line: 1,
            interfaces: vec!["x".to_owned()],
            prefixes: Vec::new(),
            pass: false,
            enforce: true,
            whole_only: false,
            other_frames: false,
            always: Always::ALL.to_vec(),
            block: vec![0],
            rate: Rate::default(),
            syn_rate: Rate::default(),
            wireguard: None,
            rules: (0..rules).map(rule).collect(),
        }],
        sets: vec![Set {
            name: "listed".to_owned(),
            line: 1,
            prefixes: listed.collect(),
        }],
        ..Policy::default()
    }
}
