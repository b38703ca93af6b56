//! Blocks that are read out of order, and hashed in order: as a state machine that does no I/O.
//!
//! ```text
//! begin(0) begin(1) begin(2)    complete(2): nothing    complete(0): 0    complete(1): 1, 2
//! ```
//!
//! What has completed too early waits here with its buffer. Whoever begins no more blocks than it
//! has buffers keeps no more memory than these.

use std::collections::VecDeque;

/// Gives back in order what completes in any order.
#[derive(Debug)]
pub struct Order<T> {
    /// Blocks that were begun and not given back, in order; what has completed holds its item.
    waiting: VecDeque<(u64, Option<T>)>,
}

impl<T> Order<T> {
    /// No block was begun.
    #[must_use]
    pub const fn new() -> Self {
        Self { waiting: VecDeque::new() }
    }

    /// A block was begun at this offset, which is above those of all that were begun before.
    ///
    /// # Panics
    ///
    /// If it is not: blocks are begun in the order that they are to be given back in.
    pub fn begin(&mut self, offset_bytes: u64) {
        let last = self.waiting.back().map(|(offset, _)| *offset);
        assert!(last.is_none_or(|last| last < offset_bytes), "blocks are begun in order");
        self.waiting.push_back((offset_bytes, None));
    }

    /// The block at this offset has completed.
    ///
    /// # Panics
    ///
    /// If none was begun there, or it has completed before.
    pub fn complete(&mut self, offset_bytes: u64, item: T) {
        let found = self.waiting.binary_search_by_key(&offset_bytes, |(offset, _)| *offset);
        let Ok(index) = found else { panic!("no block was begun at {offset_bytes}") };
        let waiting = &mut self.waiting[index].1;
        assert!(waiting.is_none(), "the block at {offset_bytes} completed twice");
        *waiting = Some(item);
    }

    /// The next block in order, if it has completed.
    pub fn take_next(&mut self) -> Option<(u64, T)> {
        self.waiting.front()?.1.as_ref()?;
        let (offset, item) = self.waiting.pop_front()?;
        Some((offset, item?))
    }

    /// How many blocks were begun and not given back.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn whatever_the_order_of_completions_blocks_come_back_in_order_and_once() {
        for seed in 0..500 {
            let mut random = Random::new(seed);
            let depth = 1 + usize::try_from(random.below(8)).unwrap();
            let count = random.below(60);
            let (mut order, mut begun, mut in_flight, mut got) = (Order::new(), 0, vec![], vec![]);
            while got.len() < usize::try_from(count).unwrap() {
                while begun < count && order.waiting() < depth {
                    // Holes lie between blocks: offsets only rise.
                    order.begin(begun * 10);
                    in_flight.push(begun * 10);
                    begun += 1;
                }
                let choice = usize::try_from(random.below(in_flight.len() as u64)).unwrap();
                let offset = in_flight.swap_remove(choice);
                order.complete(offset, offset + 1);
                while let Some((offset, item)) = order.take_next() {
                    assert_eq!(item, offset + 1, "seed {seed}");
                    got.push(offset / 10);
                }
                assert!(order.waiting() <= depth, "seed {seed}");
            }
            assert_eq!(got, (0..count).collect::<Vec<_>>(), "seed {seed}");
            assert_eq!(order.take_next(), None);
        }
    }

    #[test]
    #[should_panic(expected = "completed twice")]
    fn a_block_completes_once() {
        let mut order = Order::new();
        order.begin(0);
        order.complete(0, ());
        order.complete(0, ());
    }
}
