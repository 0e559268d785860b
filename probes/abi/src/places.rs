//! A table of what is remembered of kernel objects while they live, by address.
//!
//! It is an array of sets of three places. Who finds its own set full lies in one of
//! the next, and its own set counts that.

/// Places of a [`Set`].
pub const PLACES: usize = 3;

/// One set: two lines of memory with places of 40 bytes, of which the first has
/// all of the first place.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Set<P> {
    /// Objects of this set that found it full, and lie in one of the next.
    pub elsewhere: u64,
    /// The places, in any order.
    pub places: [P; PLACES],
}

/// What is remembered of an object.
///
/// # Safety
/// The functions reach two fields of it.
pub unsafe trait Place: Copy + 'static {
    /// Address of the object; 0: the place is free.
    fn address(this: *mut Self) -> *mut u64;
    /// Whether it lies in another set than its own: 1, else 0.
    fn elsewhere(this: *mut Self) -> *mut u16;
}

/// Declares what is remembered, a structure with the fields `address` and
/// `elsewhere`.
macro_rules! place {
    ($name:ident) => {
        // SAFETY: fields of it.
        unsafe impl $crate::places::Place for $name {
            #[inline(always)]
            fn address(this: *mut Self) -> *mut u64 {
                this.cast::<u8>()
                    .wrapping_add(core::mem::offset_of!(Self, address))
                    .cast()
            }
            #[inline(always)]
            fn elsewhere(this: *mut Self) -> *mut u16 {
                this.cast::<u8>()
                    .wrapping_add(core::mem::offset_of!(Self, elsewhere))
                    .cast()
            }
        }
        const _: () = assert!(size_of::<$crate::places::Set<$name>>() == 128);
    };
}
pub(crate) use place;

/// The set of an object, of so many.
#[inline(always)]
pub const fn own_set(address: u64, sets: u64) -> u32 {
    // Knuth's multiplicative hash: the upper half depends on all bits.
    let hash = address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    ((hash * sets) >> 32) as u32
}
