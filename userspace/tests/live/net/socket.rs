//! What the standard library cannot ask of a TCP socket.

use std::{
    io, mem,
    net::{SocketAddr, TcpStream},
    os::fd::{AsRawFd as _, BorrowedFd},
    time::Duration,
};

/// Whether a descriptor becomes readable within a time.
pub fn readable(fd: BorrowedFd<'_>, within: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid entry.
    let ready = unsafe { libc::poll(&raw mut poll, 1, within.as_millis() as i32) };
    ready > 0
}

/// connect(2), for sockets that were made before.
pub fn connect(socket: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let result = match to {
        SocketAddr::V4(to) => {
            // SAFETY: plain data.
            let mut name: libc::sockaddr_in = unsafe { mem::zeroed() };
            name.sin_family = libc::AF_INET as u16;
            name.sin_port = to.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
            call_connect(socket, &name)
        }
        SocketAddr::V6(to) => {
            // SAFETY: plain data.
            let mut name: libc::sockaddr_in6 = unsafe { mem::zeroed() };
            name.sin6_family = libc::AF_INET6 as u16;
            name.sin6_port = to.port().to_be();
            name.sin6_addr.s6_addr = to.ip().octets();
            call_connect(socket, &name)
        }
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// connect(2) to nowhere: a connecting or connected socket is as new again.
pub fn disconnect(socket: &TcpStream) {
    // SAFETY: plain data; AF_UNSPEC is 0.
    let name: libc::sockaddr_in = unsafe { mem::zeroed() };
    assert_eq!(call_connect(socket, &name), 0);
}

fn call_connect<T>(socket: &TcpStream, name: &T) -> i32 {
    // SAFETY: an open socket, and a name with its length.
    unsafe {
        libc::connect(
            socket.as_raw_fd(),
            std::ptr::from_ref(name).cast(),
            size_of::<T>() as u32,
        )
    }
}

/// Sets an option of a socket.
pub fn set_option<T>(socket: &TcpStream, level: i32, option: i32, value: &T) {
    // SAFETY: an open socket, and a value with its length.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

/// Closes with a reset.
pub fn reset(socket: TcpStream) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    drop(socket);
}

/// What the kernel tells of a connection, `struct tcp_info` of linux/tcp.h.
pub struct Info([u8; 256]);

impl Info {
    pub fn of(socket: &TcpStream) -> Self {
        let mut info = [0; 256];
        let mut length = 256;
        // SAFETY: an open socket, and a buffer with its length.
        let got = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        assert_eq!(got, 0, "{}", io::Error::last_os_error());
        Self(info)
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    /// `tcpi_unacked`, segments.
    pub fn unacknowledged(&self) -> u32 {
        self.u32(24)
    }

    /// `tcpi_rtt`, microseconds.
    pub fn srtt(&self) -> u32 {
        self.u32(68)
    }

    /// `tcpi_total_retrans`, segments.
    pub fn retransmitted(&self) -> u64 {
        self.u32(100).into()
    }

    /// `tcpi_bytes_received`.
    pub fn bytes_received(&self) -> u64 {
        self.u64(128)
    }

    /// `tcpi_segs_in`.
    pub fn segments_in(&self) -> u32 {
        self.u32(140)
    }

    /// `tcpi_bytes_sent` without `tcpi_bytes_retrans`.
    pub fn bytes_sent_once(&self) -> u64 {
        self.u64(200) - self.u64(208)
    }
}
