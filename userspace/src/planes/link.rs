//! Links: programs on interfaces, as objects of the kernel that can be pinned.
//!
//! aya attaches by netlink where a link is refused, and what is attached so
//! ends with nobody to know it and cannot be pinned. Here a link is a link, or
//! an error.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{
    BPF_F_BEFORE, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, bpf_attach_type, bpf_cmd, bpf_link_info,
    bpf_link_type,
};

use crate::kernel::sys::{self, bpf, owned, raw, zeroed};

/// Which packets a program gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What arrives, by XDP.
    In,
    /// What leaves, by tcx, before other programs there.
    Out,
}

impl Direction {
    /// Both, in the order in which they are attached: flows are known before
    /// anything is dropped.
    pub const BOTH: [Self; 2] = [Self::Out, Self::In];

    /// The end of names of pins.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    const fn attach_type(self) -> u32 {
        match self {
            Self::In => bpf_attach_type::BPF_XDP as u32,
            Self::Out => bpf_attach_type::BPF_TCX_EGRESS as u32,
        }
    }
}

/// A program on an interface. It stays there as long as this, or a pin of it.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The number of the link.
    pub id: u32,
    /// The number of its program.
    pub program: u32,
    /// The index of the interface, in the namespace where it is; 0: the
    /// interface is gone.
    pub interface: u32,
    /// Which packets.
    pub direction: Direction,
}

fn path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

impl Link {
    /// Attaches a program that is loaded to an interface of this namespace, in
    /// native mode where the driver can, else in generic mode.
    ///
    /// # Errors
    /// `EBUSY` or `EEXIST`: another program is there. `EINVAL`: the kernel is
    /// older than this kind of link (5.9 for XDP, 6.6 for tcx).
    pub fn attach(
        program: BorrowedFd<'_>,
        interface: u32,
        direction: Direction,
    ) -> io::Result<Self> {
        let create = |flags: u32| {
            let mut attr = zeroed();
            attr.link_create.__bindgen_anon_1.prog_fd = raw(program);
            attr.link_create.__bindgen_anon_2.target_ifindex = interface;
            attr.link_create.attach_type = direction.attach_type();
            attr.link_create.flags = flags;
            bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr).map(|fd| Self(owned(fd)))
        };
        match direction {
            // An earlier program that lets pass ends the list.
            Direction::Out => create(BPF_F_BEFORE),
            Direction::In => {
                create(XDP_FLAGS_DRV_MODE).or_else(|native| match native.raw_os_error() {
                    Some(libc::EBUSY | libc::EEXIST | libc::ENODEV | libc::EPERM) => Err(native),
                    _ => create(XDP_FLAGS_SKB_MODE),
                })
            }
        }
    }

    /// Opens one that is pinned.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pin: &Path) -> io::Result<Self> {
        let path = path(pin)?;
        let mut attr = zeroed();
        attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
        bpf(bpf_cmd::BPF_OBJ_GET, &mut attr).map(|fd| Self(owned(fd)))
    }

    /// Pins it.
    ///
    /// # Errors
    /// When something is there, or outside of a BPF file system.
    pub fn pin(&self, pin: &Path) -> io::Result<()> {
        let path = path(pin)?;
        let mut attr = zeroed();
        attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
        attr.__bindgen_anon_4.bpf_fd = raw(&self.0);
        bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
    }

    /// Puts another program in place of the one that it has: each packet gets
    /// the one or the other.
    ///
    /// # Errors
    /// When the interface is gone (`ENOLINK`, `ENODEV`).
    pub fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = zeroed();
        attr.link_update.link_fd = raw(&self.0);
        attr.link_update.__bindgen_anon_1.new_prog_fd = raw(program);
        bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr).map(drop)
    }

    /// Takes the program off, whoever else has the link or a pin of it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn detach(&self) -> io::Result<()> {
        let mut attr = zeroed();
        attr.link_detach.link_fd = raw(&self.0);
        bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr).map(drop)
    }

    /// What the kernel says of it.
    ///
    /// # Errors
    /// For a link of another kind.
    pub fn info(&self) -> io::Result<Info> {
        const XDP: u32 = bpf_link_type::BPF_LINK_TYPE_XDP as u32;
        const TCX: u32 = bpf_link_type::BPF_LINK_TYPE_TCX as u32;
        // SAFETY: integers.
        let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
        sys::info(&self.0, &mut info)?;
        // SAFETY: the kernel filled the one that the type says.
        let (direction, interface) = unsafe {
            match info.type_ {
                XDP => (Direction::In, info.__bindgen_anon_1.xdp.ifindex),
                TCX => (Direction::Out, info.__bindgen_anon_1.tcx.ifindex),
                other => return Err(io::Error::other(format!("a link of type {other}"))),
            }
        };
        Ok(Info {
            id: info.id,
            program: info.prog_id,
            interface,
            direction,
        })
    }
}

/// The links by which programs get what leaves an interface of this namespace.
///
/// # Errors
/// When there is no such interface.
pub fn leaving(interface: u32) -> io::Result<Vec<u32>> {
    // The kernel has no more on one interface (include/linux/bpf_mprog.h).
    let mut programs = [0_u32; 64];
    let mut links = [0_u32; 64];
    let mut attr = zeroed();
    attr.query.__bindgen_anon_1.target_ifindex = interface;
    attr.query.attach_type = Direction::Out.attach_type();
    attr.query.prog_ids = programs.as_mut_ptr() as u64;
    attr.query.link_ids = links.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = links.len() as u32;
    bpf(bpf_cmd::BPF_PROG_QUERY, &mut attr)?;
    // SAFETY: an integer that the kernel wrote.
    let count = unsafe { attr.query.__bindgen_anon_2.count } as usize;
    Ok(links.iter().take(count).copied().collect())
}

/// Empties the only entry of an outer map.
///
/// # Errors
/// What the kernel says; `ENOENT`: it is empty.
pub fn empty(outer: BorrowedFd<'_>) -> io::Result<()> {
    let key = 0_u32;
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = raw(outer);
    attr.__bindgen_anon_2.key = std::ptr::from_ref(&key) as u64;
    bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr).map(drop)
}
