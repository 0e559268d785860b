//! What the parser finds in a packet.

use super::{
    address::Address,
    transport::{ICMP, ICMPV6},
};

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Family {
    /// Neither IP nor ARP, or too short to tell.
    #[default]
    Other = 0,
    /// Address resolution.
    Arp = 1,
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl Family {
    /// 1 for IPv6, else 0: by the bit that no other has, not by a branch, as the
    /// verifier would look at all that follows for each way of it.
    #[inline(always)]
    pub const fn is_v6(self) -> u32 {
        self as u32 >> 1 & 1
    }
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole = 0,
    /// The first part, which has the ports.
    First = 1,
    /// A later part, which has none.
    Later = 2,
}

/// What is wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Malformed {
    /// Nothing.
    #[default]
    No = 0,
    /// It ends within a header.
    Truncated = 1,
    /// It has more than two VLAN tags.
    VlanStack = 2,
    /// The version is not the one that the frame announces, or not 4 or 6.
    Version = 3,
    /// The length of a header is impossible.
    HeaderLength = 4,
    /// A length is less than its header, or more than has arrived.
    Length = 5,
    /// It has more than [`super::parse::EXTENSIONS`] extension headers.
    Extensions = 6,
    /// Hop-by-hop options that are not the first header (RFC 8200, 4.1).
    ExtensionOrder = 7,
    /// A routing header of type 0 (RFC 5095).
    SourceRoute = 8,
    /// A first fragment without all of its transport header (RFC 1858; RFC
    /// 7112), or a fragment that is not the last and has a length that is no
    /// multiple of 8.
    TinyFragment = 9,
    /// A fragment that would overwrite the header of TCP (RFC 3128), or ends
    /// behind 65,535 bytes.
    OverlappingFragment = 10,
    /// An IPv4-mapped address in an IPv6 header.
    MappedAddress = 11,
}

impl Malformed {
    /// All of them but [`Self::No`], in order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::Truncated,
        Self::VlanStack,
        Self::Version,
        Self::HeaderLength,
        Self::Length,
        Self::Extensions,
        Self::ExtensionOrder,
        Self::SourceRoute,
        Self::TinyFragment,
        Self::OverlappingFragment,
        Self::MappedAddress,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "",
            Self::Truncated => "truncated",
            Self::VlanStack => "vlan_stack",
            Self::Version => "version",
            Self::HeaderLength => "header_length",
            Self::Length => "length",
            Self::Extensions => "extensions",
            Self::ExtensionOrder => "extension_order",
            Self::SourceRoute => "source_route",
            Self::TinyFragment => "tiny_fragment",
            Self::OverlappingFragment => "overlapping_fragment",
            Self::MappedAddress => "mapped_address",
        }
    }
}

/// A message of WireGuard, by its type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Message {
    /// None, or none that is well formed.
    #[default]
    None = 0,
    /// The first of a handshake, from who wants a session.
    Initiation = 1,
    /// The answer to it.
    Response = 2,
    /// A cookie, from who is under load.
    Cookie = 3,
    /// A packet of a session.
    Data = 4,
}

impl Message {
    /// What a datagram of UDP is, by its first four bytes and its length
    /// without the header of UDP: `validate_header_len` in
    /// drivers/net/wireguard/receive.c, with the sizes of messages.h. Data is
    /// padded to 16 bytes, but no further than the interface's MTU: so the
    /// largest packets need not be a multiple (send.c:
    /// `calculate_skb_padding`).
    #[inline(always)]
    pub const fn new(word: [u8; 4], length: usize) -> Self {
        // The type, and three bytes that are 0.
        match (u32::from_le_bytes(word), length) {
            (1, 148) => Self::Initiation,
            (2, 92) => Self::Response,
            (3, 64) => Self::Cookie,
            (4, 32..) => Self::Data,
            _ => Self::None,
        }
    }
}

/// A packet in 56 bytes, without padding.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The source.
    pub source: Address,
    /// The destination.
    pub destination: Address,
    /// Bytes of the IP packet by its own header, or of the frame without IP.
    pub length: u32,
    /// Port of TCP or UDP; 0: none.
    pub source_port: u16,
    /// Port of TCP or UDP; 0: none.
    pub destination_port: u16,
    /// What it carries.
    pub family: Family,
    /// The protocol of IP, behind extension headers.
    pub protocol: u8,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: u8,
    /// Code of ICMP or ICMPv6.
    pub icmp_code: u8,
    /// Flags of TCP, as on the wire.
    pub tcp_flags: u8,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// VLAN tags.
    pub vlans: u8,
    /// What is wrong with it. The facts found up to there stand.
    pub malformed: Malformed,
    /// The message of WireGuard that UDP carries, whatever its port.
    pub message: Message,
    /// 0.
    pub unused: [u8; 7],
}

impl Facts {
    /// Nothing yet, in seven stores: left to itself a compiler for the kernel
    /// calls a function that writes byte by byte. `zero` is 0, which it must
    /// not know.
    ///
    /// # Safety
    /// `zero` is 0.
    #[inline(always)]
    pub const unsafe fn zeros(zero: u64) -> Self {
        let words = [zero; 7];
        const { assert!(size_of::<Self>() == size_of::<[u64; 7]>()) };
        // SAFETY: of one size, and zeros are facts: each enum has a 0.
        unsafe { core::mem::transmute::<[u64; 7], Self>(words) }
    }

    /// The same in the other direction: a question becomes its answer, and an
    /// answer the question.
    #[inline(always)]
    #[must_use]
    pub const fn turned(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            icmp_type: turned_type(self.protocol, self.icmp_type),
            ..*self
        }
    }
}

/// Echo and time stamp, and their replies (RFC 792, RFC 4443).
#[inline(always)]
const fn turned_type(protocol: u8, kind: u8) -> u8 {
    match (protocol, kind) {
        (ICMP, 8) => 0,
        (ICMP, 0) => 8,
        (ICMP, 13) => 14,
        (ICMP, 14) => 13,
        (ICMPV6, 128) => 129,
        (ICMPV6, 129) => 128,
        _ => kind,
    }
}
