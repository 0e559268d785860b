//! Names that people gave to keys and interfaces.

use std::{collections::BTreeMap, sync::Arc};

use kldtrace_abi::wireguard::PeerKey;

use crate::{signals::table::OTHER_LABEL, words::matches};

/// A WireGuard public key.
pub type PublicKey = [u8; 32];

/// What the configuration says of peers and interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Planes and the patterns of their interfaces, in order of preference.
    pub planes: Vec<(String, Vec<String>)>,
    /// Peers' names by key.
    pub peers: BTreeMap<PublicKey, String>,
}

/// Labels of an interface: its name and plane.
pub type Interface = (Arc<str>, Arc<str>);
/// Labels of a peer: its interface's and its own name.
pub type Peer = (Arc<str>, Arc<str>, Arc<str>);

impl Names {
    /// The plane of an interface; "" where it is in none.
    pub fn plane(&self, interface: &str) -> &str {
        let plane = self.planes.iter().find(|(_, patterns)| {
            let mut patterns = patterns.iter();
            patterns.any(|pattern| matches(pattern, interface))
        });
        plane.map_or("", |(name, _)| name)
    }

    /// The labels of an interface.
    pub fn interface(&self, name: &str) -> Interface {
        (name.into(), self.plane(name).into())
    }

    /// The labels of an account.
    pub fn account(&self, key: &PeerKey) -> Peer {
        if *key == PeerKey::OTHER {
            return other();
        }
        let (interface, plane) = self.interface(&interface(key));
        (interface, plane, self.peer(&public_key(key)))
    }

    /// The name of a peer; "" where none is known.
    pub fn peer(&self, key: &PublicKey) -> Arc<str> {
        if *key == [0; 32] {
            return "".into();
        }
        match self.peers.get(key) {
            Some(name) => name.as_str().into(),
            None => base64(key)[..8].into(),
        }
    }
}

/// The labels of what has no series of its own.
pub fn other() -> Peer {
    (OTHER_LABEL.into(), "".into(), OTHER_LABEL.into())
}

/// The name of an account's interface: IFNAMSIZ bytes with zeros at the end.
pub fn interface(key: &PeerKey) -> String {
    let bytes: Vec<u8> = key
        .interface
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The public key of an account.
pub fn public_key(key: &PeerKey) -> PublicKey {
    let mut bytes = [0; 32];
    for (to, word) in bytes.chunks_exact_mut(8).zip(key.peer) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A key as `wg` writes it: base64, 44 characters.
pub fn base64(key: &PublicKey) -> String {
    let mut text = String::with_capacity(44);
    for group in key.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            if at <= group.len() {
                let sextet = bits >> (18 - 6 * at) & 63;
                text.push(char::from(ALPHABET[sextet as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

/// Reads a key as `wg` writes it; `None`: it is none.
pub fn from_base64(text: &str) -> Option<PublicKey> {
    let digits = text.strip_suffix('=')?.as_bytes();
    if digits.len() != 43 {
        return None;
    }
    let mut key = Vec::with_capacity(33);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in digits {
        let value = ALPHABET.iter().position(|known| known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            key.push((bits >> count & 255) as u8);
        }
    }
    // 43 digits are 258 bits: wg refuses a key whose last two are not 0.
    (bits.trailing_zeros() >= 2).then_some(())?;
    key.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names() -> Names {
        Names {
            planes: vec![
                ("storage".into(), vec!["wg-storage".into()]),
                ("rest".into(), vec!["eth0".into(), "wg-*".into()]),
            ],
            peers: BTreeMap::from([([7; 32], "alice".into())]),
        }
    }

    #[test]
    fn the_first_pattern_that_matches_names_the_plane() {
        for (interface, plane) in [
            ("wg-storage", "storage"),
            ("wg-x", "rest"),
            ("eth0", "rest"),
            ("wg0", ""),
        ] {
            assert_eq!(names().plane(interface), plane, "{interface}");
        }
    }

    #[test]
    fn peers_have_their_name_or_the_beginning_of_their_key() {
        assert_eq!(&*names().peer(&[7; 32]), "alice");
        assert_eq!(&*names().peer(&[255; 32]), "////////");
        assert_eq!(&*names().peer(&[0; 32]), "");
        assert_eq!(names().account(&PeerKey::OTHER), other());
    }

    #[test]
    fn keys_are_written_as_wg_writes_them() {
        // From wg's own manual page, wg(8).
        let text = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
        let key = from_base64(text).unwrap();
        assert_eq!((key[0], key[31]), (0xc5, 0x38));
        assert_eq!(base64(&key), text);
        for bad in [
            "",
            "=",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dh=",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8D-=",
            "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg==",
            "äTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
        ] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key: [u8; 32]) {
            let text = base64(&key);
            prop_assert_eq!(text.len(), 44);
            prop_assert_eq!(from_base64(&text), Some(key));
        }

        #[test]
        fn random_text_never_panics(text: String) {
            let _ = from_base64(&text);
        }
    }
}
