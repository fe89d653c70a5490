//! `libkerf_limiter.so`: holds a container to its share of a GPU, from inside the container.
//!
//! The loader puts it before NVIDIA's driver in every process of a container ([`kerf_limiter_contract`] says how).
//! However a program calls the driver, it first calls a function of this library where memory or GPU time matters
//! (`table` lists them), and that function calls the driver's. Everything else goes straight to the driver.
//!
//! | module | what it is |
//! | --- | --- |
//! | `functions` | the replaced functions: a row for each |
//! | `table` | the exported functions, made from the rows |
//! | `entry`, `symbol` | which of them a program gets for a name: `cuGetProcAddress`, `dlsym` |
//! | `start`, `sanitizer` | programs that put something before the limiter, or do not start behind it |
//! | `hook` | what they do |
//! | `process`, `cards` | this process: allocations; limits and its entry in the shared file |
//! | `ends` | what contexts take, and what ends with them |
//! | `memory` | memory that processes hold: the account, pools, mappings, graphs |
//! | `pace` | holding launches back: the bucket, what is charged already, marks on streams |
//! | `files` | the files of the contract |
//! | `driver`, `library`, `object`, `abi` | the driver's own functions, how they are found, types and numbers |
//! | `clock`, `message`, `sync` | the time; messages to the tenant; waiting for others |
//!
//! # Rules
//!
//! * It depends on the C library alone, does nothing when it is loaded (but see `start`), and starts no thread: a process without GPUs
//!   pays for the mapping only, and `fork` is safe at any moment.
//! * A process whose limits or shared file cannot be used gets `CUDA_ERROR_SYSTEM_NOT_READY` from every replaced
//!   function, `cuInit` first, and one line on standard error that names the file.
//! * An internal error (a panic) ends in `CUDA_ERROR_UNKNOWN` for that call and sets a flag for the host
//!   ([`Flags::FAULT`](kerf_limiter_contract::state::Flags::FAULT)); it never unwinds into the program.
//! * No lock of this library is held while the driver launches kernels or waits, and every wait of its own is bounded, so
//!   kernels that wait for each other do not block. (Graphs that allocate are launched one at a time. While an event is
//!   recorded on a stream, other launches on that stream wait, as they would in the driver.)
//! * Calls of its own never disturb a capture, of any thread and mode, and never become a part of one.
//! * A thread is not unwound out of this library's functions: its cancellation waits.

mod abi;
mod cards;
mod clock;
mod driver;
mod ends;
mod entry;
mod files;
mod functions;
mod hook;
mod library;
mod memory;
mod message;
mod object;
mod pace;
mod process;
mod sanitizer;
mod start;
#[cfg_attr(test, expect(dead_code, reason = "only programs call it, and a test must not find its own `dlsym`"))]
mod symbol;
mod sync;
mod table;
