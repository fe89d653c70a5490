//! Amounts as people read them.

use crate::view::{Amount, ContainerUse};

/// What is not known.
pub const UNKNOWN: &str = "?";
/// What there is not.
pub const NONE: &str = "-";

/// Compute in percent of one GPU.
pub fn percent(compute: u64) -> String {
    format!("{}%", compute.div_ceil(10))
}

/// Compute as a number of GPUs.
pub fn gpus(compute: u64) -> String {
    let (whole, rest) = (compute / 1000, compute % 1000 / 10);
    match rest {
        0 => whole.to_string(),
        rest if rest % 10 == 0 => format!("{whole}.{}", rest / 10),
        rest => format!("{whole}.{rest:02}"),
    }
}

/// Memory as Kubernetes writes it, with at most one decimal.
pub fn memory(mib: u64) -> String {
    match (mib / 1024, (mib % 1024) * 10 / 1024) {
        (0, _) => format!("{mib}Mi"),
        (gib, 0) => format!("{gib}Gi"),
        (gib, tenth) => format!("{gib}.{tenth}Gi"),
    }
}

/// Compute and memory of one GPU.
pub fn share(amount: Amount) -> String {
    match amount.memory_mib {
        0 => percent(amount.compute),
        mib => format!("{} {}", percent(amount.compute), memory(mib)),
    }
}

pub fn used_compute(used: Option<ContainerUse>) -> String {
    used.and_then(|used| used.compute).map_or_else(|| UNKNOWN.to_owned(), percent)
}

pub fn used_memory(used: Option<ContainerUse>) -> String {
    used.and_then(|used| used.memory_mib).map_or_else(|| UNKNOWN.to_owned(), memory)
}

/// `one GPU`, `3 GPUs`.
pub fn count(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short_and_lose_little() {
        assert_eq!([percent(500), percent(1), percent(2000)], ["50%", "1%", "200%"]);
        assert_eq!([gpus(2500), gpus(4000), gpus(330), gpus(1050)], ["2.5", "4", "0.33", "1.05"]);
        assert_eq!([memory(512), memory(7680), memory(15360), memory(16280)], ["512Mi", "7.5Gi", "15Gi", "15.8Gi"]);
        assert_eq!(share(Amount { compute: 500, memory_mib: 0 }), "50%");
        assert_eq!([count(1, "GPU"), count(0, "GPU")], ["1 GPU", "0 GPUs"]);
    }
}
