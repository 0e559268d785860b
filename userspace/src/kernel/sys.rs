//! bpf(2), for what aya has no word for.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// bpf(2). What the union points to must live until this returns, and have room
/// for what the command writes.
pub(crate) fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes the union, and what it points to,
    // which the callers keep until this returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}

/// A command's union with nothing in it.
pub(crate) fn zeroed() -> bpf_attr {
    // SAFETY: integers; the kernel wants what is not used to be 0.
    unsafe { std::mem::zeroed() }
}

/// A descriptor as the kernel takes it.
pub(crate) fn raw(fd: impl AsFd) -> u32 {
    fd.as_fd().as_raw_fd().cast_unsigned()
}

/// An owned descriptor that the kernel has just returned.
pub(crate) fn owned(fd: i32) -> OwnedFd {
    // SAFETY: it is open, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// What the kernel says of an object (`BPF_OBJ_GET_INFO_BY_FD`), into the
/// structure for objects of its kind.
pub(crate) fn info<T>(object: impl AsFd, info: &mut T) -> io::Result<()> {
    let mut attr = zeroed();
    attr.info.bpf_fd = raw(object);
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}
