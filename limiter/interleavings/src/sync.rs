//! Locks and yielding, as the limiter's files use them.

use std::ops::{Deref, DerefMut};
use std::sync::{self, LockResult, TryLockError, TryLockResult};

use crate::schedule;

/// As the standard library's.
#[derive(Default)]
pub struct Mutex<T>(sync::Mutex<T>);

/// As the standard library's.
pub struct MutexGuard<'a, T> {
    lock: &'a Mutex<T>,
    /// `None` only while it is dropped.
    inner: Option<sync::MutexGuard<'a, T>>,
}

impl<T> Mutex<T> {
    /// As the standard library's, but never poisoned.
    ///
    /// # Errors
    /// None.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        schedule::point();
        loop {
            if let Ok(guard) = self.try_now() {
                return Ok(guard);
            }
            schedule::wait(self.place());
        }
    }

    /// As the standard library's, but never poisoned.
    ///
    /// # Errors
    /// Another thread has it.
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        schedule::point();
        self.try_now()
    }

    fn try_now(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(inner) => Ok(MutexGuard { lock: self, inner: Some(inner) }),
            Err(TryLockError::Poisoned(error)) => Ok(MutexGuard { lock: self, inner: Some(error.into_inner()) }),
            Err(TryLockError::WouldBlock) => Err(TryLockError::WouldBlock),
        }
    }

    fn place(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.inner = None;
        schedule::wake(self.lock.place());
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.inner.as_ref().expect("locked")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("locked")
    }
}

/// As the standard library's.
pub mod hint {
    /// Takes no time here.
    pub fn spin_loop() {}
}

/// As the standard library's.
pub mod thread {
    /// Another thread runs next.
    pub fn yield_now() {
        crate::schedule::yield_now();
    }
}
