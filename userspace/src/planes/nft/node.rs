//! What the node has: interfaces and their addresses.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::Context as _;
use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::planes::policy::Prefix;

/// Interfaces with their addresses, each with the prefix of its link.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// By the name of the interface.
    pub interfaces: BTreeMap<String, Vec<(IpAddr, Prefix)>>,
}

impl Node {
    /// Those of this network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn here() -> anyhow::Result<Self> {
        let mut node = Self::default();
        for one in getifaddrs().context("cannot list addresses of interfaces")? {
            let addresses = node.interfaces.entry(one.interface_name).or_default();
            let address = one.address.as_ref().and_then(ip);
            let mask = one.netmask.as_ref().and_then(ip);
            if let (Some(address), Some(mask)) = (address, mask) {
                let length = Prefix::new(mask, 128).bits.leading_ones();
                addresses.push((address, Prefix::new(address, length as u8)));
            }
        }
        Ok(node)
    }

    /// Whether an address is the node's own.
    pub fn has(&self, address: IpAddr) -> bool {
        let mut all = self.interfaces.values().flatten();
        all.any(|(own, _)| *own == address)
    }

    /// The interface whose link has an address.
    pub fn link(&self, address: IpAddr) -> Option<&str> {
        let one = Prefix::new(address, 128);
        let mut all = self.interfaces.iter();
        let found = all.find(|(_, own)| own.iter().any(|(_, link)| link.contains(one)));
        found.map(|(name, _)| &name[..])
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| v6.ip().into())
}
