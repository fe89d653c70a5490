//! Random choices for the models.

/// Random numbers that proptest can shrink: a sequence, used up in order.
pub(super) struct Dice(Vec<u32>, usize);

impl Dice {
    pub(super) fn new(numbers: Vec<u32>) -> Self {
        Self(numbers, 0)
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.1 += 1;
        let at = self.1;
        let number = self.0[at % self.0.len()] as usize;
        (number.wrapping_mul(2_654_435_761).wrapping_add(at.wrapping_mul(40_503)) >> 4) % sides.max(1)
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.roll(at + 1);
            items.swap(at, other);
        }
    }
}

/// How many schedules each property tries; a long run sets it.
pub(super) fn schedules() -> u32 {
    std::env::var("KERF_SCHEDULES").ok().and_then(|count| count.parse().ok()).unwrap_or(400)
}
