//! The packet parser, on packets written by hand from the RFCs.

use kldtrace_abi::plane::{Address, Facts, Family, Fragment, Link, Malformed, parse};
use proptest::prelude::*;

const SOURCE: [u8; 4] = [10, 252, 0, 9];
const DESTINATION: [u8; 4] = [10, 251, 0, 2];

/// IPv4 by RFC 791; `field` is flags and fragment offset.
fn v4(protocol: u8, field: u16, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let own = 20 + options.len();
    let total = u16::try_from(own + payload.len()).unwrap().to_be_bytes();
    let field = field.to_be_bytes();
    let first = 0x40 | u8::try_from(own / 4).unwrap();
    let mut packet = vec![first, 0, total[0], total[1], 0, 1, field[0], field[1]];
    packet.extend([64, protocol, 0, 0]);
    packet.extend(SOURCE.iter().chain(&DESTINATION));
    packet.extend(options.iter().chain(payload));
    packet
}

/// IPv6 by RFC 8200.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    packet.extend([0xfd; 16].iter().chain(&[0xfe; 16]).chain(payload));
    packet
}

/// TCP from port 4000 to 2049, SYN, by RFC 9293.
fn tcp() -> Vec<u8> {
    let mut header = vec![0x0f, 0xa0, 0x08, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2];
    header.extend([0; 6]);
    header
}

fn ethernet(tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

fn bare(packet: &[u8]) -> Facts {
    parse(packet, Link::Bare)
}

#[test]
fn tcp_is_read_behind_options_tags_and_extension_headers() {
    let options = v4(6, 0, &[1; 40], &tcp());
    let padding = [6, 0, 1, 4, 0, 0, 0, 0];
    let extended = v6(60, &[&padding[..], &tcp()].concat());
    let frames = [
        (ethernet(&[], 0x0800, &options), 0),
        (ethernet(&[0x8100], 0x0800, &options), 1),
        (ethernet(&[0x88a8, 0x8100], 0x86dd, &v6(6, &tcp())), 2),
    ];
    assert_eq!(bare(&extended).destination_port, 2049);
    for (frame, vlans) in frames {
        let facts = parse(&frame[..], Link::Ethernet);
        assert_eq!(facts.malformed, Malformed::No, "{facts:?}");
        assert_eq!((facts.source_port, facts.destination_port), (4000, 2049));
        assert_eq!((facts.tcp_flags, facts.vlans), (2, vlans));
    }
    let facts = bare(&options);
    assert_eq!(facts.source, Address::v4(SOURCE));
    assert_eq!(facts.destination, Address::v4(DESTINATION));
    assert_eq!((facts.family, facts.length), (Family::V4, 80));
}

/// Every cut is told: a length in the header says what is missing.
#[test]
fn a_packet_cut_at_any_byte_is_malformed() {
    let whole = [
        (Link::Bare, v4(6, 0, &[1; 40], &tcp())),
        (Link::Bare, v6(6, &tcp())),
        (
            Link::Ethernet,
            ethernet(&[0x8100], 0x0800, &v4(6, 0, &[], &tcp())),
        ),
        (Link::Ethernet, ethernet(&[], 0x0806, &[0; 28])),
    ];
    for (link, packet) in whole {
        assert_eq!(parse(&packet[..], link).malformed, Malformed::No);
        for end in 0..packet.len() {
            let facts = parse(&packet[..end], link);
            assert_ne!(facts.malformed, Malformed::No, "{link:?} {end}: {facts:?}");
        }
    }
}

#[test]
fn each_malformed_packet_has_its_reason() {
    use Malformed as M;
    let chain = |headers: usize| {
        let mut payload = Vec::new();
        for number in 1..=headers {
            payload.extend([if number == headers { 6 } else { 60 }, 0, 0, 0, 0, 0, 0, 0]);
        }
        v6(60, &[payload, tcp()].concat())
    };
    let mut short = v4(6, 0, &[], &tcp());
    short[0] = 0x44;
    let mut mapped = v6(6, &tcp());
    mapped[8..20].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255]);
    let udp = |length: u8| v4(17, 0, &[], &[0, 1, 0, 2, 0, length, 0, 0]);
    let cases = [
        (chain(8), M::No),
        (chain(9), M::Extensions),
        (
            v6(60, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0]),
            M::ExtensionOrder,
        ),
        (v6(43, &[6, 0, 0, 0, 0, 0, 0, 0]), M::SourceRoute),
        (v6(60, &[6, 9, 0, 0, 0, 0, 0, 0]), M::HeaderLength),
        (mapped, M::MappedAddress),
        (short, M::HeaderLength),
        (vec![0x50; 40], M::Version),
        (udp(8), M::No),
        (udp(7), M::Length),
        (udp(9), M::Length),
        // RFC 1858: a first fragment with the ports and no flags.
        (v4(6, 0x2000, &[], &tcp()[..8]), M::TinyFragment),
        (v4(6, 0x2000, &[], &[&tcp()[..], &[0; 4]].concat()), M::No),
        (v4(6, 0x2003, &[], &[0; 9]), M::TinyFragment),
        // RFC 3128: the second would replace the flags of the first.
        (v4(6, 1, &[], &[0; 8]), M::OverlappingFragment),
        (v4(17, 0x1fff, &[], &[0; 8]), M::OverlappingFragment),
        (v4(17, 0x1fff, &[], &[0; 7]), M::No),
    ];
    for (packet, reason) in cases {
        let facts = bare(&packet);
        assert_eq!(facts.malformed, reason, "{packet:x?}: {facts:?}");
    }
    let three = ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &v4(6, 0, &[], &tcp()));
    let facts = parse(&three[..], Link::Ethernet);
    assert_eq!(facts.malformed, M::VlanStack);
}

#[test]
fn later_fragments_have_no_ports() {
    let v6_later = v6(44, &[&[17, 0, 0, 8, 0, 0, 0, 1][..], &[9; 8]].concat());
    for packet in [v4(17, 3, &[], &[9; 8]), v6_later] {
        let facts = bare(&packet);
        assert_eq!(facts.fragment, Fragment::Later);
        assert_eq!((facts.protocol, facts.destination_port), (17, 0));
    }
}

proptest! {
    /// No bytes make it panic, and what it accepts lies within the packet.
    #[test]
    fn any_bytes(packet: Vec<u8>, version in 4_u8..7, ethernet: bool) {
        let mut packet = packet;
        if let Some(first) = packet.first_mut() {
            *first = version << 4 | (*first & 15);
        }
        let link = if ethernet { Link::Ethernet } else { Link::Bare };
        let facts = parse(&packet[..], link);
        if facts.malformed == Malformed::No {
            prop_assert!(facts.length as usize <= packet.len());
        }
    }
}
