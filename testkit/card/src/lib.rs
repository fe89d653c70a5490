//! A stand-in for a card, shared by processes through files, as the stand-ins for the driver's libraries use it.
//!
//! * [`card::Card`]: so much memory, and kernels that take time. Kernels of one process run one after the other; while
//!   several processes have kernels, the card gives each the same part of its time, as a real one does that switches
//!   between them.
//! * [`clock::Clock`]: time that stands still while anybody works, and jumps to the next moment that somebody waits for
//!   when all wait. Ten seconds on a card pass in moments, and the same way on every machine.
//!
//! Nothing here knows of limits.

pub mod card;
pub mod clock;
mod shared;
