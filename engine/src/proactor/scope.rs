//! Scopes: what is begun together is stopped together, and has truly ended before one goes on.
//!
//! ```text
//! scope ---- member (a future that runs in it) ---- operations in flight
//!    \------ member ---- scope within ---- member ---- …
//! ```
//!
//! Each of these is a [`Node`] that counts what is pending at it and below. To stop a node asks for
//! every operation in flight below it to be given up and starts none any more. The futures go on as
//! long as something of theirs is in flight, so that they get to know the true outcome; one that then
//! waits for anything else is dropped.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::timers::{Alarm, AlarmKey};
use super::{Core, JoinHandle, TaskInitiator};
use crate::error::Error;
use crate::operation::OperationId;
use crate::units::Moment;

/// What is begun together and stopped together. Dropping it stops all within.
///
/// Made by [`TaskInitiator::scope`]. Within another scope's future it is a part of that scope.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ucp_engine::proactor::Stopped;
/// use ucp_engine::{Proactor, processor::SimulatedWorld};
///
/// let proactor = Proactor::simulated(1, &SimulatedWorld::new());
/// let tasks = proactor.initiator();
/// proactor.block_on(async {
///     let scope = tasks.scope_for(Duration::from_secs(30));
///     let clock = tasks.clone();
///     let endless = scope.spawn(async move {
///         loop {
///             clock.sleep(Duration::from_secs(1)).await;
///         }
///     });
///     scope.ended().await;
///     assert_eq!(endless.unwrap().await, Err::<(), _>(Stopped::DeadlinePassed));
/// });
/// ```
pub struct Scope {
    core: Rc<Core>,
    node: Rc<Node>,
    /// The alarm of its deadline.
    deadline: Cell<Option<AlarmKey>>,
}

/// Stops a scope from elsewhere. Clones stop the same one.
#[derive(Clone)]
pub struct Stopper {
    core: Rc<Core>,
    node: Weak<Node>,
}

/// Why a future that ran in a scope has no output: the scope was stopped while it waited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stopped {
    /// Somebody stopped it, or dropped it.
    Cancelled,
    /// It had a deadline.
    DeadlinePassed,
}

/// A scope, or a future that runs in one.
pub(super) struct Node {
    parent: Option<Rc<Node>>,
    /// What is to be stopped with it, by number.
    children: RefCell<BTreeMap<u64, Weak<Node>>>,
    number: u64,
    next_number: Cell<u64>,
    stopped: Cell<Option<Stopped>>,
    /// Its own operations in flight; a chain by its first.
    operations: RefCell<HashSet<OperationId>>,
    /// Operations in flight here and below, and futures that run below.
    pending: Cell<u64>,
    /// Those to wake when it is stopped, or nothing is pending any more.
    waiters: RefCell<Vec<Waker>>,
}

/// A future that runs in a scope. Dropping this says that it has ended.
struct Member(Rc<Node>);

/// While it lives, what is begun is begun in a node.
pub(super) struct Inside<'a> {
    core: &'a Core,
    before: Option<Rc<Node>>,
}

impl Scope {
    pub(super) fn new(core: &Rc<Core>) -> Self {
        let node = Node::new(core.scope.borrow().clone());
        Self { core: Rc::clone(core), node, deadline: Cell::new(None) }
    }

    /// Sets the moment at which it is stopped, instead of any before.
    pub fn set_deadline(&self, moment: Moment) {
        let alarm = Alarm::Stop(Rc::downgrade(&self.node));
        let before = self.deadline.replace(Some(self.core.timers.set(moment, alarm)));
        before.into_iter().for_each(|key| self.core.timers.take_back(key));
        self.core.tell_host();
    }

    /// Runs a future in the scope, in the caller's task.
    ///
    /// # Errors
    ///
    /// If the scope is stopped while the future waits for something that is not an operation in
    /// flight. One that goes on to its end keeps its output.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, Stopped> {
        run_in(&self.core, Member::of(&self.node), future).await
    }

    /// Runs a future in the scope, as a task of its own.
    ///
    /// # Errors
    ///
    /// If there are too many tasks.
    pub fn spawn<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
    ) -> Result<JoinHandle<Result<T, Stopped>>, Error> {
        let (core, member) = (Rc::clone(&self.core), Member::of(&self.node));
        let tasks = TaskInitiator::new(Rc::clone(&self.core));
        tasks.spawn(async move { run_in(&core, member, future).await })
    }

    /// Stops all within: asks for what is in flight to be given up, and lets nothing new begin. What
    /// comes of it, the futures within get to know; [`Scope::ended`] waits for that.
    pub fn cancel(&self) {
        self.node.stop(&self.core, Stopped::Cancelled);
    }

    /// What stops it from elsewhere.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { core: Rc::clone(&self.core), node: Rc::downgrade(&self.node) }
    }

    /// Why it was stopped, if it was.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        self.node.stopped.get()
    }

    /// Waits until no future runs within and no operation of theirs is in flight, also of those that
    /// were dropped. Called from within, it waits for ever.
    pub async fn ended(&self) {
        poll_fn(|context| {
            if self.node.pending.get() == 0 {
                return Poll::Ready(());
            }
            self.node.wait(context.waker());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        self.deadline.take().into_iter().for_each(|key| self.core.timers.take_back(key));
        self.cancel();
    }
}

impl Stopper {
    /// Stops the scope, if it is still there.
    pub fn cancel(&self) {
        if let Some(node) = self.node.upgrade() {
            node.stop(&self.core, Stopped::Cancelled);
        }
    }
}

impl TaskInitiator {
    /// A scope: what is begun in it is stopped together.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::new(self.shared())
    }

    /// A scope that is stopped after a time.
    #[must_use]
    pub fn scope_for(&self, duration: Duration) -> Scope {
        let scope = self.scope();
        scope.set_deadline(self.now() + duration);
        scope
    }
}

async fn run_in<F: Future>(core: &Core, member: Member, future: F) -> Result<F::Output, Stopped> {
    let mut future = pin!(Some(future));
    let mut has_begun = false;
    poll_fn(|context| {
        let node = &member.0;
        let Some(inner) = future.as_mut().as_pin_mut() else { panic!("polled after its end") };
        // Once more after it was stopped: an operation may have ended that it has not heard of.
        if has_begun || !node.is_stopped() {
            has_begun = true;
            node.wait(context.waker());
            let _inside = Inside::enter(core, Some(Rc::clone(node)));
            if let Poll::Ready(output) = inner.poll(context) {
                return Poll::Ready(Ok(output));
            }
        }
        match node.stopped.get() {
            Some(stopped) if node.pending.get() == 0 => {
                future.set(None);
                Poll::Ready(Err(stopped))
            }
            _ => Poll::Pending,
        }
    })
    .await
}

impl Node {
    fn new(parent: Option<Rc<Self>>) -> Rc<Self> {
        let number = parent.as_ref().map_or(0, |parent| {
            let number = parent.next_number.get();
            parent.next_number.set(number + 1);
            number
        });
        let stopped = Cell::new(parent.as_ref().and_then(|parent| parent.stopped.get()));
        let node = Rc::new(Self {
            parent,
            children: RefCell::default(),
            number,
            next_number: Cell::new(0),
            stopped,
            operations: RefCell::default(),
            pending: Cell::new(0),
            waiters: RefCell::default(),
        });
        if let Some(parent) = &node.parent {
            parent.children.borrow_mut().insert(number, Rc::downgrade(&node));
        }
        node
    }

    /// Whether nothing is to begin here any more.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.get().is_some()
    }

    /// An operation, or a chain by its first member, is in flight.
    pub(super) fn begin(&self, id: OperationId) {
        self.operations.borrow_mut().insert(id);
        self.count(1);
    }

    /// It has ended. Does nothing for what was not begun here.
    pub(super) fn end(&self, id: OperationId) {
        let was_here = self.operations.borrow_mut().remove(&id);
        if was_here {
            self.discount();
        }
    }

    pub(super) fn stop_late(&self, core: &Core) {
        self.stop(core, Stopped::DeadlinePassed);
    }

    fn stop(&self, core: &Core, why: Stopped) {
        if self.is_stopped() {
            return;
        }
        self.stopped.set(Some(why));
        for id in self.operations.borrow().iter() {
            core.processor.borrow_mut().cancel(*id);
        }
        core.tell_host();
        self.wake();
        let children: Vec<_> = self.children.borrow().values().filter_map(Weak::upgrade).collect();
        for child in children {
            child.stop(core, why);
        }
    }

    fn ancestry(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |node| node.parent.as_deref())
    }

    fn count(&self, more: u64) {
        for node in self.ancestry() {
            node.pending.set(node.pending.get() + more);
        }
    }

    fn discount(&self) {
        for node in self.ancestry() {
            node.pending.set(node.pending.get() - 1);
            if node.pending.get() == 0 {
                node.wake();
            }
        }
    }

    fn wait(&self, waker: &Waker) {
        let mut waiters = self.waiters.borrow_mut();
        if !waiters.iter().any(|waiter| waiter.will_wake(waker)) {
            waiters.push(waker.clone());
        }
    }

    fn wake(&self) {
        let waiters = self.waiters.take();
        waiters.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            parent.children.borrow_mut().remove(&self.number);
        }
    }
}

impl Member {
    fn of(scope: &Rc<Node>) -> Self {
        scope.count(1);
        Self(Node::new(Some(Rc::clone(scope))))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let scope = self.0.parent.as_ref().expect("a member is of a scope");
        scope.discount();
    }
}

impl<'a> Inside<'a> {
    pub(super) fn enter(core: &'a Core, node: Option<Rc<Node>>) -> Self {
        Self { core, before: core.scope.replace(node) }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        drop(self.core.scope.replace(self.before.take()));
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cancelled => "the scope was cancelled",
            Self::DeadlinePassed => "the scope's deadline has passed",
        })
    }
}

impl std::error::Error for Stopped {}
