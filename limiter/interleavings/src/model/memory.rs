//! The limiter's files, but for the locks on a file by which it knows who lives.

#[path = "../../../src/memory/account.rs"]
pub mod account;
#[path = "../../../src/memory/allocations.rs"]
pub mod allocations;
#[path = "../../../src/memory/budget.rs"]
pub mod budget;
#[path = "liveness.rs"]
pub mod liveness;
#[path = "../../../src/memory/pool.rs"]
pub mod pool;
#[path = "../../../src/memory/shared.rs"]
pub mod shared;
#[path = "../../../src/memory/size.rs"]
pub mod size;
#[path = "../../../src/memory/sum.rs"]
pub mod sum;
