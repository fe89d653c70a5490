//! What a table and the lines below it are made of.

use crate::amounts::{count, gpus, memory, share};
use crate::table::Table;
use crate::view::Totals;

/// What a command shows.
pub struct Shown {
    pub table: Table,
    /// Lines below the table.
    pub below: Vec<String>,
    /// Whether something was found; nothing is told otherwise but why.
    pub found: bool,
}

/// The last line of tables of nodes and GPUs.
pub fn sums(totals: &Totals) -> String {
    let Totals { capacity, granted, free, .. } = totals;
    let mut line = format!("{} on {}", count(totals.gpus, "GPU"), count(totals.nodes, "node"));
    for (number, word) in [(totals.unhealthy_gpus, "unhealthy"), (totals.cordoned_gpus, "cordoned")] {
        if number > 0 {
            line += &format!(", {number} {word}");
        }
    }
    line += &format!(
        "; granted {} of {} and {} of {}; free {} and {}",
        gpus(granted.compute),
        count(capacity.compute / 1000, "GPU"),
        memory(granted.memory_mib),
        memory(capacity.memory_mib),
        gpus(free.compute),
        memory(free.memory_mib),
    );
    line + &format!(", on one GPU at most {}", share(totals.largest_free))
}
