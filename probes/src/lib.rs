//! What the objects of probes share. Each object is loaded by itself, as what
//! it watches comes and goes: `node` (the kernel proper), and one for each
//! module.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    allow(internal_features, reason = "see atomic.rs")
)]

pub mod accounts;
pub mod atomic;
pub mod kernel;
pub mod places;
pub mod record;
pub mod slots;
pub mod storage;

/// What every object needs once: a panic handler, and the licence.
#[macro_export]
macro_rules! object {
    () => {
        #[cfg(target_arch = "bpf")]
        #[panic_handler]
        fn panic(_info: &core::panic::PanicInfo) -> ! {
            // Nothing here panics: the verifier would refuse the call.
            loop {}
        }

        /// The kernel lends GPL-only helpers to programs that say so.
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
    };
}
