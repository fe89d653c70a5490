//! A state for tests.

use kerf_limiter_contract::state::State;

/// As a mapped file would be.
pub fn state() -> &'static State {
    // SAFETY: all of it is atomic integers, for which zero bytes are a value. Boxed zeroed, since it is large.
    unsafe { Box::leak(Box::<State>::new_zeroed().assume_init()) }
}
