//! Handshakes and failures as events.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use kldtrace_abi::wireguard::{Address, FAILURE, Failure, HANDSHAKE, HandshakeEvent, Role, Why};
use kldtrace_exporters::model::{Event, Field};

use super::names::{self, Names};
use crate::signals::clock::Clock;

/// Takes in one event of the ring buffer; `None`: it is none.
pub fn event(bytes: &[u8], names: &Names, clock: &Clock) -> Option<Event> {
    if bytes.len() < size_of::<HandshakeEvent>() {
        return None;
    }
    // SAFETY: there are enough bytes, and every bit pattern is an event.
    let event: HandshakeEvent = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
    told(&event, names, clock)
}

fn told(event: &HandshakeEvent, names: &Names, clock: &Clock) -> Option<Event> {
    let (interface, plane, mut peer) = names.account(&event.key);
    let key = names::public_key(&event.key);
    let address = address(&event.address);
    let mut fields: Vec<(Cow<'static, str>, Field)> = Vec::new();
    if key != [0; 32] {
        let key = names::base64(&key).as_str().into();
        fields.push(("public_key".into(), Field::Text(key)));
    }
    if let Some(address) = address {
        let address = address.to_string().as_str().into();
        fields.push(("address".into(), Field::Text(address)));
    }
    let whereabouts = if plane.is_empty() {
        format!("on {interface}")
    } else {
        format!("on {interface} ({plane})")
    };
    let (kind, label, message): (_, (_, &'static str), _) = match event.kind {
        HANDSHAKE => {
            let role = Role::ALL.get(event.what as usize)?;
            let why = Why::ALL.get(event.why as usize)?;
            let took = event.took as f64 / 1e9;
            fields.push(("seconds".into(), Field::Float(took)));
            let why = why.as_str();
            fields.push(("reason".into(), Field::Text(why.into())));
            let ms = took * 1e3;
            let role = role.as_str();
            let message =
                format!("handshake with {peer} {whereabouts} as {role}: {ms:.1} ms, {why}");
            ("handshake", ("role", role), message)
        }
        FAILURE => {
            let failure = *Failure::ALL.get(event.what as usize)?;
            let who = match (failure, address) {
                (Failure::NoAnswer | Failure::GaveUp, _) => {
                    let attempts = u64::from(event.attempts);
                    fields.push(("attempts".into(), Field::Integer(attempts)));
                    format!("with {peer}")
                }
                // The key is of somebody who is no peer.
                (Failure::UnknownPeer, from) => {
                    let stranger = std::mem::replace(&mut peer, "".into());
                    match from {
                        Some(from) => format!("with {stranger} at {from}"),
                        None => format!("with {stranger}"),
                    }
                }
                (_, Some(from)) => format!("from {from}"),
                (_, None) => String::new(),
            };
            let reason = failure.as_str();
            let text = reason.replace('_', " ");
            let message = format!("handshake {who} {whereabouts}: {text}");
            ("handshake_failure", ("reason", reason), message)
        }
        _ => return None,
    };
    let text = |text: &Arc<str>| text.clone();
    Some(Event {
        id: 0,
        time_ns: clock.wall(event.at),
        subject: "wireguard".into(),
        kind: kind.into(),
        labels: vec![
            ("interface".into(), text(&interface)),
            ("plane".into(), text(&plane)),
            ("peer".into(), text(&peer)),
            (label.0.into(), label.1.into()),
        ],
        fields,
        message,
    })
}

fn address(address: &Address) -> Option<SocketAddr> {
    let [front, back] = address.bytes.map(u64::to_ne_bytes);
    let port = u16::try_from(address.port).ok()?;
    match address.family {
        2 => {
            let [a, b, c, d, ..] = front;
            Some((Ipv4Addr::new(a, b, c, d), port).into())
        }
        10 => {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&front);
            bytes[8..].copy_from_slice(&back);
            Some((Ipv6Addr::from(bytes), port).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use kldtrace_abi::wireguard::PeerKey;
    use proptest::prelude::*;

    use super::*;

    fn failure(failure: Failure) -> HandshakeEvent {
        HandshakeEvent {
            kind: FAILURE,
            what: failure as u32,
            attempts: 3,
            at: 5,
            key: PeerKey {
                interface: [u64::from_ne_bytes(*b"wg0\0\0\0\0\0"), 0],
                peer: [u64::MAX; 4],
            },
            address: Address {
                family: 2,
                port: 51820,
                bytes: [u64::from_ne_bytes([10, 0, 0, 1, 0, 0, 0, 0]), 0],
            },
            ..HandshakeEvent::default()
        }
    }

    #[test]
    fn a_stranger_has_a_key_and_no_name() {
        let clock = Clock::starting_at(100);
        let event = told(&failure(Failure::UnknownPeer), &Names::default(), &clock).unwrap();
        assert_eq!(
            event.message,
            "handshake with //////// at 10.0.0.1:51820 on wg0: unknown peer"
        );
        assert_eq!((event.time_ns, &*event.labels[2].1), (105, ""));
        let key = "//////////////////////////////////////////8=";
        assert_eq!(event.fields[0].1, Field::Text(key.into()));
    }

    #[test]
    fn no_answer_names_the_peer_and_the_attempts() {
        let clock = Clock::starting_at(0);
        let event = told(&failure(Failure::NoAnswer), &Names::default(), &clock).unwrap();
        assert_eq!(event.message, "handshake with //////// on wg0: no answer");
        assert_eq!(event.fields[2].1, Field::Integer(3));
    }

    #[test]
    fn every_event_is_in_the_catalogue() {
        let clock = Clock::starting_at(0);
        let handshake = |role: Role, why: Why| HandshakeEvent {
            kind: HANDSHAKE,
            what: role as u32,
            why: why as u32,
            ..failure(Failure::NoAnswer)
        };
        let handshakes = Role::ALL
            .into_iter()
            .flat_map(|role| Why::ALL.map(|why| handshake(role, why)));
        for raw in Failure::ALL.into_iter().map(failure).chain(handshakes) {
            let event = told(&raw, &Names::default(), &clock).unwrap();
            assert!(crate::catalogue::told(&event).is_some(), "{event:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = event(&bytes, &Names::default(), &Clock::now());
        }
    }
}
