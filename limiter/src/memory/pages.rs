//! Small allocations of a context, which the driver puts into pages of [`size::PAGE`] together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::size;

/// Bytes of small allocations, by context.
#[derive(Default)]
pub struct Pages {
    small: Mutex<HashMap<usize, u64>>,
}

impl Pages {
    /// Adds a small allocation; `reserve` gets the bytes by which the pages grow, if they do.
    pub fn add<E>(&self, context: usize, bytes: u64, reserve: impl FnOnce(u64) -> Result<(), E>) -> Result<(), E> {
        let mut small = self.small.lock().unwrap_or_else(PoisonError::into_inner);
        let before = small.get(&context).copied().unwrap_or(0);
        let after = before.saturating_add(bytes);
        let growth = size::whole(after) - size::whole(before);
        if growth > 0 {
            reserve(growth)?;
        }
        small.insert(context, after);
        Ok(())
    }

    /// Takes out a small allocation; returns the bytes by which the pages shrink.
    pub fn remove(&self, context: usize, bytes: u64) -> u64 {
        let mut small = self.small.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sum) = small.get_mut(&context) else { return 0 };
        let before = *sum;
        *sum = before.saturating_sub(bytes);
        let after = *sum;
        if after == 0 {
            small.remove(&context);
        }
        size::whole(before) - size::whole(after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_counts_from_its_first_piece_to_its_last() {
        let pages = Pages::default();
        let add = |context, bytes| {
            let mut grown = 0;
            pages
                .add(context, bytes, |more| {
                    grown = more;
                    Ok::<_, ()>(())
                })
                .unwrap();
            grown
        };
        assert_eq!(
            (add(1, 512), add(1, size::PAGE - 512), add(1, 512), add(2, 512)),
            (size::PAGE, 0, size::PAGE, size::PAGE)
        );
        assert_eq!(
            (pages.remove(1, 512), pages.remove(1, size::PAGE - 512), pages.remove(1, 512)),
            (size::PAGE, 0, size::PAGE)
        );
        assert_eq!(pages.add(3, 1, |_| Err("no room")), Err("no room"));
        assert_eq!(pages.remove(3, 1), 0);
    }
}
