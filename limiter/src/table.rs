//! The functions that the limiter exports under the driver's names, and the list of them.

use std::convert::identity;
use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use kerf_limiter_contract::state::Flags;

use crate::abi::*;
use crate::clock::Uncancelled;
use crate::driver;
use crate::entry::Entry;
use crate::functions::functions;
use crate::hook::stream::{For, per_thread};
use crate::hook::{
    self, array, context, graph, info, ipc, launch, linear, nvml, physical, pool, proc_address, stream,
};
use crate::message::{self, Topic};
use crate::process;

/// For each row: the exported function, which calls the hook, and its entry.
macro_rules! export {
    ($($library:ident $since:literal $name:ident($($argument:ident: $type:ty),*) = $module:ident::$hook:ident($($given:expr),*);)*) => {
        $(
            /// # Safety
            ///
            /// As the driver's documentation says.
            #[allow(non_snake_case, clippy::too_many_arguments, reason = "the driver's own")]
            #[cfg_attr(not(test), unsafe(no_mangle))]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> Status {
                // SAFETY: the program calls this as it would call the driver.
                guard(stringify!($name), || unsafe {
                    $module::$hook(|| driver::$name($($argument),*) $(, $given)*)
                })
            }
        )*

        pub fn entries() -> &'static [Entry] {
            static ENTRIES: &[Entry] = &[$(
                Entry { hook: $name as *mut c_void, driver: &driver::function::$name, since: $since },
            )*];
            ENTRIES
        }
    };
}

functions!(export);

/// A hook's result as the program gets it; panics end here. A cancellation of the thread waits: files are read in hooks, and
/// the driver may do what it likes.
fn guard(name: &str, body: impl FnOnce() -> Result<(), Status>) -> Status {
    let _uncancelled = Uncancelled::enter();
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(status)) => status,
        Err(_) => {
            if let Ok(process) = process::current() {
                process.cards.flag(Flags::FAULT);
            }
            message::once(Topic::Fault, format_args!("{name} failed by an error of the limiter"));
            UNKNOWN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_stands_twice_in_the_table() {
        for (i, a) in entries().iter().enumerate() {
            assert!(
                entries().iter().skip(i + 1).all(|b| b.driver.name() != a.driver.name()),
                "{:?}",
                a.driver.name()
            );
        }
    }
}
