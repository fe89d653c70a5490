//! Atomic integers, before each access of which another thread may run.

use std::sync::atomic::{self, Ordering};

use crate::schedule::point;

macro_rules! word {
    ($name:ident, $type:ty) => {
        /// As the standard library's.
        #[derive(Default)]
        pub struct $name(atomic::$name);

        impl $name {
            /// As the standard library's.
            pub fn load(&self, order: Ordering) -> $type {
                point();
                self.0.load(order)
            }

            /// As the standard library's.
            pub fn store(&self, value: $type, order: Ordering) {
                point();
                self.0.store(value, order);
            }

            /// As the standard library's.
            pub fn fetch_add(&self, value: $type, order: Ordering) -> $type {
                point();
                self.0.fetch_add(value, order)
            }

            /// As the standard library's.
            pub fn fetch_and(&self, value: $type, order: Ordering) -> $type {
                point();
                self.0.fetch_and(value, order)
            }

            /// As the standard library's.
            pub fn fetch_or(&self, value: $type, order: Ordering) -> $type {
                point();
                self.0.fetch_or(value, order)
            }

            /// As the standard library's.
            pub fn fetch_max(&self, value: $type, order: Ordering) -> $type {
                point();
                self.0.fetch_max(value, order)
            }

            /// As the standard library's.
            pub fn compare_exchange(
                &self,
                current: $type,
                new: $type,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$type, $type> {
                point();
                self.0.compare_exchange(current, new, success, failure)
            }
        }
    };
}

word!(AtomicU32, u32);
word!(AtomicU64, u64);
