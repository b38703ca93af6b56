//! Something that is done once for several who need it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Done by whoever comes first; the others wait for it.
#[derive(Debug)]
pub(super) struct Once<T>(RefCell<State<T>>);

#[derive(Debug)]
enum State<T> {
    NotBegun,
    Begun(Vec<Waker>),
    Done(T),
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self(RefCell::new(State::NotBegun))
    }
}

impl<T: Clone> Once<T> {
    /// What came of it.
    pub(super) async fn get_or_do(&self, work: impl AsyncFnOnce() -> T) -> T {
        let is_first = matches!(*self.0.borrow(), State::NotBegun);
        if is_first {
            *self.0.borrow_mut() = State::Begun(Vec::new());
            let done = work().await;
            if let State::Begun(waiting) = self.0.replace(State::Done(done.clone())) {
                waiting.into_iter().for_each(Waker::wake);
            }
            return done;
        }
        poll_fn(|context| match &mut *self.0.borrow_mut() {
            State::Done(done) => Poll::Ready(done.clone()),
            State::Begun(waiting) => {
                waiting.push(context.waker().clone());
                Poll::Pending
            }
            State::NotBegun => unreachable!("somebody came first"),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn the_first_does_it_and_the_others_wait() {
        let (once, may_end, count) = (Once::default(), Cell::new(false), Cell::new(0));
        let work = || {
            once.get_or_do(async || {
                count.set(count.get() + 1);
                poll_fn(|_| if may_end.get() { Poll::Ready(7) } else { Poll::Pending }).await
            })
        };
        let mut context = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (pin!(work()), pin!(work()));
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        may_end.set(true);
        assert!(second.as_mut().poll(&mut context).is_pending(), "it does nothing itself");
        assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(7));
        assert_eq!(second.as_mut().poll(&mut context), Poll::Ready(7));
        assert_eq!((pin!(work()).poll(&mut context), count.get()), (Poll::Ready(7), 1));
    }
}
