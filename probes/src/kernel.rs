//! Reading kernel structures: the one place that follows kernel pointers.

use core::mem::{MaybeUninit, transmute};

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel};
use kldtrace_abi::CAST_CALL;

/// Declares where kernel fields lie.
///
/// Each value is 0 here. User space finds the symbols by their names,
/// `OFFSET___struct___field___field`, resolves them from the running kernel's
/// BTF and puts them into the instructions before load
/// (userspace/src/kernel/constants.rs): a load costs what CO-RE's would.
#[macro_export]
macro_rules! offsets {
    ($($name:ident)+) => { $(
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals, reason = "kernel names, spelled as in C")]
        pub static $name: u64 = 0;
    )+ };
}
pub use crate::offsets;

/// Declares numbers that user space sets before load. Code behind a switch
/// that stays 0 is removed by the verifier and costs nothing.
#[macro_export]
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident)+) => { $(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        static $name: u64 = 0;
    )+ };
}
pub use crate::settings;

/// A number that user space has set before load.
#[inline(always)]
pub fn setting(number: &'static u64) -> u64 {
    // SAFETY: a valid reference; volatile because the value in the object file
    // is not the one at run time.
    unsafe { core::ptr::read_volatile(number) }
}

/// Whether user space has turned a switch on.
#[inline(always)]
pub fn on(switch: &'static u64) -> bool {
    setting(switch) != 0
}

/// Now, by `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper only reads a clock.
    unsafe { bpf_ktime_get_ns() }
}

settings! {
    /// What [`readable`] takes an address for: the number of a structure that
    /// begins with a number of 64 bits; 0: this kernel has no such function.
    CAST_TYPE
}

/// An address as a pointer that the verifier lets a program read 8 bytes at;
/// `structure` is [`CAST_TYPE`], and not 0. By `void *bpf_rdonly_cast(const void
/// *obj, u32 btf_id)` (kernel/bpf/helpers.c, since 6.2). The verifier makes a
/// move between registers of the call, and loads through the pointer read zero
/// on a fault, as those of typed pointers do.
#[inline(always)]
fn readable(address: *const u8, structure: u64) -> *const u8 {
    // SAFETY: as aya-ebpf calls helpers: a call of a number is all that a
    // program can do. User space has replaced it.
    let cast: unsafe extern "C" fn(*const u8, u32) -> *const u8 =
        unsafe { transmute(CAST_CALL as usize) };
    // SAFETY: the verifier checks it.
    unsafe { cast(address, structure as u32) }
}

/// A pointer into kernel memory.
///
/// `TYPED` pointers come from arguments of BTF-typed programs: the verifier
/// knows what they point to, loads are direct and a fault reads zero. Others
/// are made [`readable`], or go through `bpf_probe_read_kernel`, which also
/// reads zero on a fault but takes ten times as long.
#[derive(Clone, Copy)]
pub struct Object<const TYPED: bool>(pub *const u8);

/// What typed programs use.
pub type Typed = Object<true>;

impl Object<false> {
    /// The object at an address.
    #[inline(always)]
    #[must_use]
    pub fn at(address: u64) -> Self {
        Self(address as *const u8)
    }
}

impl<const TYPED: bool> Object<TYPED> {
    /// Whether the kernel passed no object.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// A number that no other object has while this one lives. The verifier lets
    /// nobody reckon with the address of a typed one, but for what lies between
    /// two pointers: so this is its distance from a global.
    #[inline(always)]
    pub fn identity(self) -> u64 {
        (self.0 as u64).wrapping_sub((&raw const CAST_TYPE) as u64)
    }

    /// The number at an offset.
    #[inline(always)]
    pub fn get<T: Copy + Default>(self, offset: &'static u64) -> T {
        let field = self.0.wrapping_add(setting(offset) as usize).cast::<T>();
        let structure = if TYPED { 0 } else { setting(&CAST_TYPE) };
        if TYPED {
            // SAFETY: the verifier checks the type behind the pointer, and
            // the kernel handles a fault by reading zero.
            unsafe { core::ptr::read_volatile(field) }
        } else if size_of::<T>() <= 8 && structure != 0 {
            // SAFETY: the verifier checks it; see `readable`.
            unsafe { core::ptr::read_volatile(readable(field.cast(), structure).cast()) }
        } else {
            let mut value = MaybeUninit::<T>::uninit();
            // SAFETY: the helper checks the address, and fills the value with
            // zeros where it cannot read (kernel/trace/bpf_trace.c:
            // bpf_probe_read_kernel_common). So its answer needs no branch,
            // of which the verifier follows so many and no more.
            unsafe {
                bpf_probe_read_kernel(
                    value.as_mut_ptr().cast(),
                    size_of::<T>() as u32,
                    field.cast(),
                );
                value.assume_init()
            }
        }
    }

    /// The object that is embedded at an offset.
    #[inline(always)]
    #[must_use]
    pub fn part(self, offset: &'static u64) -> Self {
        Self(self.0.wrapping_add(setting(offset) as usize))
    }

    /// The object that the pointer at an offset points to.
    #[inline(always)]
    #[must_use]
    pub fn follow(self, offset: &'static u64) -> Self {
        Self(self.get::<usize>(offset) as *const u8)
    }
}
