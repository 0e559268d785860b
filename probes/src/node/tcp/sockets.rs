//! What is remembered of each socket while it lives.
//!
//! Every socket passes through `TCP_CLOSE` before it is freed
//! (`inet_csk_destroy_sock` warns otherwise), and leaves the table there. All that
//! is done to a place is done under the lock of its socket, but for taking it.

use kldtrace_abi::{
    loss::Loss,
    tcp::{Phase, Socket},
};
use kldtrace_probes::places::{self, places};

use crate::kernel::Typed;

places! { Sockets: Socket, Loss::TcpStart, SOCKETS SOCKETS_NOW SOCKET_SETS }

/// What is remembered of a socket.
#[inline(always)]
pub fn remembered(socket: Typed) -> Option<*mut Socket> {
    places::remembered::<Sockets>(socket.identity())
}

/// Begins to remember a socket that is not.
#[inline(always)]
pub fn remember(socket: Typed, since: u64, phase: Phase, interface: [u64; 2]) {
    if let Some(place) = places::remember::<Sockets>(socket.identity()) {
        // SAFETY: the place is this socket's, whose lock is held.
        unsafe {
            (*place).since = since;
            (*place).phase = phase as u32;
            (*place).interface = interface;
        }
    }
}

/// Forgets a socket; nothing of its place may be read after that.
///
/// # Safety
/// `place` is the socket's.
#[inline(always)]
pub unsafe fn forget(socket: Typed, place: *mut Socket) {
    // SAFETY: by contract.
    unsafe { places::forget::<Sockets>(socket.identity(), place) };
}
