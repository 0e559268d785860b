//! The bytes of a packet, where the kernel has them.

use aya_ebpf::programs::{TcContext, XdpContext};
use kldtrace_abi::plane::Packet;

/// Bytes in which all headers lie but of rare packets: two tags, IPv6 with an
/// extension, TCP.
const HEADERS: usize = 22 + 40 + 24 + 20;

/// Its first byte, the one behind its last, and how many they are.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
    length: usize,
}

impl Frame {
    /// A packet that arrives.
    #[inline(always)]
    pub fn arriving(ctx: &XdpContext) -> Self {
        let (start, end) = (ctx.data(), ctx.data_end());
        Self::new(start, end, end - start)
    }

    /// A packet that leaves. Of one with parts elsewhere the headers are here
    /// if [`HEADERS`] bytes could be had.
    #[inline(always)]
    pub fn leaving(ctx: &TcContext) -> Self {
        let length = ctx.len();
        if ctx.data() + HEADERS > ctx.data_end() {
            // Fails for what is shorter: then it is all here.
            let _ = ctx.pull_data(length.min(HEADERS as u32));
        }
        Self::new(ctx.data(), ctx.data_end(), length as usize)
    }

    #[inline(always)]
    fn new(start: usize, end: usize, length: usize) -> Self {
        Self {
            start,
            end,
            // Else the compiler proves from a length in a header that a later
            // comparison with the end cannot fail, and leaves it out; the
            // verifier knows packets by those comparisons alone.
            length: opaque(length),
        }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> usize {
        self.length
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let start = self.start + at;
        if start + N > self.end {
            return None;
        }
        let mut bytes = [0; N];
        let mut done = 0;
        // In words: a packet has no alignment that the compiler knows, and
        // left alone it loads byte by byte.
        while done < N {
            // SAFETY: within the packet, as just compared; so the verifier.
            done += unsafe { read(start + done, &mut bytes[done..]) };
        }
        Some(bytes)
    }
}

/// A number that may be any, as far as the compiler knows.
#[inline(always)]
pub fn opaque(mut number: usize) -> usize {
    // SAFETY: moves a register to itself. The kernel takes no two lines of the
    // source at one instruction, so there must be one.
    unsafe {
        core::arch::asm!("{0} = {0}", inlateout(reg) number, options(pure, nomem, nostack));
    }
    number
}

/// Reads as many bytes as fit, 8, 4, 2 or 1, and says how many.
///
/// # Safety
/// There are as many bytes as `to` has.
#[inline(always)]
unsafe fn read(from: usize, to: &mut [u8]) -> usize {
    macro_rules! word {
        ($word:ty, $load:literal) => {{
            let word: u64;
            // SAFETY: reads so many bytes of the packet, and nothing else.
            unsafe {
                core::arch::asm!(
                    $load,
                    word = lateout(reg) word,
                    from = in(reg) from,
                    options(pure, readonly, nostack),
                );
            }
            to[..size_of::<$word>()].copy_from_slice(&(word as $word).to_ne_bytes());
            size_of::<$word>()
        }};
    }
    match to.len() {
        8.. => word!(u64, "{word} = *(u64 *)({from} + 0)"),
        4.. => word!(u32, "{word} = *(u32 *)({from} + 0)"),
        2.. => word!(u16, "{word} = *(u16 *)({from} + 0)"),
        _ => word!(u8, "{word} = *(u8 *)({from} + 0)"),
    }
}
