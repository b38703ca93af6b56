//! Who may go on: a bounded number of permits, given out in the order they were asked for.
//!
//! Decides, and waits for nothing: what a semaphore and a channel are made of.

use std::collections::BTreeMap;
use std::task::Waker;

/// Permits, and those who wait for some.
///
/// What is given back goes to the longest waiter at once, and not to whoever comes next: so none
/// starves, and one that lost interest after it was granted something gives it on.
#[derive(Debug, Default)]
pub(super) struct Permits {
    free: usize,
    waiting: BTreeMap<Ticket, Waiter>,
    /// What was granted to waiters that have not come for it.
    granted: BTreeMap<Ticket, usize>,
    next_ticket: Ticket,
}

/// Names a waiter: the lower, the earlier.
pub(super) type Ticket = u64;

#[derive(Debug)]
struct Waiter {
    wanted: usize,
    waker: Waker,
}

impl Permits {
    pub(super) fn new(count: usize) -> Self {
        Self { free: count, ..Self::default() }
    }

    pub(super) fn free(&self) -> usize {
        self.free
    }

    /// Takes permits if there are enough and nobody has waited for longer.
    pub(super) fn try_take(&mut self, wanted: usize) -> bool {
        let is_there = self.waiting.is_empty() && self.free >= wanted;
        if is_there {
            self.free -= wanted;
        }
        is_there
    }

    /// Takes permits, or gets a ticket to wait with, or looks whether the ticket was called. True
    /// once they are the caller's.
    pub(super) fn poll(
        &mut self,
        ticket: &mut Option<Ticket>,
        wanted: usize,
        waker: &Waker,
    ) -> bool {
        let is_there = match *ticket {
            Some(number) => match self.waiting.get_mut(&number) {
                Some(waiter) => {
                    waiter.waker.clone_from(waker);
                    false
                }
                None => self.granted.remove(&number).is_some(),
            },
            None => self.try_take(wanted),
        };
        match (is_there, *ticket) {
            (true, _) => *ticket = None,
            (false, None) => {
                *ticket = Some(self.next_ticket);
                self.waiting.insert(self.next_ticket, Waiter { wanted, waker: waker.clone() });
                self.next_ticket += 1;
            }
            (false, Some(_)) => {}
        }
        is_there
    }

    /// Gives permits back. Returns whom to wake.
    #[must_use]
    pub(super) fn give(&mut self, count: usize) -> Vec<Waker> {
        self.free += count;
        let mut woken = Vec::new();
        while let Some(first) = self.waiting.first_entry()
            && first.get().wanted <= self.free
        {
            let (ticket, waiter) = first.remove_entry();
            self.free -= waiter.wanted;
            self.granted.insert(ticket, waiter.wanted);
            woken.push(waiter.waker);
        }
        woken
    }

    /// A waiter has lost interest. Returns whom to wake.
    #[must_use]
    pub(super) fn leave(&mut self, ticket: Ticket) -> Vec<Waker> {
        self.waiting.remove(&ticket);
        // Even if it was granted nothing: it may have stood before one that wants less.
        let granted = self.granted.remove(&ticket).unwrap_or(0);
        self.give(granted)
    }

    /// Sends all waiters away. Returns whom to wake.
    #[must_use]
    pub(super) fn dismiss(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.waiting).into_values().map(|waiter| waiter.waker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(permits: &mut Permits, ticket: &mut Option<Ticket>, wanted: usize) -> bool {
        permits.poll(ticket, wanted, Waker::noop())
    }

    #[test]
    fn the_longest_waiter_is_served_first_even_if_the_next_wants_less() {
        let mut permits = Permits::new(1);
        let (mut first, mut second) = (None, None);
        assert!(!poll(&mut permits, &mut first, 2));
        assert!(!poll(&mut permits, &mut second, 1));
        assert!(!permits.try_take(1), "others have waited for longer");
        assert_eq!(permits.give(1).len(), 1);
        assert!(!poll(&mut permits, &mut second, 1));
        assert!(poll(&mut permits, &mut first, 2));
        assert_eq!(permits.give(2).len(), 1);
        assert!(poll(&mut permits, &mut second, 1));
        assert_eq!(permits.free(), 1);
    }

    #[test]
    fn who_leaves_gives_on_what_was_granted_or_stood_in_the_way() {
        let mut permits = Permits::new(0);
        let (mut first, mut second) = (None, None);
        poll(&mut permits, &mut first, 1);
        poll(&mut permits, &mut second, 1);
        assert_eq!(permits.give(1).len(), 1, "granted to the first");
        assert_eq!(permits.leave(first.unwrap()).len(), 1, "and given on");
        assert!(poll(&mut permits, &mut second, 1));

        let (mut large, mut small) = (None, None);
        assert!(permits.give(1).is_empty());
        poll(&mut permits, &mut large, 2);
        poll(&mut permits, &mut small, 1);
        assert_eq!(permits.leave(large.unwrap()).len(), 1);
        assert!(poll(&mut permits, &mut small, 1));
        assert_eq!(permits.free(), 0);
    }
}
