//! From bytes to facts: what IP carries.

use super::{
    facts::{Facts, Family, Fragment, Malformed, Message},
    parse::{Packet, load},
};

/// Protocol numbers: IANA, protocol-numbers.
pub(super) const TCP: u8 = 6;
pub(super) const ICMP: u8 = 1;
const IGMP: u8 = 2;
pub(super) const UDP: u8 = 17;
const GRE: u8 = 47;
const ESP: u8 = 50;
const AH: u8 = 51;
pub(super) const ICMPV6: u8 = 58;

/// Reads the header of `facts.protocol`, at `at` with `left` bytes. VXLAN is
/// UDP by its port; what it carries is not looked at.
#[inline(always)]
pub(super) fn read<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    left: usize,
    facts: &mut Facts,
) -> Result<(), Malformed> {
    if facts.fragment == Fragment::Later {
        return Ok(());
    }
    let least = match (facts.protocol, facts.family) {
        (TCP, _) => 20,
        (AH, _) => 12,
        (ICMP | IGMP, Family::V4) | (UDP | ESP, _) => 8,
        (ICMPV6, Family::V6) | (GRE, _) => 4,
        _ => return Ok(()),
    };
    if left < least {
        return Err(match facts.fragment {
            Fragment::Whole => Malformed::Truncated,
            _ => Malformed::TinyFragment,
        });
    }
    match (facts.protocol, facts.family) {
        (TCP, _) => {
            ports(packet, at, facts)?;
            let [offset, flags] = load(packet, at + 12)?;
            facts.tcp_flags = flags;
            let own = usize::from(offset >> 4) * 4;
            if own < 20 || (own > left && facts.fragment == Fragment::Whole) {
                return Err(Malformed::HeaderLength);
            }
            if own > left {
                return Err(Malformed::TinyFragment);
            }
        }
        (UDP, _) => {
            ports(packet, at, facts)?;
            let length = usize::from(u16::from_be_bytes(load(packet, at + 4)?));
            // That of a first fragment counts the later ones too.
            if length < 8 || (length > left && facts.fragment == Fragment::Whole) {
                return Err(Malformed::Length);
            }
            if length >= 12 && left >= 12 {
                facts.message = Message::new(load(packet, at + 8)?, length - 8);
            }
        }
        (ICMP, Family::V4) | (ICMPV6, Family::V6) => {
            [facts.icmp_type, facts.icmp_code] = load(packet, at)?;
        }
        _ => {}
    }
    Ok(())
}

#[inline(always)]
fn ports<P: Packet + ?Sized>(packet: &P, at: usize, facts: &mut Facts) -> Result<(), Malformed> {
    let [a, b, c, d] = load(packet, at)?;
    facts.source_port = u16::from_be_bytes([a, b]);
    facts.destination_port = u16::from_be_bytes([c, d]);
    Ok(())
}
