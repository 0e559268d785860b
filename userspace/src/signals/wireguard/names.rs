//! Names that people gave to keys and interfaces.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use kldtrace_abi::wireguard::PeerKey;

use crate::{
    signals::{devices, table::OTHER_LABEL},
    words::matches,
};

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

/// The name of an account's interface.
pub fn interface(key: &PeerKey) -> String {
    devices::interface(&key.interface)
}

/// The public key of an account.
pub fn public_key(key: &PeerKey) -> PublicKey {
    let mut bytes = [0; 32];
    for (to, word) in bytes.chunks_exact_mut(8).zip(key.peer) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// A key as `wg` writes it: base64, 44 characters.
pub fn base64(key: &PublicKey) -> String {
    STANDARD.encode(key)
}

/// Reads a key as `wg` writes it; `None`: it is none.
pub fn from_base64(text: &str) -> Option<PublicKey> {
    STANDARD.decode(text).ok()?.try_into().ok()
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
