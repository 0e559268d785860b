//! The TCP listeners of one network namespace, by sock_diag(7).
//!
//! One dump for each address family: a `struct inet_diag_req_v2` behind a
//! `struct nlmsghdr`, answered by a `struct inet_diag_msg` with attributes for
//! each socket (include/uapi/linux/netlink.h and inet_diag.h; filled by
//! `inet_sk_diag_fill` and `inet_diag_msg_attrs_fill` in net/ipv4/inet_diag.c).
//! Parsed here, because no crate knows `INET_DIAG_CGROUP_ID`
//! (netlink-packet-sock-diag 0.5.0; neli 0.7.5 has no inet_diag at all).

#[cfg(test)]
mod tests;

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, connect, recv,
            send, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

/// Listeners of one namespace and family beyond which a dump is refused.
pub const MOST_SOCKETS: usize = 1 << 16;

/// Longest wait for a datagram, in seconds; the kernel answers at once.
const PATIENCE: i64 = 1;
/// The kernel never sends more of a dump in one datagram
/// (`netlink_recvmsg`, net/netlink/af_netlink.c).
const DATAGRAM: usize = 32 << 10;

// include/uapi/linux/netlink.h and sock_diag.h.
const HEADER: usize = 16;
const REQUEST_AND_DUMP: u16 = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
const INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;
const NOOP: u16 = libc::NLMSG_NOOP as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// The type of an attribute without its flags (`NLA_TYPE_MASK`).
const TYPE: u16 = 0x3fff;

/// include/uapi/asm-generic/socket.h, the same on x86-64 and arm64; libc lacks it.
const SO_NETNS_COOKIE: libc::c_int = 71;

// include/uapi/linux/inet_diag.h: sizes of `inet_diag_req_v2` and
// `inet_diag_msg`, places in the latter, attributes.
const REQUEST: usize = 56;
const ANSWER: usize = 72;
const STATE: usize = 1;
const INTERFACE: usize = 40;
const COOKIE: usize = 44;
const SKMEMINFO: u16 = 7;
const CGROUP_ID: u16 = 21;
/// Place of `SK_MEMINFO_DROPS`, the ninth word of `INET_DIAG_SKMEMINFO`.
const DROPS: usize = 8 * 4;
/// `TCP_LISTEN` in include/net/tcp_states.h.
const LISTEN: u8 = 10;

const IPV4: u8 = libc::AF_INET as u8;
const IPV6: u8 = libc::AF_INET6 as u8;

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Unique for as long as the machine runs (`sock_gen_cookie`).
    pub cookie: u64,
    /// Cgroup v2 in which it was made; 0: the kernel does not say.
    pub cgroup: u64,
    /// The interface it is bound to, in its namespace; 0: to none.
    pub interface: u32,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// `sk_drops`, which wraps at 2^32.
    pub drops: u32,
}

/// A sock_diag socket of the network namespace it was opened in. Short-lived:
/// while it is open, the namespace cannot die.
pub struct Diag {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    /// Opens one in the namespace of this thread.
    pub fn open() -> Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )
        .context("sock_diag socket")?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE))
            .context("sock_diag timeout")?;
        // From now on the kernel lets nobody but itself send to this socket
        // (`netlink_getsockbyportid`, net/netlink/af_netlink.c).
        connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("sock_diag connect")?;
        Ok(Self {
            socket,
            buffer: Vec::new(),
            sequence: 0,
        })
    }

    /// The cookie of its namespace (`SO_NETNS_COOKIE`): unique for as long as
    /// the machine runs, unlike the inode; 0 before Linux 5.14 (e8b9eab99232).
    pub fn namespace(&self) -> u64 {
        let mut cookie = 0_u64;
        let mut length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the descriptor is open while `self.socket` lives; `cookie` is
        // `length` bytes that the kernel may write, and no bit pattern of a u64
        // is invalid; both pointers are to locals that outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        if result == 0 { cookie } else { 0 }
    }

    /// All TCP listeners of its namespace.
    pub fn listeners(&mut self) -> Result<Vec<Socket>> {
        let mut sockets = self.dump(IPV4).context("inet_diag, ipv4")?;
        sockets.append(&mut self.dump(IPV6).context("inet_diag, ipv6")?);
        Ok(sockets)
    }

    /// A dump that was not interrupted; tries twice.
    fn dump(&mut self, family: u8) -> Result<Vec<Socket>> {
        for _ in 0..2 {
            if let Some(sockets) = self.attempt(family)? {
                return Ok(sockets);
            }
        }
        bail!("listeners changed during two dumps")
    }

    /// One dump; `None`: the kernel says that it is inconsistent.
    fn attempt(&mut self, family: u8) -> Result<Option<Vec<Socket>>> {
        self.sequence += 1;
        self.buffer.resize(DATAGRAM, 0);
        let descriptor = self.socket.as_raw_fd();
        send(
            descriptor,
            &request(family, self.sequence),
            MsgFlags::empty(),
        )?;
        let mut sockets = Vec::new();
        let mut interrupted = false;
        loop {
            let length = match recv(descriptor, &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => bail!("no answer within {PATIENCE} s"),
                other => other?,
            };
            let datagram = self.buffer.get(..length).context("datagram cut short")?;
            ensure!(!datagram.is_empty(), "empty datagram");
            let progress = parse(datagram, self.sequence, &mut sockets)?;
            ensure!(
                sockets.len() <= MOST_SOCKETS,
                "more than {MOST_SOCKETS} listeners"
            );
            interrupted |= progress.interrupted;
            if progress.done {
                return Ok((!interrupted).then_some(sockets));
            }
        }
    }
}

/// A dump request for the TCP listeners of `family`.
fn request(family: u8, sequence: u32) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    bytes[..4].copy_from_slice(&((HEADER + REQUEST) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + 1] = libc::IPPROTO_TCP as u8;
    bytes[HEADER + 2] = 1 << (SKMEMINFO - 1);
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&(1_u32 << LISTEN).to_ne_bytes());
    bytes
}

/// What a datagram says of its dump.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    done: bool,
    interrupted: bool,
}

/// Adds the listeners in one datagram of the dump `sequence`.
fn parse(mut bytes: &[u8], sequence: u32, sockets: &mut Vec<Socket>) -> Result<Progress> {
    let mut progress = Progress::default();
    while !bytes.is_empty() && !progress.done {
        let length = u32_at(bytes, 0)? as usize;
        let message = bytes.get(..length).context("message cut short")?;
        let payload = message.get(HEADER..).context("message without header")?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        if u32_at(message, 8)? != sequence {
            continue;
        }
        progress.interrupted |= u16_at(message, 6)? & INTERRUPTED != 0;
        match u16_at(message, 4)? {
            SOCK_DIAG_BY_FAMILY => sockets.extend(listener(payload)?),
            // Both carry a negative errno, or 0.
            kind @ (DONE | ERROR) => {
                let code = u32_at(payload, 0)?.cast_signed();
                if code != 0 {
                    return Err(Errno::from_raw(code.saturating_neg()).into());
                }
                progress.done = kind == DONE;
            }
            NOOP => {}
            other => bail!("message of unexpected type {other}"),
        }
    }
    Ok(progress)
}

/// One `inet_diag_msg` with its attributes; `None`: not a listener.
fn listener(payload: &[u8]) -> Result<Option<Socket>> {
    let (fixed, mut rest) = payload
        .split_at_checked(ANSWER)
        .context("inet_diag_msg cut short")?;
    if fixed[STATE] != LISTEN {
        return Ok(None);
    }
    let family = match fixed[0] {
        IPV4 => "ipv4",
        IPV6 => "ipv6",
        other => bail!("inet_diag_msg of unexpected family {other}"),
    };
    let mut cgroup = 0;
    let mut drops = None;
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        let attribute = rest.get(..length).context("attribute cut short")?;
        let value = attribute.get(4..).context("attribute without header")?;
        match u16_at(rest, 2)? & TYPE {
            SKMEMINFO => drops = Some(u32_at(value, DROPS)?),
            CGROUP_ID => cgroup = u64_at(value, 0)?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(Some(Socket {
        // Low word first (`sock_diag_save_cookie`, net/core/sock_diag.c).
        cookie: u64::from(u32_at(fixed, COOKIE)?) | u64::from(u32_at(fixed, COOKIE + 4)?) << 32,
        cgroup,
        interface: u32_at(fixed, INTERFACE)?,
        family,
        drops: drops.context("no INET_DIAG_SKMEMINFO")?,
    }))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    let array = bytes.get(at..).and_then(<[u8]>::first_chunk);
    array.copied().context("number cut short")
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}
