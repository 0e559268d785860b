//! The planes' filter: what it knows of a packet, what it knows of the policy,
//! and what it makes of both. The same code runs in the kernel, in
//! `kldtrace planes explain` and in the tests.
//!
//! # One image
//!
//! A policy is compiled into one *image*: an array of [`Cell`]s of 64 bytes, in
//! which everything is found by a cell's number. In the kernel an image is one
//! array map, and the only entry of an outer map points to it. A packet looks
//! the image up once and asks nothing else about the policy, so an update of
//! that one entry is the whole swap: no packet sees a part of one policy and a
//! part of another, however many tables there are. What must outlive a policy
//! lies outside: [`Flow`]s, which packets that leave make ([`leave`]), and
//! [buckets](rate::Set).
//!
//! # Cost that does not grow with the rules
//!
//! Rules are tried in the order of the file and the first that matches decides.
//! The compiler turns that into classes, so that no packet walks a list:
//!
//! 1. The source address becomes a class: all addresses that the same
//!    selectors match (`from` of rules, block lists, planes' prefixes) are one
//!    class. A trie finds it in at most four steps of IPv4, and for IPv6 in one
//!    more than there are branches on the way ([`address`]). A set of 100,000
//!    prefixes is one class.
//! 2. The destination in the same way, by the destinations' own trie.
//! 3. Protocol with port, ICMP type or "later fragment" becomes a class by an
//!    array ([`service`]). The protocol alone becomes another, for rules
//!    without ports.
//! 4. A rule is stored under each (domain, source class or any, destination
//!    class or any, service class or protocol class) that it covers, the first
//!    in the file winning. Each of the three has two forms, so at most eight
//!    look-ups find all rules that match, and the lowest of their numbers is
//!    the first one that matches: exactly what walking the list would find
//!    ([`table`]). A domain knows which of the eight forms it has at all; most
//!    have two.
//!
//! # Order of the checks
//!
//! [`judge`] asks, and the first answer stands:
//!
//! | | answer | reason |
//! |---|---|---|
//! | is it malformed? | drop | [`Reason::Malformed`] |
//! | is it ARP? neither IP nor ARP? | as the plane says | [`Reason::Always`], [`Reason::NotIp`] |
//! | is it a part of a datagram, and the plane takes none? | drop | [`Reason::Fragment`] |
//! | is it for a port of WireGuard, and no message of it? | drop | [`Reason::WireGuard`] |
//! | does it belong to a flow that is known? | pass | [`Reason::Established`] |
//! | is it neighbour discovery, DHCP, path MTU? | pass, unless the plane says otherwise | [`Reason::Always`] |
//! | is the source on a block list of the plane? | drop | [`Reason::Blocked`] |
//! | does it cross planes, and no `[[cross]]` is for these two? | drop | [`Reason::Cross`] |
//! | is its source over the plane's rates, or that of the first rule that matches? | drop | [`Reason::Rate`] |
//! | which rule matches first? | as it says | [`Reason::Rule`], [`Reason::Floor`] |
//! | no rule matches | as the plane's default says | [`Reason::Default`] |
//!
//! The management floor is rules that the compiler puts in front of all others
//! of a plane; sources of the floor are on none of its block lists. In `audit`
//! mode each drop becomes [`Action::WouldDrop`], which passes and is counted.
//!
//! # Planes that a packet belongs to
//!
//! The source belongs to the plane in whose prefixes it lies, else to the plane
//! that it arrived on; the destination likewise. If both are the plane that it
//! arrived on, that plane's rules are its *domain*. If one is another plane, it
//! crosses: the domain is that of the `[[cross]]` for this direction where the
//! policy accepts it on this plane, and else there is none. A packet between
//! two other planes has no domain.

/// Which form flows and their stamps, buckets, counts and what is told have. To
/// be raised with each change of one of them: what other versions have left in
/// the kernel is then not taken over. Flows without their stamps would not be
/// found.
pub const LAYOUT: u32 = 3;

pub mod address;
pub mod count;
mod facts;
pub mod flow;
pub mod image;
pub mod kind;
pub mod leave;
pub mod memo;
pub mod outcome;
mod parse;
pub mod rate;
pub mod service;
pub mod table;
mod transport;
mod verdict;

pub use address::{Address, Leaf};
pub use facts::{Facts, Family, Fragment, Malformed, Message};
pub use flow::{Flow, FlowKey, ShortKey};
pub use image::Cell;
pub use memo::Memo;
pub use outcome::{Action, Outcome, Reason};
pub use parse::{EXTENSIONS, Link, Packet, parse, read};
pub use rate::Rate;
pub use verdict::{
    Cells, Tables, at_once, by_rules, charge, judge, learn, recalled, refuse, unlimited,
};
