//! What passes an interface, and when, as the kernel tells everybody who asks
//! for packets. It knows nothing of WireGuard.

use std::{
    ffi::CString,
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::net::{Pair, Side};

/// Bytes of a packet that are kept.
const KEPT: usize = 64;
/// Headers of IP, without options, and of UDP: the type of a message of
/// WireGuard follows.
const HEADERS: usize = 20 + 8;

/// A socket that gets a copy of every packet of one interface.
pub struct Wire(OwnedFd);

/// A packet of IPv4.
#[derive(Debug)]
pub struct Seen {
    /// Whether it left.
    pub sent: bool,
    /// By the guest's clock. Of one that left: when it had waited for whatever
    /// delays it there.
    pub at: SystemTime,
    bytes: [u8; KEPT],
}

impl Seen {
    /// Whether it is a message of this type, on the underlay.
    pub fn is(&self, message: u8) -> bool {
        self.bytes[HEADERS] == message
    }
}

impl Wire {
    /// Listens from now on.
    pub fn new(pair: &Pair, side: Side, device: &str) -> Self {
        let name = CString::new(device).unwrap();
        let socket = pair.within(side, move || {
            // SAFETY: a string that ends with zero, an address and a value of
            // the lengths that are said; the socket is open and nobody else's.
            unsafe {
                let all = (libc::ETH_P_ALL as u16).to_be();
                let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
                let socket = checked(libc::socket(libc::AF_PACKET, kind, 0));
                let socket = OwnedFd::from_raw_fd(socket);
                let on: libc::c_int = 1;
                checked(libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_SOCKET,
                    libc::SO_TIMESTAMPNS,
                    (&raw const on).cast(),
                    size_of_val(&on).try_into().unwrap(),
                ));
                let mut address: libc::sockaddr_ll = mem::zeroed();
                address.sll_family = libc::AF_PACKET as u16;
                address.sll_protocol = all;
                address.sll_ifindex = libc::if_nametoindex(name.as_ptr()).try_into().unwrap();
                checked(libc::bind(
                    socket.as_raw_fd(),
                    (&raw const address).cast(),
                    size_of_val(&address).try_into().unwrap(),
                ));
                socket
            }
        });
        Self(socket)
    }

    /// What has passed since it was last asked, the oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        let all = std::iter::from_fn(|| self.next());
        all.filter(|seen| seen.bytes[0] >> 4 == 4).collect()
    }

    fn next(&self) -> Option<Seen> {
        let mut bytes = [0; KEPT];
        // Aligned for the header, with room for a time.
        let mut control = [0_u64; 8];
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: KEPT,
        };
        // SAFETY: plain data, and what a message points to lives as long as it.
        unsafe {
            let mut from: libc::sockaddr_ll = mem::zeroed();
            let mut message: libc::msghdr = mem::zeroed();
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = size_of_val(&from).try_into().unwrap();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            if libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) < 0 {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return None;
            }
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            assert_eq!((*header).cmsg_type, libc::SCM_TIMESTAMPNS);
            let mut time: libc::timespec = mem::zeroed();
            let data = libc::CMSG_DATA(header);
            ptr::copy_nonoverlapping(data, (&raw mut time).cast(), size_of_val(&time));
            Some(Seen {
                sent: from.sll_pkttype == libc::PACKET_OUTGOING,
                at: UNIX_EPOCH
                    + Duration::new(
                        time.tv_sec.try_into().unwrap(),
                        time.tv_nsec.try_into().unwrap(),
                    ),
                bytes,
            })
        }
    }
}

#[track_caller]
fn checked(result: libc::c_int) -> libc::c_int {
    assert!(result >= 0, "{}", io::Error::last_os_error());
    result
}
