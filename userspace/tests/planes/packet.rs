//! Packets: as a description that the reference judges, and as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kldtrace_abi::plane::{Fragment, Link};

/// What a packet is.
#[derive(Clone, Debug)]
pub struct Packet {
    pub link: Link,
    /// Types of its VLAN tags.
    pub tags: Vec<u16>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    /// Type and code of ICMP.
    pub icmp: (u8, u8),
    pub flags: u8,
    pub part: Fragment,
    /// Bytes of options of IPv4 (a multiple of 4), or destination options of
    /// IPv6, eight bytes each.
    pub options: u8,
    /// What UDP begins with, least byte first, and the length of what it
    /// carries; `None`: eight bytes that mean nothing.
    pub datagram: Option<(u32, u16)>,
}

impl Packet {
    /// A SYN, without anything special.
    pub fn tcp(source: IpAddr, destination: IpAddr, port: u16) -> Self {
        Self {
            link: Link::Bare,
            tags: Vec::new(),
            source,
            destination,
            protocol: 6,
            source_port: 40_000,
            destination_port: port,
            icmp: (0, 0),
            flags: 2,
            part: Fragment::Whole,
            options: 0,
            datagram: None,
        }
    }

    /// Whether it has ports: neither other protocols nor later parts do.
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, 6 | 17) && self.part != Fragment::Later
    }

    /// Whether it is ICMP of its own family, and its type can be seen.
    pub fn is_icmp(&self) -> bool {
        let own = if self.source.is_ipv4() { 1 } else { 58 };
        self.protocol == own && self.part != Fragment::Later
    }

    /// The bytes, by the RFCs of each header.
    pub fn bytes(&self) -> Vec<u8> {
        let (ip, kind) = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (self.v4(from, to), 0x0800_u16),
            (IpAddr::V6(from), IpAddr::V6(to)) => (self.v6(from, to), 0x86dd),
            _ => panic!("two families"),
        };
        if self.link == Link::Bare {
            return ip;
        }
        let mut frame = vec![2; 12];
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 7]);
        }
        frame.extend(kind.to_be_bytes());
        frame.extend(ip);
        frame
    }

    /// What stands behind the IP headers.
    fn payload(&self) -> Vec<u8> {
        if self.part == Fragment::Later {
            return vec![9; 16];
        }
        let mut bytes = Vec::new();
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        match self.protocol {
            6 => {
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, self.flags]);
                bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
                // A first part must be a multiple of eight.
                bytes.extend([0; 4]);
            }
            17 if let Some((word, length)) = self.datagram => {
                bytes.extend((8 + length).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(word.to_le_bytes());
                // A first part must be a multiple of eight.
                let whole = bytes.len() - 12 + usize::from(length);
                bytes.resize(8 + whole.next_multiple_of(8), 5);
                if self.part == Fragment::Whole {
                    bytes.truncate(8 + usize::from(length));
                }
            }
            17 => bytes.extend([0, 16, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
            _ if self.is_icmp() => bytes = vec![self.icmp.0, self.icmp.1, 0, 0, 0, 1, 0, 1],
            51 => bytes = vec![0; 16],
            _ => bytes = vec![0; 8],
        }
        bytes
    }

    /// RFC 791.
    fn v4(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let payload = self.payload();
        let own = 20 + self.options;
        let total = (u16::from(own) + u16::try_from(payload.len()).unwrap()).to_be_bytes();
        let field: u16 = match self.part {
            Fragment::Whole => 0x4000,
            Fragment::First => 0x2000,
            Fragment::Later => 185,
        };
        let field = field.to_be_bytes();
        let mut bytes = vec![
            0x40 | (own / 4),
            0,
            total[0],
            total[1],
            0,
            1,
            field[0],
            field[1],
        ];
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(from.octets().iter().chain(&to.octets()));
        bytes.extend(vec![1; self.options.into()]);
        bytes.extend(payload);
        bytes
    }

    /// RFC 8200.
    fn v6(&self, from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let mut kinds = vec![60; usize::from(self.options / 8)];
        if self.part != Fragment::Whole {
            kinds.push(44);
        }
        kinds.push(self.protocol);
        let mut behind = Vec::new();
        for pair in kinds.windows(2) {
            match (pair[0], self.part) {
                (44, Fragment::First) => behind.extend([pair[1], 0, 0, 1, 0, 0, 0, 7]),
                (44, _) => behind.extend([pair[1], 0, 0x05, 0xc8, 0, 0, 0, 7]),
                _ => behind.extend([pair[1], 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        behind.extend(self.payload());
        let length = u16::try_from(behind.len()).unwrap().to_be_bytes();
        let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], kinds[0], 64];
        bytes.extend(from.octets().iter().chain(&to.octets()));
        bytes.extend(behind);
        bytes
    }
}
