//! The bytes of a packet, where the kernel has them.

use aya_ebpf::programs::XdpContext;
use kldtrace_abi::plane::Packet;

/// Its first byte, and the one behind its last.
#[derive(Clone, Copy)]
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// A packet that arrives.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self {
            start: ctx.data(),
            end: ctx.data_end(),
        }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn length(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let start = self.start + at;
        if start + N > self.end {
            return None;
        }
        // SAFETY: within the packet, as just compared; so the verifier.
        Some(unsafe { core::ptr::read_unaligned(start as *const [u8; N]) })
    }
}
