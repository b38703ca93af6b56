//! Alarms for operations, in the order of their times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slots::Slots;
use crate::operation::OperationId;
use crate::units::Moment;

/// What is to happen later, as far as the kernel does not see to it.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(Moment, u32, u32)>>);

impl Timers {
    /// Sets an alarm for an operation. Alarms of operations that have ended are thrown out before
    /// there are more than twice as many alarms as slots.
    pub(super) fn set(&mut self, moment: Moment, id: OperationId, slots: &Slots) {
        if self.0.len() >= 2 * slots.capacity() {
            self.0.retain(|Reverse((_, index, generation))| {
                let id = OperationId { index: *index, generation: *generation };
                slots.find(id).is_some()
            });
        }
        self.0.push(Reverse((moment, id.index, id.generation)));
    }

    /// When the next alarm rings.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.peek().map(|Reverse((moment, ..))| *moment)
    }

    /// Takes an alarm whose time has come by `now`.
    pub(super) fn due(&mut self, now: Moment) -> Option<OperationId> {
        self.next().filter(|moment| *moment <= now)?;
        self.0.pop().map(|Reverse((_, index, generation))| OperationId { index, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Operation, Token};

    #[test]
    fn alarms_ring_in_order_and_not_too_early() {
        let slots = Slots::new(2);
        let mut timers = Timers::default();
        let id = |index| OperationId { index, generation: 0 };
        timers.set(Moment(20), id(0), &slots);
        timers.set(Moment(10), id(1), &slots);
        assert_eq!(timers.due(Moment(9)), None);
        assert_eq!(timers.due(Moment(20)), Some(id(1)));
        assert_eq!(timers.due(Moment(20)), Some(id(0)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn alarms_of_ended_operations_do_not_pile_up() {
        let mut slots = Slots::new(1);
        let mut timers = Timers::default();
        for _ in 0..100 {
            let index = slots.insert(Operation::Nop, Token::default()).unwrap();
            timers.set(Moment(1), slots.id(index), &slots);
            slots.remove(index);
        }
        assert!(timers.0.len() <= 2, "{} alarms for one slot", timers.0.len());
    }
}
