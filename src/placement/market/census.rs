//! How often each class of pods was seen, and when a market learns from it.

/// How often each class of pods was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    pub counts: Vec<u64>,
    /// The same when it was last learnt from: what follows depends on the pods alone, and not on when a kind of card
    /// comes to be known.
    pub learnt: Vec<u64>,
    pub total: u64,
    /// How many of them have left.
    pub left: u64,
    /// The part of the pods that came which had left when it was last learnt from.
    pub turnover: f64,
    /// Whether the demand was told in advance, so that only the turnover is learnt.
    pub known: bool,
}

impl Census {
    /// After 16, 32, 64, ... pods, and then after every 500.
    pub fn due(&self) -> bool {
        (self.total >= 16 && self.total < 500 && self.total.is_power_of_two())
            || (self.total > 0 && self.total.is_multiple_of(500))
    }
}
