//! From bytes to facts: link and IP headers.

use super::{
    address::Address,
    facts::{Facts, Family, Fragment, Malformed},
    transport,
};

/// Extension headers that are followed.
pub const EXTENSIONS: usize = 8;

/// The bytes of a packet. Every load is checked against the end, as the
/// verifier demands and as a slice does by itself.
pub trait Packet {
    /// Bytes that have arrived.
    fn length(&self) -> usize;
    /// `N` bytes from offset `at`; `None` where the packet ends before.
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]>;
}

impl Packet for [u8] {
    #[inline(always)]
    fn length(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }
}

/// What a packet begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// A header of Ethernet.
    Ethernet,
    /// That of IP: WireGuard and other tunnels.
    Bare,
}

/// Reads a packet.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P, link: Link) -> Facts {
    let mut facts = Facts {
        length: packet.length() as u32,
        ..Facts::default()
    };
    read(packet, link, &mut facts);
    facts
}

/// The same into facts that have the length of the packet and nothing else.
#[inline(always)]
pub fn read<P: Packet + ?Sized>(packet: &P, link: Link, facts: &mut Facts) {
    // One place for the transport's header, wherever IP has led to it: the
    // code is there once.
    let result = frame(packet, link, facts).and_then(|payload| match payload {
        Some(payload) => transport::read(packet, payload.at, payload.left, facts),
        None => Ok(()),
    });
    if let Err(reason) = result {
        facts.malformed = reason;
    }
}

/// What IP carries, and where.
struct Payload {
    at: usize,
    left: usize,
}

/// Loads, or says that the packet is too short.
#[inline(always)]
pub(super) fn load<const N: usize, P: Packet + ?Sized>(
    packet: &P,
    at: usize,
) -> Result<[u8; N], Malformed> {
    packet.load(at).ok_or(Malformed::Truncated)
}

#[inline(always)]
fn frame<P: Packet + ?Sized>(
    packet: &P,
    link: Link,
    facts: &mut Facts,
) -> Result<Option<Payload>, Malformed> {
    let (family, at) = match link {
        Link::Ethernet => ethernet(packet, facts)?,
        // Two bytes: a comparison for one is of a form that verifiers learn
        // nothing from (kernel/bpf/verifier.c: find_good_pkt_pointers).
        Link::Bare => match load(packet, 0)? {
            [0x40..=0x4f, _] => (Family::V4, 0),
            [0x60..=0x6f, _] => (Family::V6, 0),
            _ => return Err(Malformed::Version),
        },
    };
    facts.family = family;
    match family {
        Family::V4 => v4(packet, at, facts),
        Family::V6 => v6(packet, at, facts),
        // Ethernet and IPv4: RFC 826. The last two of 28 bytes are there if
        // all are.
        Family::Arp => load::<2, P>(packet, at + 26).map(|_| None),
        Family::Other => Ok(None),
    }
}

/// What a frame of Ethernet carries, behind up to two VLAN tags (802.1Q and
/// 802.1ad), and where.
#[inline(always)]
fn ethernet<P: Packet + ?Sized>(
    packet: &P,
    facts: &mut Facts,
) -> Result<(Family, usize), Malformed> {
    let mut at = 14;
    for tags in 0..3 {
        let family = match u16::from_be_bytes(load(packet, at - 2)?) {
            0x8100 | 0x88a8 if tags == 2 => return Err(Malformed::VlanStack),
            0x8100 | 0x88a8 => {
                facts.vlans = tags + 1;
                at += 4;
                continue;
            }
            0x0800 => Family::V4,
            0x86dd => Family::V6,
            0x0806 => Family::Arp,
            _ => Family::Other,
        };
        return Ok((family, at));
    }
    Ok((Family::Other, at))
}

#[inline(always)]
fn v4<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    facts: &mut Facts,
) -> Result<Option<Payload>, Malformed> {
    // RFC 791, in the words that it is made of.
    let head: [u8; 8] = load(packet, at)?;
    let [_, protocol, _, _, source @ ..]: [u8; 8] = load(packet, at + 8)?;
    let destination = load(packet, at + 16)?;
    if head[0] >> 4 != 4 {
        return Err(Malformed::Version);
    }
    facts.source = Address::v4(source);
    facts.destination = Address::v4(destination);
    facts.protocol = protocol;
    let own = usize::from(head[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if own < 20 {
        return Err(Malformed::HeaderLength);
    }
    facts.length = total as u32;
    if total < own || at + total > packet.length() {
        return Err(Malformed::Length);
    }
    let field = u16::from_be_bytes([head[6], head[7]]);
    let payload = total - own;
    part(field & 0x1fff, field & 0x2000 != 0, payload, facts)?;
    Ok(Some(Payload {
        at: at + own,
        left: payload,
    }))
}

#[inline(always)]
fn v6<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    facts: &mut Facts,
) -> Result<Option<Payload>, Malformed> {
    let head: [u8; 8] = load(packet, at)?;
    if head[0] >> 4 != 6 {
        return Err(Malformed::Version);
    }
    facts.source = Address::v6(load(packet, at + 8)?, load(packet, at + 16)?);
    facts.destination = Address::v6(load(packet, at + 24)?, load(packet, at + 32)?);
    let mut left = usize::from(u16::from_be_bytes([head[4], head[5]]));
    facts.length = left as u32 + 40;
    facts.protocol = head[6];
    if at + 40 + left > packet.length() {
        return Err(Malformed::Length);
    }
    if facts.source.is_mapped() || facts.destination.is_mapped() {
        return Err(Malformed::MappedAddress);
    }
    let mut at = at + 40;
    for number in 0..=EXTENSIONS {
        // Numbers of extension headers: IANA, protocol-numbers. That of AH
        // (51) is a protocol here, as it is for IPv4.
        let kind = facts.protocol;
        if !matches!(kind, 0 | 43 | 44 | 60 | 135 | 139 | 140) {
            return Ok(Some(Payload { at, left }));
        }
        if number == EXTENSIONS {
            break;
        }
        if kind == 0 && number > 0 {
            return Err(Malformed::ExtensionOrder);
        }
        let header: [u8; 4] = if left >= 8 {
            load(packet, at)?
        } else {
            return Err(Malformed::Truncated);
        };
        let own = if kind == 44 {
            8
        } else {
            (usize::from(header[1]) + 1) * 8
        };
        if own > left {
            return Err(Malformed::HeaderLength);
        }
        if kind == 43 && header[2] == 0 {
            return Err(Malformed::SourceRoute);
        }
        facts.protocol = header[0];
        at += own;
        left -= own;
        if kind == 44 {
            let field = u16::from_be_bytes([header[2], header[3]]);
            part(field >> 3, field & 1 != 0, left, facts)?;
            if facts.fragment == Fragment::Later {
                return Ok(None);
            }
        }
    }
    Err(Malformed::Extensions)
}

/// Which part of a datagram it is; `offset` counts units of 8 bytes.
#[inline(always)]
fn part(offset: u16, more: bool, payload: usize, facts: &mut Facts) -> Result<(), Malformed> {
    facts.fragment = match (offset, more) {
        (0, false) => return Ok(()),
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    };
    if more && !payload.is_multiple_of(8) {
        return Err(Malformed::TinyFragment);
    }
    let inside_tcp = facts.protocol == transport::TCP && (1..=2).contains(&offset);
    if inside_tcp || usize::from(offset) * 8 + payload > 65_535 {
        return Err(Malformed::OverlappingFragment);
    }
    Ok(())
}
