//! A check of the limiter's account and pools in every interleaving of a few threads, which stand for processes or are
//! threads of one. It compiles the limiter's own files, and those of the contract, with atomic integers and locks that hand
//! control to [`schedule`].
//!
//! Accesses are sequentially consistent here, as the account's are (`SeqCst`); weaker orders are not modelled.

// the tests in the limiter's files are for its own atomic integers
#![cfg(not(test))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests, which may stop at once")]
#![allow(dead_code, reason = "the limiter's files have more than is looked at here")]

// the limiter's files know the contract by this name
extern crate self as kerf_limiter_contract;

#[path = "../../src/abi.rs"]
mod abi;
#[path = "model/driver.rs"]
mod driver;
mod limits;
#[path = "model/memory.rs"]
mod memory;
#[path = "../../contract/src/overhead.rs"]
mod overhead;
pub mod scenarios;
pub mod schedule;
mod size;
#[path = "../../contract/src/state.rs"]
mod state;
mod sync;
mod word;

/// A state in which nothing is held.
fn blank() -> &'static state::State {
    fn all<T: Default, const N: usize>() -> [T; N] {
        std::array::from_fn(|_| T::default())
    }
    let process = |_| state::Process {
        owner: Default::default(),
        namespace: Default::default(),
        seen: Default::default(),
        reserved: Default::default(),
    };
    let device = |_| state::Device {
        due: Default::default(),
        busy: Default::default(),
        waited: Default::default(),
        refused: Default::default(),
        timeline: all(),
        taken: all(),
        held: all(),
    };
    let shared = |_| state::Shared {
        key: Default::default(),
        bytes: Default::default(),
        payer: Default::default(),
        device: Default::default(),
        users: all(),
    };
    Box::leak(Box::new(state::State {
        header: state::Header {
            magic: Default::default(),
            version: Default::default(),
            bytes: Default::default(),
            flags: Default::default(),
            high: Default::default(),
            high_shared: Default::default(),
            reserved: all(),
        },
        processes: std::array::from_fn(process),
        devices: std::array::from_fn(device),
        extras: std::array::from_fn(|_| state::Extra { context: all(), changes: all() }),
        shared: std::array::from_fn(shared),
    }))
}
