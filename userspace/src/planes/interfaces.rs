//! The interfaces of this network namespace, by rtnetlink(7), and word of when
//! they change.
//!
//! `RTM_GETLINK` as a dump: a `struct ifinfomsg` with attributes for each
//! (include/uapi/linux/rtnetlink.h and if_link.h, filled by `rtnl_fill_ifinfo`
//! in net/core/rtnetlink.c).

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect,
            recv, send, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike as _},
    },
};

use crate::words::until_zero;

/// Longest wait for a datagram, in seconds; the kernel answers at once.
const PATIENCE: i64 = 5;
/// The kernel never sends more of a dump in one datagram
/// (`netlink_recvmsg`, net/netlink/af_netlink.c).
const DATAGRAM: usize = 32 << 10;
/// Interfaces beyond which a dump is refused.
const MOST: usize = 1 << 16;

// include/uapi/linux/netlink.h, rtnetlink.h, if_link.h, if_arp.h.
const HEADER: usize = 16;
const INFO: usize = 16;
const INTERRUPTED: u16 = libc::NLM_F_DUMP_INTR as u16;
const ERROR: u16 = libc::NLMSG_ERROR as u16;
const DONE: u16 = libc::NLMSG_DONE as u16;
const TYPE: u16 = 0x3fff;
const NAME: u16 = libc::IFLA_IFNAME;
const XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: u16 = 4;
/// `RTMGRP_LINK`.
const LINKS: u32 = 1;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index; never another's while it is there.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether its packets begin with a header of Ethernet.
    pub ethernet: bool,
    /// Whether it is up.
    pub up: bool,
    /// The XDP program on it.
    pub xdp: Option<Xdp>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xdp {
    /// Where it runs.
    pub mode: Mode,
    /// Its number; 0 with several.
    pub program: u32,
}

/// Where XDP programs run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, for any driver.
    Generic,
    /// On the card, or in several places.
    Other,
}

impl Mode {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Other => "other",
        }
    }
}

fn open(groups: u32) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .context("rtnetlink socket")?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("rtnetlink bind")?;
    // From now on the kernel lets nobody but itself send to this socket.
    connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("rtnetlink connect")?;
    setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE)).context("rtnetlink")?;
    Ok(socket)
}

/// All of them.
///
/// # Errors
/// What the kernel says.
pub fn all() -> Result<Vec<Interface>> {
    let socket = open(0)?;
    for _ in 0..5 {
        if let Some(interfaces) = dump(&socket)? {
            return Ok(interfaces);
        }
    }
    bail!("interfaces changed during five dumps")
}

/// One dump; `None`: the kernel says that it is inconsistent.
fn dump(socket: &OwnedFd) -> Result<Option<Vec<Interface>>> {
    let mut request = [0; HEADER + INFO];
    request[..4].copy_from_slice(&((HEADER + INFO) as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    let descriptor = socket.as_raw_fd();
    send(descriptor, &request, MsgFlags::empty())?;
    let mut buffer = vec![0; DATAGRAM];
    let mut found = Found::default();
    while !found.done {
        let length = match recv(descriptor, &mut buffer, MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => continue,
            Err(Errno::EAGAIN) => bail!("rtnetlink: no answer within {PATIENCE} s"),
            other => other.context("rtnetlink")?,
        };
        let datagram = buffer.get(..length).context("datagram cut short")?;
        ensure!(!datagram.is_empty(), "empty datagram");
        parse(datagram, &mut found)?;
        ensure!(
            found.interfaces.len() <= MOST,
            "more than {MOST} interfaces"
        );
    }
    Ok((!found.interrupted).then_some(found.interfaces))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    interfaces: Vec<Interface>,
    done: bool,
    interrupted: bool,
}

fn parse(mut bytes: &[u8], found: &mut Found) -> Result<()> {
    while !bytes.is_empty() && !found.done {
        let length = u32_at(bytes, 0)? as usize;
        let message = bytes.get(..length).context("message cut short")?;
        let payload = message.get(HEADER..).context("message without header")?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        found.interrupted |= u16_at(message, 6)? & INTERRUPTED != 0;
        match u16_at(message, 4)? {
            libc::RTM_NEWLINK => found.interfaces.push(interface(payload)?),
            // Both carry a negative errno, or 0.
            DONE | ERROR => {
                let code = u32_at(payload, 0)?.cast_signed();
                if code != 0 {
                    return Err(Errno::from_raw(code.saturating_neg()).into());
                }
                found.done = true;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A `struct ifinfomsg` with its attributes.
fn interface(payload: &[u8]) -> Result<Interface> {
    let (info, attributes) = payload
        .split_at_checked(INFO)
        .context("ifinfomsg cut short")?;
    let kind = u16_at(info, 2)?;
    let mut interface = Interface {
        index: u32_at(info, 4)?,
        name: String::new(),
        ethernet: matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK),
        up: u32_at(info, 8)? & libc::IFF_UP.cast_unsigned() != 0,
        xdp: None,
    };
    for_each(attributes, |kind, value| {
        match kind {
            NAME => interface.name = until_zero(value),
            XDP => interface.xdp = xdp(value)?,
            _ => {}
        }
        Ok(())
    })?;
    ensure!(interface.index != 0, "an interface without an index");
    Ok(interface)
}

fn xdp(attributes: &[u8]) -> Result<Option<Xdp>> {
    let mut mode = None;
    let mut program = 0;
    for_each(attributes, |kind, value| {
        match kind {
            XDP_ATTACHED => {
                mode = match value.first().context("attribute cut short")? {
                    0 => None,
                    1 => Some(Mode::Native),
                    2 => Some(Mode::Generic),
                    _ => Some(Mode::Other),
                }
            }
            XDP_PROGRAM => program = u32_at(value, 0)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(mode.map(|mode| Xdp { mode, program }))
}

fn for_each(mut bytes: &[u8], mut each: impl FnMut(u16, &[u8]) -> Result<()>) -> Result<()> {
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute = bytes.get(..length).context("attribute cut short")?;
        let value = attribute.get(4..).context("attribute without header")?;
        each(u16_at(bytes, 2)? & TYPE, value)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Ok(())
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

/// Word of changes.
pub struct Changes(OwnedFd);

impl Changes {
    /// Of all interfaces of this namespace, from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn follow() -> Result<Self> {
        open(LINKS).map(Self)
    }

    /// Waits for changes, at most so many milliseconds, and says whether there
    /// were some. Those that come at once are one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(&self, most: u16) -> Result<bool> {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(most)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            other => other.context("rtnetlink poll")?,
        };
        let mut buffer = vec![0; DATAGRAM];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                // Some were lost: whoever looks at all misses none.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(true),
                Err(error) => return Err(error).context("rtnetlink"),
            }
        }
    }
}
