//! Channels: bounded queues between tasks, of one proactor or of several threads.
//!
//! One kind for both. What crosses threads needs a lock; within one thread nobody contends for it,
//! and then it costs less than the wake-up behind it. A receiver on another thread is woken through
//! its processor: a bell that its ring watches, or its condition variable.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::permits::{Permits, Ticket};

/// Makes a channel with room for `capacity` items, one at least.
///
/// Whoever sends into a full channel waits, in the order of coming: that is the back-pressure. Where
/// `T` is [`Send`], either end may go to another thread, and then it is a mailbox between shards.
///
/// # Examples
///
/// ```
/// use ucp_engine::proactor::channel;
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// let tasks = proactor.initiator();
/// let (sender, mut receiver) = channel(2);
/// let sum = proactor.block_on(async {
///     let counting = tasks.spawn(async move {
///         for number in 1..=10 {
///             sender.send(number).await.expect("somebody receives");
///         }
///     });
///     let mut sum = 0;
///     while let Some(number) = receiver.receive().await {
///         sum += number;
///     }
///     counting.expect("there is room for a task").await;
///     sum
/// });
/// assert_eq!(sum, 55);
/// ```
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let state = State {
        items: VecDeque::new(),
        room: Permits::new(capacity.max(1)),
        receiver: None,
        senders: 1,
        is_closed: false,
    };
    let shared = Arc::new(Shared(Mutex::new(state)));
    (Sender(Arc::clone(&shared)), Receiver(shared))
}

/// The end of a channel that items go into. Clones share it; once all are gone, it is over.
pub struct Sender<T>(Arc<Shared<T>>);

/// The end of a channel that items come out of. Dropping it drops what is in it.
pub struct Receiver<T>(Arc<Shared<T>>);

/// What could not be sent, because nobody receives any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Closed<T>(pub T);

/// What could not be sent now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TrySendError<T> {
    /// The channel is full.
    Full(T),
    /// Nobody receives any more.
    Closed(T),
}

/// A future that sends. Dropping it before it is done sends nothing.
#[must_use = "nothing is sent before it is awaited"]
pub struct Send<'a, T> {
    shared: &'a Shared<T>,
    item: Option<T>,
    ticket: Option<Ticket>,
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

struct Shared<T>(Mutex<State<T>>);

struct State<T> {
    items: VecDeque<T>,
    /// A permit for each item that there is room for.
    room: Permits,
    receiver: Option<Waker>,
    senders: usize,
    /// Nobody receives any more.
    is_closed: bool,
}

impl<T> Sender<T> {
    /// Sends an item; waits while the channel is full.
    ///
    /// # Errors
    ///
    /// Gives it back when nobody receives any more.
    pub fn send(&self, item: T) -> Send<'_, T> {
        Send { shared: &self.0, item: Some(item), ticket: None }
    }

    /// Sends an item from a thread that has no proactor; blocks it while the channel is full.
    ///
    /// # Errors
    ///
    /// Gives it back when nobody receives any more.
    pub fn send_blocking(&self, item: T) -> Result<(), Closed<T>> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut send = self.send(item);
        loop {
            match Pin::new(&mut send).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(sent) => return sent,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// Sends an item if there is room.
    ///
    /// # Errors
    ///
    /// Gives it back when there is none, or nobody receives any more.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        let mut state = self.0.lock();
        if state.is_closed {
            return Err(TrySendError::Closed(item));
        }
        if !state.room.try_take(1) {
            return Err(TrySendError::Full(item));
        }
        let waker = state.put(item);
        drop(state);
        wake(waker);
        Ok(())
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest item; waits for one while there is none. None once there is none and nobody
    /// sends any more. Dropping the future loses no item.
    pub async fn receive(&mut self) -> Option<T> {
        poll_fn(|context| self.poll_receive(context)).await
    }

    /// Takes the oldest item if there is one.
    pub fn try_receive(&mut self) -> Option<T> {
        let mut state = self.0.lock();
        let item = state.items.pop_front()?;
        let woken = state.room.give(1);
        drop(state);
        wake(woken);
        Some(item)
    }

    fn poll_receive(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.try_receive() {
            return Poll::Ready(Some(item));
        }
        let mut state = self.0.lock();
        // Another thread may have sent one meanwhile.
        if !state.items.is_empty() {
            drop(state);
            return Poll::Ready(self.try_receive());
        }
        if state.senders == 0 {
            return Poll::Ready(None);
        }
        state.receiver = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// Puts an item into a place that was taken for it. Returns whom to wake.
    fn put(&mut self, item: T) -> Option<Waker> {
        self.items.push_back(item);
        self.receiver.take()
    }
}

impl<T> Future for Send<'_, T> {
    type Output = Result<(), Closed<T>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { shared, item, ticket } = &mut *self;
        let mut state = shared.lock();
        if state.is_closed {
            // Who was sent away has no ticket any more.
            *ticket = None;
            return Poll::Ready(Err(Closed(item.take().expect("polled after it was done"))));
        }
        if !state.room.poll(ticket, 1, context.waker()) {
            return Poll::Pending;
        }
        let waker = state.put(item.take().expect("polled after it was done"));
        drop(state);
        wake(waker);
        Poll::Ready(Ok(()))
    }
}

/// The item is no part of what is pinned.
impl<T> Unpin for Send<'_, T> {}

impl<T> Drop for Send<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let woken = self.shared.lock().room.leave(ticket);
            wake(woken);
        }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        let waker = if state.senders == 0 { state.receiver.take() } else { None };
        drop(state);
        wake(waker);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_closed = true;
        let (items, woken) = (std::mem::take(&mut state.items), state.room.dismiss());
        drop(state);
        wake(woken);
        drop(items);
    }
}

fn wake(wakers: impl IntoIterator<Item = Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sender({} waiting)", self.0.lock().items.len())
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({} waiting)", self.0.lock().items.len())
    }
}

impl<T> fmt::Display for Closed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nobody receives any more")
    }
}

impl<T: fmt::Debug> std::error::Error for Closed<T> {}
