//! `libkerf_limiter.so`: holds a container to its share of a card, from inside.
//!
//! The loader puts it before NVIDIA's driver in every process of a container ([`kerf_limiter_contract`] says how). A program
//! that calls the driver, by whichever of its ways, calls a function of this library first where memory or time is at
//! stake ([`table`] lists them), and that calls the driver's. Everything else goes straight to the driver.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`functions`] | what is stood in for: a row for each of the driver's functions |
//! | [`table`] | the exported functions, made from the rows |
//! | [`entry`], [`symbol`] | which of them a program gets for a name: `cuGetProcAddress`, `dlsym` |
//! | [`hook`] | what they do |
//! | [`process`], [`cards`] | this process: allocations; limits and entry in the shared file |
//! | [`memory`] | who holds how much: the account, pools, mappings, graphs |
//! | [`pace`] | holding launches back: the bucket, the timeline, marks on streams |
//! | [`files`] | the files of the contract |
//! | [`driver`], [`library`], [`abi`] | the driver's own functions, how they are found, types and numbers |
//! | [`clock`], [`message`] | the time; what the tenant is told |
//!
//! # Rules
//!
//! * It depends on the C library alone, does nothing when it is loaded, and starts no thread: a process without cards pays
//!   for the mapping, and `fork` is safe at any moment.
//! * A process whose limits or shared file cannot be used gets `CUDA_ERROR_SYSTEM_NOT_READY` from everything that is
//!   stood in for, `cuInit` first, and one line on standard error that names the file.
//! * An error of this library (a panic) ends in `CUDA_ERROR_UNKNOWN` for that call and is told to the host
//!   ([`Flags::FAULT`](kerf_limiter_contract::state::Flags::FAULT)); it never unwinds into the program.
//! * No lock of this library is held while the driver launches kernels or waits, so kernels that wait for each other still
//!   meet. (Graphs that allocate are launched one at a time.)

mod abi;
mod cards;
mod clock;
mod driver;
mod entry;
mod files;
mod functions;
mod hook;
mod library;
mod memory;
mod message;
mod pace;
mod process;
// a test is not to find its own `dlsym`
#[cfg(not(test))]
mod symbol;
mod table;
