//! What an operation that completes many times has brought, until a task takes it.
//!
//! A handler of its own puts the parts into a queue, from which a task takes them: so a future that is
//! dropped while it waits loses none.
//!
//! ```text
//! paused --next--> running --queue full: cancel--> running --last event--> paused, or over
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{CompletionHandler, Initiator, TaskInitiator};
use crate::error::Error;
use crate::operation::{Cause, CompletionEvent, End, Operation, OperationError, OperationId, Part};

/// The parts of one operation.
pub(super) struct Parts {
    initiator: TaskInitiator,
    inbox: Rc<RefCell<Inbox>>,
}

struct Inbox {
    state: State,
    queue: VecDeque<Part>,
    /// When so many parts wait, the operation pauses.
    queue_max: usize,
    waiter: Option<Waker>,
    /// The operation was cancelled because the queue was full.
    is_pausing: bool,
    /// Nobody takes parts any more.
    is_left: bool,
}

enum State {
    /// To be started when somebody waits for a part.
    Paused(Operation),
    /// In flight; none as long as nobody knows its name.
    Running(Option<OperationId>),
    /// Ended by itself: with an error that nobody was told of, perhaps.
    Over(Option<OperationError>),
}

/// Puts what comes into an inbox.
struct Receiver(Rc<RefCell<Inbox>>);

impl Parts {
    pub(super) fn new(initiator: TaskInitiator, operation: Operation, queue_max: usize) -> Self {
        let inbox = Inbox {
            state: State::Paused(operation),
            queue: VecDeque::new(),
            queue_max,
            waiter: None,
            is_pausing: false,
            is_left: false,
        };
        Self { initiator, inbox: Rc::new(RefCell::new(inbox)) }
    }

    /// Waits for the next part; none once the operation has ended and told why.
    pub(super) async fn next(&mut self) -> Option<Result<Part, OperationError>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Result<Part, OperationError>>> {
        let mut inbox = self.inbox.borrow_mut();
        if let Some(part) = inbox.queue.pop_front() {
            return Poll::Ready(Some(Ok(part)));
        }
        inbox.waiter = Some(context.waker().clone());
        match &mut inbox.state {
            State::Over(error) => return Poll::Ready(error.take().map(Err)),
            State::Running(_) => return Poll::Pending,
            State::Paused(_) => {}
        }
        drop(inbox);
        self.start(context);
        Poll::Pending
    }

    fn start(&self, context: &Context<'_>) {
        let receiver = Receiver(Rc::clone(&self.inbox));
        let is_started = self.initiator.start_handler(receiver).is_ok();
        // There are too many handlers, or no slot is free: when one is, this is tried again.
        if !is_started || matches!(self.inbox.borrow().state, State::Paused(_)) {
            self.initiator.wake_when_there_is_room(context.waker());
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let mut inbox = self.inbox.borrow_mut();
        inbox.is_left = true;
        let left = std::mem::take(&mut inbox.queue);
        if let State::Running(Some(id)) = inbox.state {
            self.initiator.core().processor.borrow_mut().cancel(id);
        }
        drop(inbox);
        drop(left);
    }
}

impl CompletionHandler for Receiver {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        let mut inbox = self.0.borrow_mut();
        match std::mem::replace(&mut inbox.state, State::Running(None)) {
            State::Paused(operation) => match initiator.start(operation, 0) {
                Ok(id) => inbox.state = State::Running(Some(id)),
                Err(full) => inbox.state = State::Paused(full.0),
            },
            other => inbox.state = other,
        }
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        let mut inbox = self.0.borrow_mut();
        match event.end {
            End::More(_) if inbox.is_left => {}
            End::More(part) => {
                inbox.queue.push_back(part);
                if inbox.queue.len() >= inbox.queue_max && !inbox.is_pausing {
                    inbox.is_pausing = true;
                    initiator.cancel(event.id);
                }
            }
            End::Last(operation) => {
                let is_paused = std::mem::take(&mut inbox.is_pausing);
                inbox.state = match event.result {
                    Err(OperationError { cause: Cause::Cancelled, .. }) if is_paused => {
                        State::Paused(operation)
                    }
                    result => State::Over(result.err()),
                };
            }
        }
        let waiter = inbox.waiter.take();
        drop(inbox);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        !matches!(self.0.borrow().state, State::Running(_))
    }
}
