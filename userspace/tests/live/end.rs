//! What goes on until a test has seen enough.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Clears a flag when dropped, also when an assertion fails: threads that go on
/// while it is set would be waited for for ever.
pub struct End<'a>(pub &'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}
