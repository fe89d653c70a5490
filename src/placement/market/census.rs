//! How often each class of pods was seen, and when a market learns from it.

#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    pub counts: Vec<u64>,
    /// `counts` when the outlook was last learnt: so the outlook depends on the pods alone, and not on when a kind of
    /// card becomes known.
    pub learnt: Vec<u64>,
    pub total: u64,
    /// How many of the pods seen have left.
    pub left: u64,
    /// The part of the pods that had left when it was last learnt, from 0 to 1.
    pub turnover: f64,
    /// Whether the demand was given in advance, so that only the turnover is learnt.
    pub known: bool,
}

impl Census {
    /// After 16, 32, 64, ... pods, and then after every 500.
    pub fn due(&self) -> bool {
        (self.total >= 16 && self.total < 500 && self.total.is_power_of_two())
            || (self.total > 0 && self.total.is_multiple_of(500))
    }
}
