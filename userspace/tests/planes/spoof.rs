//! Packets from a source that is another each time, within one
//! `BPF_PROG_TEST_RUN`: a program of ours changes the packet, which stays
//! changed for the next run, and goes on with the one that is measured.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// Commands, types and one attach type: include/uapi/linux/bpf.h.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_LOAD: i32 = 5;
const MAP_TYPE_PROG_ARRAY: u64 = 3;
const PROG_TYPE_XDP: u64 = 6;
const ATTACH_XDP: u64 = 37;

/// What is added to the source: odd, so that it is every address once.
pub const STEP: i32 = 0x4f1b_bcdd;

fn bpf(command: i32, attr: &mut [u64; 18]) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the attributes and what they point to, which
    // lives until it returns.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(RawFd::try_from(result).unwrap())
}

/// An instruction (Documentation/bpf/standardization/instruction-set.rst).
fn instruction(code: u8, to: u8, from: u8, offset: u16, number: i32) -> u64 {
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset) << 16
        | u64::from(number.cast_unsigned()) << 32
}

/// A program that changes the source of a packet of IPv4 on Ethernet, and goes
/// on with another.
pub struct Spoofing {
    program: OwnedFd,
    /// Where the other one is: the kernel empties it when nobody holds it.
    _next: OwnedFd,
}

impl AsFd for Spoofing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// A program that sends packets of IPv4 on Ethernet back out of their
/// interface; with `spoof` their source is another each time, and the checksum
/// right. For that it wants the sum over the rest of the header.
pub fn sending(spoof: Option<u16>) -> io::Result<OwnedFd> {
    // r5 = upper half, r0 = lower half; r0 += r5.
    let fold = [
        instruction(0xbf, 5, 0, 0, 0),
        instruction(0x77, 5, 0, 0, 16),
        instruction(0x57, 0, 0, 0, 0xffff),
        instruction(0x0f, 0, 5, 0, 0),
    ];
    let spoofing = |rest: u16| {
        // r0 = bpf_get_prandom_u32(), which becomes the source.
        let source = [
            instruction(0xbf, 6, 1, 0, 0),
            instruction(0x85, 0, 0, 0, 7),
            instruction(0x61, 2, 6, 0, 0),
            instruction(0x61, 3, 6, 4, 0),
            instruction(0xbf, 4, 2, 0, 0),
            instruction(0x07, 4, 0, 0, 34),
            instruction(0x2d, 4, 3, 16, 0),
            instruction(0x63, 2, 0, 26, 0),
        ];
        // The checksum is what is missing from the sum of all.
        let add = [instruction(0x07, 0, 0, 0, rest.into())];
        let end = [
            instruction(0xa7, 0, 0, 0, 0xffff),
            instruction(0x6b, 2, 0, 24, 0),
        ];
        [&source[..], &fold, &add, &fold, &fold, &end].concat()
    };
    // XDP_TX.
    let back = [instruction(0xb7, 0, 0, 0, 3), instruction(0x95, 0, 0, 0, 0)];
    let code = [spoof.map_or(Vec::new(), spoofing), back.to_vec()].concat();
    load(&code, ATTACH_XDP)
}

fn load(code: &[u64], attach: u64) -> io::Result<OwnedFd> {
    let mut attr = [0; 18];
    attr[0] = PROG_TYPE_XDP | (code.len() as u64) << 32;
    attr[1] = code.as_ptr() as u64;
    attr[2] = c"GPL".as_ptr() as u64;
    attr[8] = attach << 32;
    let loaded = bpf(PROG_LOAD, &mut attr)?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded) })
}

/// Puts it in front of a program.
pub fn spoofing(program: impl AsFd) -> io::Result<Spoofing> {
    let mut attr = [0; 18];
    attr[0] = MAP_TYPE_PROG_ARRAY | 4 << 32;
    attr[1] = 4 | 1 << 32;
    let array = bpf(MAP_CREATE, &mut attr)?;
    // SAFETY: new, and nobody else's.
    let array = unsafe { OwnedFd::from_raw_fd(array) };
    let (place, next) = (0_u32, program.as_fd().as_raw_fd());
    let mut attr = [0; 18];
    attr[0] = u64::from(array.as_raw_fd().cast_unsigned());
    attr[1] = std::ptr::from_ref(&place) as u64;
    attr[2] = std::ptr::from_ref(&next) as u64;
    bpf(MAP_UPDATE_ELEM, &mut attr)?;
    let code = [
        // r6 = context, r2 = data, r3 = its end; less than two headers: out.
        instruction(0xbf, 6, 1, 0, 0),
        instruction(0x61, 2, 1, 0, 0),
        instruction(0x61, 3, 1, 4, 0),
        instruction(0xbf, 4, 2, 0, 0),
        instruction(0x07, 4, 0, 0, 34),
        instruction(0x2d, 4, 3, 8, 0),
        // The source, as a number: r5 += STEP.
        instruction(0x61, 5, 2, 26, 0),
        instruction(0x07, 5, 0, 0, STEP),
        instruction(0x63, 2, 5, 26, 0),
        // bpf_tail_call(context, array, 0).
        instruction(0xbf, 1, 6, 0, 0),
        instruction(0x18, 2, 1, 0, array.as_raw_fd()),
        0,
        instruction(0xb7, 3, 0, 0, 0),
        instruction(0x85, 0, 0, 0, 12),
        // Else XDP_TX, which nobody expects.
        instruction(0xb7, 0, 0, 0, 3),
        instruction(0x95, 0, 0, 0, 0),
    ];
    // The array takes programs of one attach type, that of its first.
    let program = load(&code, ATTACH_XDP).or_else(|_| load(&code, 0))?;
    Ok(Spoofing {
        program,
        _next: array,
    })
}
