//! Futures that wait for operations, and what they wait in.
//!
//! A future that waits for an operation owns none of its memory: the slot does. Dropping the future
//! leaves the operation to its slot; when it ends, whatever it owns or brought is dropped.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::executor::{Tasks, Waiter};
use super::scope::Node;
use super::{Core, TASKS, TaskInitiator, trace};
use crate::error::Errno;
use crate::operation::{
    Cause, Chain, CompletionEvent, End, OnDrop, Operation, OperationError, OperationId, Token,
};
use crate::processor::Full;

/// What the tasks of one proactor wait for.
#[derive(Default)]
pub(super) struct Waits {
    entries: RefCell<Vec<Place>>,
    free: RefCell<Vec<u32>>,
    /// Those that found the processor full, the oldest first.
    for_room: RefCell<VecDeque<RoomWaiter>>,
    /// The most that was in flight when one of them found no room.
    full_at: Cell<u32>,
}

/// A task that found no room, and how much was in flight then: with less, it may find some.
struct RoomWaiter {
    waker: Waker,
    in_flight: u32,
}

/// Where a wait is kept; an operation's tag is its index.
struct Place {
    wait: Wait,
    /// The job that it is for.
    job: u64,
    /// The scope that it was begun in, while it is in flight.
    scope: Option<InFlight>,
}

/// An operation in flight, or a chain by its first member, and the scope that it is in.
struct InFlight {
    scope: Rc<Node>,
    id: OperationId,
}

/// What a task waits for.
enum Wait {
    Free,
    /// The operation is in flight: events that must still come, and what has come.
    Pending {
        waiter: Option<Waiter>,
        missing: u32,
        events: Vec<CompletionEvent>,
    },
    One {
        waiter: Option<Waiter>,
        event: Option<CompletionEvent>,
    },
    /// Nobody waits any more; this many events must still come.
    Orphan {
        missing: u32,
    },
}

/// A future that performs one operation. Dropping it before it is done leaves the operation to
/// end by itself: a read is cancelled, a write runs to its end.
#[must_use = "nothing is started before it is awaited"]
pub struct Perform {
    core: Rc<Core>,
    state: PerformState,
    is_cancelled: bool,
}

enum PerformState {
    New(Operation),
    Waiting { wait: u32, id: OperationId, on_drop: OnDrop },
    Done,
}

/// A future that performs a chain.
pub(super) struct PerformChain {
    core: Rc<Core>,
    state: ChainState,
}

#[expect(clippy::large_enum_variant, reason = "it lives on the task's future, made once")]
enum ChainState {
    New(Chain),
    Waiting { wait: u32, id: OperationId },
    Done,
}

impl Waits {
    pub(super) fn on_complete(&self, event: CompletionEvent, tasks: &Tasks) {
        // The first event of a zero-copy send. The last one says the same.
        if let End::More(_) = event.end {
            return;
        }
        let number = event.token.tag;
        let mut waits = self.entries.borrow_mut();
        let Place { wait, job, scope } = &mut waits[number as usize];
        trace::completed(*job, &event);
        let mut ended = None;
        let waiter = match wait {
            Wait::One { waiter, event: slot } => {
                *slot = Some(event);
                ended = scope.take();
                waiter.take()
            }
            Wait::Pending { waiter, missing, events } => {
                *missing -= u32::from(matches!(event.end, End::Last(_)));
                events.push(event);
                if *missing == 0 {
                    ended = scope.take();
                    waiter.take()
                } else {
                    None
                }
            }
            Wait::Orphan { missing } => {
                *missing -= u32::from(matches!(event.end, End::Last(_)));
                if *missing == 0 {
                    ended = scope.take();
                    *wait = Wait::Free;
                    self.free.borrow_mut().push(number);
                }
                drop(waits);
                drop(event);
                drop(ended);
                return;
            }
            Wait::Free => unreachable!("an event for a wait that has ended"),
        };
        drop(waits);
        drop(ended);
        if let Some(waiter) = waiter {
            tasks.wake(waiter);
        }
    }

    /// Has a task woken when there may be room. One that waits for several is noted once.
    fn wait_for_room(&self, waker: &Waker, in_flight: u32) {
        self.full_at.set(self.full_at.get().max(in_flight));
        let mut waiters = self.for_room.borrow_mut();
        match waiters.back_mut() {
            Some(last) if last.waker.will_wake(waker) => last.in_flight = in_flight,
            _ => waiters.push_back(RoomWaiter { waker: waker.clone(), in_flight }),
        }
    }

    /// Wakes who may find room, the oldest first and as many as there is room for. To wake all
    /// would poll each of them for every operation that ends, and those that found none again would
    /// keep the loop from waiting. True if any was woken.
    pub(super) fn wake_for_room(&self, in_flight: u32) -> bool {
        let (before, mut in_flight) = (in_flight, in_flight);
        let mut index = 0;
        while in_flight < self.full_at.get() {
            let mut waiters = self.for_room.borrow_mut();
            let Some(waiter) = waiters.get(index) else { break };
            if waiter.in_flight <= in_flight {
                index += 1;
                continue;
            }
            let waiter = waiters.remove(index);
            drop(waiters);
            in_flight += 1;
            waiter.expect("it was just there").waker.wake();
        }
        in_flight > before
    }

    /// Whether nobody found the processor full.
    #[inline]
    pub(super) fn is_nobody_waiting_for_room(&self) -> bool {
        self.for_room.borrow().is_empty()
    }

    fn begin(&self, wait: Wait, job: u64) -> u32 {
        let mut waits = self.entries.borrow_mut();
        let place = Place { wait, job, scope: None };
        if let Some(number) = self.free.borrow_mut().pop() {
            waits[number as usize] = place;
            return number;
        }
        waits.push(place);
        u32::try_from(waits.len() - 1).expect("waits are bounded by slots and tasks")
    }

    /// What is waited for was begun in a scope.
    fn begin_in(&self, number: u32, scope: Option<Rc<Node>>, id: OperationId) {
        let Some(scope) = scope else { return };
        scope.begin(id);
        self.entries.borrow_mut()[number as usize].scope = Some(InFlight { scope, id });
    }

    fn end(&self, number: u32) -> Wait {
        let place = &mut self.entries.borrow_mut()[number as usize];
        let wait = std::mem::replace(&mut place.wait, Wait::Free);
        self.free.borrow_mut().push(number);
        wait
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.scope.end(self.id);
    }
}

impl Core {
    /// Leaves an operation to end by itself.
    fn abandon(&self, wait: u32, id: OperationId, on_drop: OnDrop) {
        let mut waits = self.waits.entries.borrow_mut();
        let place = &mut waits[wait as usize].wait;
        let missing = match place {
            Wait::One { event, .. } => u32::from(event.is_none()),
            Wait::Pending { missing, .. } => *missing,
            Wait::Free | Wait::Orphan { .. } => unreachable!("it is left once"),
        };
        let left = std::mem::replace(place, Wait::Orphan { missing });
        drop(waits);
        if missing == 0 {
            self.waits.end(wait);
        } else if on_drop == OnDrop::Cancel {
            self.processor.borrow_mut().cancel(id);
            self.tell_host();
        }
        drop(left);
    }

    /// The scope that runs now, and whether it was stopped.
    fn current_scope(&self) -> (Option<Rc<Node>>, bool) {
        let scope = self.scope.borrow().clone();
        let is_stopped = scope.as_ref().is_some_and(|scope| scope.is_stopped());
        (scope, is_stopped)
    }
}

impl TaskInitiator {
    /// Has a task woken that found the processor full.
    pub(super) fn wake_when_there_is_room(&self, waker: &Waker) {
        let in_flight = self.core().processor.borrow().in_flight();
        self.core().waits.wait_for_room(waker, in_flight);
    }
}

impl Future for Perform {
    type Output = (Result<u32, OperationError>, Operation);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, PerformState::Done) {
            PerformState::New(operation) if this.is_cancelled => {
                Poll::Ready((Err(CANCELLED), operation))
            }
            PerformState::New(operation) => this.begin(operation, context),
            PerformState::Waiting { wait, id, on_drop } => {
                let mut waits = this.core.waits.entries.borrow_mut();
                let Wait::One { waiter, event } = &mut waits[wait as usize].wait else {
                    unreachable!("a single operation waits for one event")
                };
                let Some(event) = event.take() else {
                    let before = waiter.replace(this.core.tasks.waiter(context));
                    this.state = PerformState::Waiting { wait, id, on_drop };
                    // What drops with a waker of somebody else's may come back here.
                    drop(waits);
                    drop(before);
                    return Poll::Pending;
                };
                drop(waits);
                this.core.waits.end(wait);
                let result = event.result;
                let operation = event.into_operation();
                Poll::Ready((result, operation.expect("the operations of tasks end at once")))
            }
            PerformState::Done => panic!("polled after it was done"),
        }
    }
}

/// What an operation fails with that was cancelled before it was begun.
const CANCELLED: OperationError =
    OperationError { errno: Errno::ECANCELED, cause: Cause::Cancelled };

impl Perform {
    pub(super) fn new(core: Rc<Core>, operation: Operation) -> Self {
        let verb = operation.verb();
        assert!(!operation.is_multishot(), "this {verb} completes many times: see `{verb}_many`");
        Self { core, state: PerformState::New(operation), is_cancelled: false }
    }

    /// Asks for the operation to be given up. Awaiting it afterwards tells what came of it: a success
    /// if the cancel came too late, and then no byte is lost; the operation comes back in any case.
    pub fn cancel(&mut self) {
        self.is_cancelled = true;
        if let PerformState::Waiting { id, .. } = self.state {
            self.core.processor.borrow_mut().cancel(id);
            self.core.tell_host();
        }
    }

    fn begin(
        &mut self,
        mut operation: Operation,
        context: &mut Context<'_>,
    ) -> Poll<<Self as Future>::Output> {
        let core = &*self.core;
        let (scope, is_stopped) = core.current_scope();
        if is_stopped {
            // It never begins: the scope drops whoever waits for it.
            self.state = PerformState::New(operation);
            return Poll::Pending;
        }
        if let Some(result) = core.perform_inline(&mut operation) {
            return Poll::Ready((result, operation));
        }
        let job = core.job_id();
        let on_drop = operation.on_drop();
        let waiter = Some(core.tasks.waiter(context));
        let wait = core.waits.begin(Wait::One { waiter, event: None }, job);
        match core.accept(operation, Token { handler: TASKS, tag: wait }, job) {
            Ok(id) => {
                core.waits.begin_in(wait, scope, id);
                self.state = PerformState::Waiting { wait, id, on_drop };
            }
            Err(Full(operation)) => {
                core.waits.end(wait);
                let in_flight = core.processor.borrow().in_flight();
                core.waits.wait_for_room(context.waker(), in_flight);
                self.state = PerformState::New(operation);
            }
        }
        Poll::Pending
    }
}

impl Drop for Perform {
    fn drop(&mut self) {
        let PerformState::Waiting { wait, id, on_drop } = self.state else { return };
        self.core.abandon(wait, id, on_drop);
    }
}

impl PerformChain {
    pub(super) fn new(core: Rc<Core>, chain: Chain) -> Self {
        Self { core, state: ChainState::New(chain) }
    }

    fn begin(&mut self, chain: Chain, context: &Context<'_>) {
        let core = &*self.core;
        let (scope, is_stopped) = core.current_scope();
        if is_stopped {
            self.state = ChainState::New(chain);
            return;
        }
        let (length, job) = (chain.length(), core.job_id());
        let missing = u32::try_from(length).expect("a chain is short");
        let (waiter, events) = (Some(core.tasks.waiter(context)), Vec::with_capacity(length));
        let wait = core.waits.begin(Wait::Pending { waiter, missing, events }, job);
        match core.accept_chain(chain, Token { handler: TASKS, tag: wait }, job) {
            Ok(id) => {
                core.waits.begin_in(wait, scope, id);
                self.state = ChainState::Waiting { wait, id };
            }
            Err(Full(chain)) => {
                core.waits.end(wait);
                let in_flight = core.processor.borrow().in_flight();
                core.waits.wait_for_room(context.waker(), in_flight);
                self.state = ChainState::New(chain);
            }
        }
    }
}

impl Future for PerformChain {
    type Output = Vec<CompletionEvent>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, ChainState::Done) {
            ChainState::New(chain) => {
                this.begin(chain, context);
                Poll::Pending
            }
            ChainState::Waiting { wait, id } => {
                let mut waits = this.core.waits.entries.borrow_mut();
                if let Wait::Pending { waiter, missing: 1.., .. } = &mut waits[wait as usize].wait {
                    let before = waiter.replace(this.core.tasks.waiter(context));
                    this.state = ChainState::Waiting { wait, id };
                    drop(waits);
                    drop(before);
                    return Poll::Pending;
                }
                drop(waits);
                match this.core.waits.end(wait) {
                    Wait::Pending { events, .. } => Poll::Ready(events),
                    _ => unreachable!("a chain waits for several events"),
                }
            }
            ChainState::Done => panic!("polled after it was done"),
        }
    }
}

impl Drop for PerformChain {
    fn drop(&mut self) {
        let ChainState::Waiting { wait, id } = self.state else { return };
        self.core.abandon(wait, id, OnDrop::Detach);
    }
}
