//! What verdicts are made from, each by itself. The whole is tested where
//! policies are compiled.

use std::collections::HashSet;

use kldtrace_abi::plane::{
    Address, Facts, Family, Flow, FlowKey, Fragment, Rate,
    flow::begins,
    image::{self, Cell},
    rate::{BucketKey, SETS, Set, Taken, WAYS},
    service::{self, Always, Service},
    table::{self, Classes},
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// A bucket of tokens as textbooks have it, in whole nanoseconds of credit.
struct Tokens {
    credit: u64,
    filled: u64,
}

impl Tokens {
    fn take(&mut self, rate: Rate, now: u64) -> bool {
        let most = rate.early + rate.interval;
        self.credit = most.min(self.credit + (now - self.filled));
        self.filled = now;
        let enough = self.credit >= rate.interval;
        if enough {
            self.credit -= rate.interval;
        }
        enough
    }
}

proptest! {
    #[test]
    fn a_rate_is_a_bucket_of_tokens(
        interval in 1..SECOND,
        burst in 1..50_u64,
        waits in prop::collection::vec(0..3 * SECOND, 1..200),
    ) {
        let rate = Rate { interval, early: (burst - 1) * interval };
        // Monotonic time is later than any burst on a node that has booted.
        let mut now = 100 * SECOND;
        let mut set = Set::default();
        let mut tokens = Tokens { credit: burst * interval, filled: now };
        for wait in waits {
            now += wait / burst;
            let expected = if tokens.take(rate, now) { Taken::Within } else { Taken::Over };
            prop_assert_eq!(set.take(5, rate, now), expected);
        }
    }

    /// As many sources as there are ways have each their own share; one more takes
    /// the place of who owes least, which is said if that still owes something.
    #[test]
    fn who_owes_least_gives_way(wait in 0..20 * SECOND, taken in prop::collection::vec(1..10_u64, WAYS)) {
        let rate = Rate { interval: SECOND, early: 9 * SECOND };
        let mut set = Set::default();
        let now = 100 * SECOND;
        for (source, taken) in (1..).zip(&taken) {
            for _ in 0..*taken {
                prop_assert_eq!(set.take(source, rate, now), Taken::Within);
            }
        }
        let now = now + wait;
        let least = *taken.iter().min().unwrap_or(&0);
        let owes = least * SECOND > wait;
        let expected = if owes { Taken::Crowded } else { Taken::Within };
        prop_assert_eq!(set.take(99, rate, now), expected);
        let gone = taken.iter().position(|one| *one == least);
        for (place, (source, taken)) in (1..).zip(&taken).enumerate() {
            // As it was, unless it has given way: then it has all of its share.
            if Some(place) != gone {
                let left = 10 - (taken * SECOND).saturating_sub(wait).div_ceil(SECOND);
                for _ in 0..left {
                    prop_assert_eq!(set.take(source, rate, now), Taken::Within);
                }
                prop_assert_eq!(set.take(source, rate, now), Taken::Over);
            }
        }
    }

    /// Bits of keys do not run into each other, and no key is 0, which is a
    /// free slot.
    #[test]
    fn keys_are_told_apart(
        domain in 1..=255_u8, source in 0..1_u32 << 20, destination in 0..1_u32 << 20,
        class in 0..=Service::CLASSES, protocol: u8, form in 0..8_u32,
    ) {
        let service = Service::new(class, protocol, 0);
        let classes = Classes {
            domain, source, destination,
            service: service.class(),
            protocol: service.protocol(),
        };
        let key = classes.key(form);
        prop_assert_ne!(key, 0);
        prop_assert_eq!(key >> 56, u64::from(domain));
        let part = |bit: u32, value: u32| u64::from(if form & bit == 0 { 0 } else { value });
        prop_assert_eq!(key >> 36 & 0xf_ffff, part(1, source));
        prop_assert_eq!(key >> 16 & 0xf_ffff, part(2, destination));
        prop_assert_eq!(key & 0xffff > u64::from(Service::CLASSES), form & 4 == 0);
        let (one, other) = table::buckets(key, 7, 1000);
        prop_assert!(one < 1000 && other < 1000);
    }
}

#[test]
fn hosts_of_ipv6_share_a_bucket_with_their_network() {
    let of = |family, first, last| Facts {
        source: Address(first, last),
        family,
        ..facts(6)
    };
    let host = of(Family::V6, 7, 8);
    let one = BucketKey::plane(&host, 3);
    assert_eq!(BucketKey::plane(&of(Family::V6, 7, 9), 3), one);
    assert_ne!(BucketKey::plane(&of(Family::V4, 7, 8), 3), one);
    assert_ne!(BucketKey::plane(&of(Family::V6, 8, 8), 3), one);
    assert_ne!(BucketKey::plane(&host, 4), one);
    assert_ne!(BucketKey::rule(&host, 3), one);
    let (mark, set) = one.mark();
    assert!(mark != 0 && set < SETS);
}

/// Sources that are near each other, and rates of one source, lie in all sets: else
/// there is room for fewer than it seems.
#[test]
fn buckets_spread_over_all_sets() {
    let mut seen = HashSet::new();
    let mut marks = HashSet::new();
    for host in 0..1 << 17 {
        let source = Address::v4((0x0a00_0000_u32 + host).to_be_bytes());
        let facts = Facts {
            source,
            ..facts(17)
        };
        let (mark, set) = BucketKey::rule(&facts, host % 3).mark();
        seen.insert(set);
        marks.insert(mark);
    }
    assert_eq!(marks.len(), 1 << 17);
    // By chance e^-4 of all have none.
    assert!(seen.len() > SETS as usize * 97 / 100, "{}", seen.len());
}

fn facts(protocol: u8) -> Facts {
    Facts {
        source: Address::v4([10, 0, 0, 1]),
        destination: Address::v4([10, 0, 0, 2]),
        source_port: 4000,
        destination_port: 22,
        family: Family::V4,
        protocol,
        ..Facts::default()
    }
}

#[test]
fn only_answers_and_whole_or_first_parts_belong_to_flows() {
    let question = Facts {
        icmp_type: 8,
        source_port: 0,
        destination_port: 0,
        ..facts(1)
    };
    assert_eq!(FlowKey::arriving(&question, 1), None);
    let answer = Facts {
        icmp_type: 0,
        ..question
    };
    assert_eq!(
        FlowKey::arriving(&answer, 1).map(|key| key.local_port),
        Some(0)
    );
    let later = Facts {
        fragment: Fragment::Later,
        ..facts(17)
    };
    assert_eq!(FlowKey::arriving(&later, 1), None);
    let (one, two) = (
        FlowKey::arriving(&facts(6), 1),
        FlowKey::arriving(&facts(6), 2),
    );
    assert!(one.is_some() && one != two);
    for (flags, first) in [(0x02, true), (0x12, false), (0x10, false), (0xc2, true)] {
        let segment = Facts {
            tcp_flags: flags,
            ..facts(6)
        };
        assert_eq!(begins(&segment), first, "{flags:#x}");
    }
}

#[test]
fn a_flow_ends_with_its_time_and_a_rules_flow_with_its_policy() {
    let own = Flow {
        seen: 10 * SECOND,
        generation: 0,
        rule: 0,
    };
    assert!(own.admits(17, 1, 100 * SECOND) && own.admits(17, 2, 100 * SECOND));
    assert!(!own.admits(17, 1, 130 * SECOND), "UDP");
    assert!(own.admits(6, 1, 130 * SECOND), "TCP");
    let of_rule = Flow {
        generation: 4,
        rule: 9,
        ..own
    };
    assert!(of_rule.admits(6, 4, 11 * SECOND) && !of_rule.admits(6, 5, 11 * SECOND));
    let refused = Flow { rule: 0, ..of_rule };
    assert!(!refused.admits(6, 4, 11 * SECOND));
    let mut seen = own;
    assert!(!seen.see(10 * SECOND + SECOND / 2));
    assert_eq!(seen.seen, own.seen);
    assert!(seen.see(12 * SECOND));
    assert_eq!(seen.seen, 12 * SECOND);
}

/// The places of the array of services, and what always passes, by the
/// numbers of the RFCs.
#[test]
fn services_have_places_of_their_own() {
    let icmp = |family, protocol, kind, code| Facts {
        family,
        icmp_type: kind,
        icmp_code: code,
        ..facts(protocol)
    };
    let later = Facts {
        fragment: Fragment::Later,
        ..facts(17)
    };
    let dhcp = Facts {
        destination_port: 68,
        ..facts(17)
    };
    let cases = [
        (facts(6), 22, None),
        (facts(17), service::UDP_PORTS + 22, None),
        (dhcp, service::UDP_PORTS + 68, Some(Always::Dhcp)),
        (icmp(Family::V4, 1, 3, 1), service::ICMP_TYPES + 3, None),
        (
            icmp(Family::V4, 1, 3, 4),
            service::ICMP_TOO_BIG,
            Some(Always::PathMtu),
        ),
        (
            icmp(Family::V6, 58, 2, 0),
            service::ICMPV6_TYPES + 2,
            Some(Always::PathMtu),
        ),
        (
            icmp(Family::V6, 58, 135, 0),
            service::ICMPV6_TYPES + 135,
            Some(Always::Neighbours),
        ),
        // ICMP in the wrong family is a protocol like any other.
        (icmp(Family::V6, 1, 3, 4), service::PROTOCOLS + 1, None),
        (icmp(Family::V4, 58, 135, 0), service::PROTOCOLS + 58, None),
        (facts(2), service::PROTOCOLS + 2, Some(Always::Multicast)),
        (later, service::LATER + 17, None),
        (
            Facts {
                protocol: 255,
                ..later
            },
            service::ENTRIES - 1,
            None,
        ),
    ];
    for (facts, entry, always) in cases {
        assert_eq!(service::entry(&facts), entry, "{facts:?}");
        assert_eq!(Always::of(entry), always, "{facts:?}");
    }
}

#[test]
fn addresses_have_their_first_bit_on_top() {
    let v4 = Address::v4([10, 1, 2, 3]);
    assert_eq!(v4, Address(0x0a01_0203_0000_0000, 0));
    let v6 = Address::v6([1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15, 16]);
    assert!(!v6.is_mapped() && Address::v6([0; 8], [0, 0, 255, 255, 10, 0, 0, 1]).is_mapped());
    assert_eq!(v6, Address(0x0102_0304_0506_0708, 0x090a_0b0c_0d0e_0f10));
}

#[test]
fn a_cell_is_read_as_it_is_written() {
    let mut cell = Cell::default();
    *cell.at_mut::<u32>(15) = 7;
    assert_eq!((*cell.at::<u32>(15), cell.0[7] >> 32), (7, 7));
    cell.at_mut::<image::Rule>(1).counter = 9;
    assert_eq!(cell.at::<image::Rule>(1).counter, 9);
    assert_eq!(cell.at::<image::Rule>(0).counter, 0);
}
