use proptest::prelude::*;

use super::*;

/// A listener bound to `lo` and the end of its dump, as Linux 6.18 sent
/// them; with drops.
const CAPTURED: &str = "\
    a4000000 14000200 01000000 75400000 020a0000 12340000 7f000001 00000000 \
    00000000 00000000 00000000 00000000 00000000 00000000 01000000 c3110000 \
    00000000 00000000 00000000 01000000 00000000 bd750d00 05000800 00000000 \
    08000f00 00000000 0c001500 51040000 01000000 06001600 52000000 28000700 \
    00000000 00000200 00000000 00400000 00000000 00000000 00000000 00000000 \
    2a000000 14000000 03000200 01000000 75400000 00000000";
const SOCKET: Socket = Socket {
    cookie: 0x11c3,
    cgroup: 0x1_0000_0451,
    interface: 1,
    family: "ipv4",
    drops: 42,
};

fn captured() -> Vec<u8> {
    let digits = CAPTURED.replace(' ', "");
    let pairs = digits.as_bytes().chunks(2);
    let pairs = pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16));
    pairs.map(Result::unwrap).collect()
}

/// The captured datagram with `bytes` at `at`.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut datagram = captured();
    datagram[at..at + bytes.len()].copy_from_slice(bytes);
    datagram
}

#[test]
fn captured_listener() {
    let mut sockets = Vec::new();
    let progress = parse(&captured(), 1, &mut sockets).unwrap();
    assert_eq!(
        progress,
        Progress {
            done: true,
            interrupted: false
        }
    );
    assert_eq!(sockets, [SOCKET]);
}

#[test]
fn every_truncation_is_an_error_or_an_unfinished_dump() {
    let datagram = captured();
    for length in 0..datagram.len() {
        let mut sockets = Vec::new();
        match parse(&datagram[..length], 1, &mut sockets) {
            Ok(progress) => assert!(!progress.done && [0, 164].contains(&length), "{length}"),
            Err(_) => assert!(sockets.len() <= 1, "{length}"),
        }
        let payload = &datagram[HEADER..length.clamp(HEADER, 164)];
        assert!(listener(payload).is_err() || length >= 164, "{length}");
    }
}

#[test]
fn what_is_not_a_listener_of_this_dump() {
    let mut sockets = Vec::new();
    // Another dump's; another state; no listener's family; no message's type.
    assert_eq!(
        parse(&captured(), 2, &mut sockets).unwrap(),
        Progress::default()
    );
    assert!(parse(&with(17, &[1]), 1, &mut sockets).unwrap().done);
    assert_eq!(sockets, []);
    assert!(parse(&with(16, &[1]), 1, &mut sockets).is_err());
    assert!(parse(&with(4, &[99]), 1, &mut sockets).is_err());
    // Lengths of nothing, of less than a header, of more than there is.
    for length in [0, 1, 3, 15, 185, u32::MAX] {
        assert!(
            parse(&with(0, &length.to_ne_bytes()), 1, &mut sockets).is_err(),
            "{length}"
        );
    }
    for length in [0, 3, 90, u16::MAX] {
        assert!(
            parse(&with(88, &length.to_ne_bytes()), 1, &mut sockets).is_err(),
            "{length}"
        );
    }
    // No INET_DIAG_SKMEMINFO, and one without the ninth word.
    assert!(parse(&with(126, &[99]), 1, &mut sockets).is_err());
    let mut datagram = with(124, &[36]);
    datagram.drain(160..164);
    datagram[0] -= 4;
    assert!(parse(&datagram, 1, &mut sockets).is_err());
    assert_eq!(sockets, []);
}

#[test]
fn interrupted_and_failed_dumps() {
    let mut sockets = Vec::new();
    let flags = (INTERRUPTED | 2).to_ne_bytes();
    assert!(
        parse(&with(164 + 6, &flags), 1, &mut sockets)
            .unwrap()
            .interrupted
    );
    for kind in [ERROR, DONE] {
        let mut datagram = with(164 + 4, &kind.to_ne_bytes());
        datagram[180..].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        let error = parse(&datagram, 1, &mut sockets).unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Errno::ENOENT));
        datagram[180..].copy_from_slice(&i32::MIN.to_ne_bytes());
        assert!(parse(&datagram, 1, &mut sockets).is_err());
    }
}

proptest! {
    #[test]
    fn hostile_bytes(bytes: Vec<u8>) {
        let _ = parse(&bytes, 1, &mut Vec::new());
        let _ = listener(&bytes);
    }

    #[test]
    fn hostile_changes(at in 0_usize..184, byte: u8, second in 0_usize..184, other: u8) {
        let mut datagram = with(at, &[byte]);
        datagram[second] = other;
        let mut sockets = Vec::new();
        let _ = parse(&datagram, 1, &mut sockets);
        prop_assert!(sockets.len() <= 1);
    }
}
