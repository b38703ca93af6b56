//! Work that is taken in order, done by many at a time, and told of in order.
//!
//! ```text
//! items ─take─► 0 1 2 3 ─► done: 2 ─► waits    done: 0 ─► told: 0    done: 1 ─► told: 1, 2
//! ```
//!
//! What is done too early waits here; not more than a window of it, then nobody gets anything new.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use crate::digest::Order;
use crate::limits::SUM_WINDOW;

/// Items, and what came of them.
pub(super) struct InOrder<I, T>(Mutex<State<I, T>>);

struct State<I, T> {
    items: I,
    /// How many were taken.
    taken: u64,
    order: Order<T>,
    waiters: Vec<Waker>,
    /// Nobody gets anything new.
    is_paused: bool,
    is_at_end: bool,
}

impl<I: Iterator, T> InOrder<I, T> {
    pub(super) fn new(items: I) -> Self {
        Self(Mutex::new(State {
            items,
            taken: 0,
            order: Order::new(),
            waiters: Vec::new(),
            is_paused: false,
            is_at_end: false,
        }))
    }

    /// Takes the next item, and its number; waits while too much is done that can't be told yet. None
    /// at the end, and while it pauses.
    pub(super) async fn take(&self) -> Option<(u64, I::Item)> {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.is_paused || state.is_at_end {
                return Poll::Ready(None);
            }
            if state.order.waiting() >= SUM_WINDOW {
                if !state.waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                    state.waiters.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            let Some(item) = state.items.next() else {
                state.is_at_end = true;
                return Poll::Ready(None);
            };
            let number = state.taken;
            state.taken += 1;
            state.order.begin(number);
            Poll::Ready(Some((number, item)))
        })
        .await
    }

    /// Whether somebody could take something now.
    pub(super) fn is_waiting(&self) -> bool {
        let state = self.lock();
        !state.is_paused && !state.is_at_end && state.order.waiting() < SUM_WINDOW
    }

    /// Whether all was taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.lock().is_at_end
    }

    /// Takes what came of an item, and tells what can be told by now, one at a time. Who is told says
    /// whether to go on: if not, nobody gets anything new before [`InOrder::resume`].
    pub(super) fn complete(&self, number: u64, outcome: T, tell: impl FnMut(T) -> bool) {
        let mut state = self.lock();
        state.order.complete(number, outcome);
        state.tell(tell);
    }

    /// Goes on telling, and giving out.
    pub(super) fn resume(&self, tell: impl FnMut(T) -> bool) {
        let mut state = self.lock();
        state.is_paused = false;
        state.tell(tell);
    }

    fn lock(&self) -> MutexGuard<'_, State<I, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I, T> State<I, T> {
    fn tell(&mut self, mut tell: impl FnMut(T) -> bool) {
        while !self.is_paused
            && let Some((_, outcome)) = self.order.take_next()
        {
            self.is_paused = !tell(outcome);
        }
        self.waiters.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    fn take<I: Iterator, T>(in_order: &InOrder<I, T>) -> Poll<Option<(u64, I::Item)>> {
        pin!(in_order.take()).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_is_done_early_waits_and_too_much_of_it_stops_the_giving_out() {
        let in_order = InOrder::new(0..10_000_u64);
        let mut told = Vec::new();
        for number in 0..SUM_WINDOW as u64 {
            assert_eq!(take(&in_order), Poll::Ready(Some((number, number))));
        }
        assert_eq!(take(&in_order), Poll::Pending);
        for number in (1..SUM_WINDOW as u64).rev() {
            in_order.complete(number, number, |_| panic!("0 is missing"));
        }
        in_order.complete(0, 0, |number| {
            told.push(number);
            true
        });
        assert_eq!(told, (0..SUM_WINDOW as u64).collect::<Vec<_>>());
        assert!(matches!(take(&in_order), Poll::Ready(Some(_))));
    }

    #[test]
    fn after_a_pause_it_goes_on_where_it_stopped() {
        let in_order = InOrder::new(0..4);
        let mut told = Vec::new();
        for number in 0..3 {
            assert!(matches!(take(&in_order), Poll::Ready(Some(_))), "{number}");
        }
        in_order.complete(1, 1, |_| true);
        in_order.complete(2, 2, |_| true);
        in_order.complete(0, 0, |number| {
            told.push(number);
            number != 1
        });
        assert_eq!(told, [0, 1]);
        assert_eq!(take(&in_order), Poll::Ready(None));
        assert!(!in_order.is_at_end());
        in_order.resume(|number| {
            told.push(number);
            true
        });
        assert_eq!(told, [0, 1, 2]);
        assert_eq!(take(&in_order), Poll::Ready(Some((3, 3))));
        assert_eq!(take(&in_order), Poll::Ready(None));
        assert!(in_order.is_at_end());
    }
}
