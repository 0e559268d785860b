//! `BPF_PROG_TEST_RUN`: a program on a packet, without an interface.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// include/uapi/linux/bpf.h: the part of `union bpf_attr` for this command.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    unused: u32,
}

const BPF_PROG_TEST_RUN: i32 = 10;
/// The kernel runs programs on no less than a header of Ethernet
/// (net/bpf/test_run.c: `bpf_test_init`). No driver passes less on, and
/// WireGuard no less than a header of IP.
pub const LEAST: usize = 14;

/// Runs an XDP program on a packet, so many times. Returns the action and how
/// many nanoseconds one run took.
pub fn xdp(program: impl AsFd, packet: &[u8], repeat: u32) -> io::Result<(u32, u32)> {
    let mut attr = TestRun {
        prog_fd: program.as_fd().as_raw_fd().cast_unsigned(),
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat,
        ..TestRun::default()
    };
    run(&mut attr)?;
    Ok((attr.retval, attr.duration))
}

/// include/uapi/linux/bpf.h: `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// `BPF_F_TEST_XDP_LIVE_FRAMES`: what the program says is done with the packet.
const LIVE: u32 = 2;

/// Runs an XDP program on so many packets as if they had come in by an
/// interface, of which this process's namespace has the index.
pub fn live(program: impl AsFd, packet: &[u8], packets: u32, interface: u32) -> io::Result<()> {
    let context = Context {
        data_end: packet.len() as u32,
        ingress_ifindex: interface,
        ..Context::default()
    };
    let mut attr = TestRun {
        prog_fd: program.as_fd().as_raw_fd().cast_unsigned(),
        data_size_in: packet.len() as u32,
        data_in: packet.as_ptr() as u64,
        repeat: packets,
        ctx_size_in: size_of::<Context>() as u32,
        ctx_in: std::ptr::from_ref(&context) as u64,
        flags: LIVE,
        ..TestRun::default()
    };
    run(&mut attr)
}

fn run(attr: &mut TestRun) -> io::Result<()> {
    // SAFETY: the kernel reads and writes the structure and reads what it
    // points to, which live until it returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            std::ptr::from_mut(attr),
            size_of::<TestRun>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Now, by the clock of the programs.
pub fn now() -> u64 {
    let time = nix::time::ClockId::CLOCK_MONOTONIC.now().unwrap();
    std::time::Duration::from(time).as_nanos() as u64
}
