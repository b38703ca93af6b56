//! Futures side by side in one task: all of them, or the first.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

/// One of two things, and which.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Either<A, B> {
    /// The first.
    First(A),
    /// The second.
    Second(B),
}

/// Runs two futures side by side until both are done. They may be of different types and borrow;
/// three are `join(a, join(b, c))`.
///
/// # Examples
///
/// ```
/// use ucp_engine::proactor::join;
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// assert_eq!(proactor.block_on(join(async { 1 }, async { "one" })), (1, "one"));
/// ```
pub async fn join<A: Future, B: Future>(first: A, second: B) -> (A::Output, B::Output) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut other) = (None, None);
    poll_fn(|context| {
        if one.is_none()
            && let Poll::Ready(output) = first.as_mut().poll(context)
        {
            one = Some(output);
        }
        if other.is_none()
            && let Poll::Ready(output) = second.as_mut().poll(context)
        {
            other = Some(output);
        }
        if one.is_none() || other.is_none() {
            return Poll::Pending;
        }
        Poll::Ready(one.take().zip(other.take()).expect("both are done"))
    })
    .await
}

/// Runs futures side by side until all are done. They may borrow; they are polled together.
pub async fn join_all<'a>(futures: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    poll_fn(|context| {
        let mut is_done = true;
        for place in &mut futures {
            if let Some(future) = place {
                match future.as_mut().poll(context) {
                    Poll::Ready(()) => *place = None,
                    Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Runs two futures until one is done, and drops the other. The first is asked first.
///
/// What the other has in flight ends by itself, and what came of it is lost: to lose nothing, see
/// [`select`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ucp_engine::proactor::{Either, race};
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// let tasks = proactor.initiator();
/// let [tortoise, hare] = [300, 10].map(|seconds| tasks.sleep(Duration::from_secs(seconds)));
/// assert_eq!(proactor.block_on(race(tortoise, hare)), Either::Second(()));
/// ```
pub async fn race<A: Future, B: Future>(first: A, second: B) -> Either<A::Output, B::Output> {
    match select(pin!(first), pin!(second)).await {
        Either::First((output, _)) => Either::First(output),
        Either::Second((_, output)) => Either::Second(output),
    }
}

/// Runs two futures until one is done, and gives the other back, to go on with. The first is asked
/// first. Futures that may not be moved are pinned before: `select(pin!(a), pin!(b))`.
///
/// # Examples
///
/// To give an operation up and still get to know what came of it, with its buffer:
///
/// ```
/// use std::time::Duration;
/// use ucp_engine::operation::{Operation, Timeout};
/// use ucp_engine::proactor::{Either, select};
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// let tasks = proactor.initiator();
/// proactor.block_on(async {
///     let slow = tasks.perform(Operation::Timeout(Timeout { duration: Duration::from_secs(60) }));
///     let (result, _operation) = match select(slow, tasks.sleep(Duration::from_secs(1))).await {
///         Either::First((outcome, _)) => outcome,
///         Either::Second((mut slow, ())) => {
///             slow.cancel();
///             slow.await
///         }
///     };
///     assert!(result.is_err(), "it was cancelled in time");
/// });
/// ```
pub async fn select<A: Future + Unpin, B: Future + Unpin>(
    first: A,
    second: B,
) -> Either<(A::Output, B), (A, B::Output)> {
    let mut futures = Some((first, second));
    poll_fn(|context| {
        let (first, second) = futures.as_mut().expect("polled after it was done");
        let first = Pin::new(first).poll(context);
        let second =
            if first.is_pending() { Pin::new(second).poll(context) } else { Poll::Pending };
        match (first, second) {
            (Poll::Ready(output), _) => {
                let (_, other) = futures.take().expect("it was just polled");
                Poll::Ready(Either::First((output, other)))
            }
            (_, Poll::Ready(output)) => {
                let (other, _) = futures.take().expect("it was just polled");
                Poll::Ready(Either::Second((other, output)))
            }
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// Lets the other tasks go on first, and looks at what has completed.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
