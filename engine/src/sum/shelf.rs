//! Things of which there are a few, that are taken and put back: buffers, and permissions.
//!
//! Who finds nothing waits, as a task, on whatever thread it runs.

use std::future::poll_fn;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Where things are taken from and put back.
#[derive(Debug)]
pub(crate) struct Shelf<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    waiters: Vec<Waker>,
    is_closed: bool,
}

/// A thing that was taken. Dropping it puts it back.
#[derive(Debug)]
pub(crate) struct Loan<'a, T> {
    shelf: &'a Shelf<T>,
    item: Option<T>,
}

impl<T> Shelf<T> {
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self(Mutex::new(State { items, waiters: Vec::new(), is_closed: false }))
    }

    /// Takes the thing that was put back last, and waits for one if there is none; none once the
    /// shelf is closed.
    pub(crate) async fn take(&self) -> Option<Loan<'_, T>> {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.is_closed {
                return Poll::Ready(None);
            }
            if let Some(item) = state.items.pop() {
                return Poll::Ready(Some(Loan { shelf: self, item: Some(item) }));
            }
            if !state.waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
                state.waiters.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// What is on it.
    pub(crate) fn into_items(self) -> Vec<T> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).items
    }

    /// Nobody gets anything more, and who waits is told.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(Waker::wake);
    }

    fn put(&self, item: T) {
        let mut state = self.lock();
        state.items.push(item);
        // All of them: several tasks of one thread share a waker, and one may have gone meanwhile.
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        waiters.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Loan<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.item.as_ref().expect("it was given back")
    }
}

impl<T> DerefMut for Loan<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.as_mut().expect("it was given back")
    }
}

impl<T> Drop for Loan<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.shelf.put(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn who_waits_gets_what_is_put_back_or_is_told_that_there_is_no_more() {
        let shelf = Shelf::new(vec![1]);
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(Some(first)) = pin!(shelf.take()).poll(&mut context) else {
            panic!("one is there")
        };
        let mut second = pin!(shelf.take());
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(first);
        let Poll::Ready(Some(second)) = second.poll(&mut context) else { panic!("it is back") };
        assert_eq!(*second, 1);
        let mut third = pin!(shelf.take());
        assert!(third.as_mut().poll(&mut context).is_pending());
        shelf.close();
        assert!(matches!(third.poll(&mut context), Poll::Ready(None)));
    }
}
