//! Completion handlers: objects that are called when their operations complete.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::scope::Node;
use super::{Core, TaskInitiator, trace};
use crate::error::{Error, ErrorKind};
use crate::limits::HANDLERS_MAX;
use crate::operation::{Chain, CompletionEvent, End, Operation, OperationId, Token};
use crate::processor::Full;
use crate::units::Moment;

/// What is called when operations complete: a loop over many operations in flight, as a state
/// machine.
pub trait CompletionHandler {
    /// Starts the first operations.
    ///
    /// # Errors
    ///
    /// Ends the handler.
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error>;

    /// Takes what came of one operation, and starts what follows.
    ///
    /// # Errors
    ///
    /// Ends the handler, once what it has in flight has ended.
    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error>;

    /// Whether its work is done. Asked after each event; with nothing in flight it is never called
    /// again, finished or not.
    fn is_finished(&self) -> bool;

    /// What it is called where it is told of: its type.
    fn name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }
}

/// What a handler starts its operations with.
pub struct Initiator<'a> {
    core: &'a Core,
    handler: u32,
    account: &'a Account,
}

/// What is known of a handler beside the handler.
struct Account {
    in_flight: Cell<u32>,
    /// The job, and the scope, that it runs in.
    job: u64,
    scope: Option<Rc<Node>>,
}

/// The handlers of one proactor, by number.
#[derive(Default)]
pub(super) struct Handlers {
    entries: RefCell<Vec<Option<AnyEntry>>>,
    free: RefCell<Vec<u32>>,
}

/// A handler of any type.
type AnyEntry = Rc<Entry<dyn CompletionHandler>>;

struct Entry<H: ?Sized> {
    account: Account,
    failure: RefCell<Option<Error>>,
    /// It is being called, or has panicked: it may be inconsistent, and is not called.
    is_inside: Cell<bool>,
    /// Nobody waits for it any more: it goes when nothing of it is in flight.
    is_left: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
    handler: RefCell<H>,
}

/// A handler that is in the table. Dropping this takes it out, as soon as nothing of it is in
/// flight.
struct Registered<'a, H: CompletionHandler + 'static> {
    handlers: &'a Handlers,
    number: u32,
    entry: &'a Entry<H>,
}

/// An event that is being dispatched. Dropping this, by a panic or not, settles what follows from
/// it if it was the handler's last.
struct Dispatched<'a> {
    handlers: &'a Handlers,
    number: u32,
    entry: &'a Entry<dyn CompletionHandler>,
}

impl Initiator<'_> {
    /// Starts an operation. Its completion event carries `tag`.
    ///
    /// # Errors
    ///
    /// Gives the operation back when the processor is full, or when the scope that the handler runs
    /// in was stopped.
    #[inline]
    pub fn start(
        &mut self,
        operation: Operation,
        tag: u32,
    ) -> Result<OperationId, Full<Operation>> {
        if self.account.is_stopped() {
            return Err(Full(operation));
        }
        let id = self.core.accept(operation, self.token(tag), self.account.job)?;
        self.account.begin(id, 1);
        Ok(id)
    }

    /// Starts an operation to be performed beside this thread even if it need not wait; see
    /// [`crate::OperationProcessor::accept_beside`].
    ///
    /// # Errors
    ///
    /// As [`Initiator::start`].
    pub fn start_beside(
        &mut self,
        operation: Operation,
        tag: u32,
    ) -> Result<OperationId, Full<Operation>> {
        if self.account.is_stopped() {
            return Err(Full(operation));
        }
        let id = self.core.accept_beside(operation, self.token(tag), self.account.job)?;
        self.account.begin(id, 1);
        Ok(id)
    }

    /// Starts a chain. The completion event of each member carries `tag`.
    ///
    /// # Errors
    ///
    /// Gives the chain back, as [`Initiator::start`] does an operation.
    pub fn start_chain(&mut self, chain: Chain, tag: u32) -> Result<OperationId, Full<Chain>> {
        if self.account.is_stopped() {
            return Err(Full(chain));
        }
        let members = u32::try_from(chain.length()).unwrap_or(0);
        let id = self.core.accept_chain(chain, self.token(tag), self.account.job)?;
        self.account.begin(id, members);
        Ok(id)
    }

    /// Starts a chain to be performed beside this thread; see
    /// [`crate::OperationProcessor::accept_chain_beside`].
    ///
    /// # Errors
    ///
    /// As [`Initiator::start_chain`].
    pub fn start_chain_beside(
        &mut self,
        chain: Chain,
        tag: u32,
    ) -> Result<OperationId, Full<Chain>> {
        if self.account.is_stopped() {
            return Err(Full(chain));
        }
        let members = u32::try_from(chain.length()).unwrap_or(0);
        let id = self.core.accept_chain_beside(chain, self.token(tag), self.account.job)?;
        self.account.begin(id, members);
        Ok(id)
    }

    fn token(&self, tag: u32) -> Token {
        Token { handler: self.handler, tag }
    }

    /// Asks for an operation to be given up; its event tells what came of it.
    pub fn cancel(&mut self, id: OperationId) {
        self.core.processor.borrow_mut().cancel(id);
        self.core.tell_host();
    }

    /// Operations of this handler that have not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.account.in_flight.get()
    }

    /// The processor's clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.core.now()
    }
}

impl Account {
    /// For a handler that is started by what runs now, in its job and scope.
    fn of_what_runs(core: &Core) -> Self {
        let scope = core.scope.borrow().clone();
        Self { in_flight: Cell::new(0), job: core.job_id(), scope }
    }

    #[inline]
    fn is_stopped(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.is_stopped())
    }

    /// So many operations were begun, the first of them this one.
    #[inline]
    fn begin(&self, id: OperationId, count: u32) {
        self.in_flight.set(self.in_flight.get() + count);
        if let Some(scope) = &self.scope {
            scope.begin(id);
        }
    }

    #[inline]
    fn end(&self, id: OperationId) {
        self.in_flight.set(self.in_flight.get() - 1);
        if let Some(scope) = &self.scope {
            scope.end(id);
        }
    }
}

impl Handlers {
    pub(super) fn on_complete(&self, event: CompletionEvent, core: &Core) {
        let number = event.token.handler;
        let entry = self.entries.borrow()[number as usize - 1].clone();
        let entry = entry.expect("a handler stays while something of it is in flight");
        trace::completed(entry.account.job, &event);
        if let End::Last(_) = event.end {
            entry.account.end(event.id);
        }
        let _dispatched = Dispatched { handlers: self, number, entry: &entry };
        if entry.failure.borrow().is_none() && !entry.is_inside.get() {
            let mut initiator = Initiator { core, handler: number, account: &entry.account };
            entry.call(core, |handler| handler.on_complete(event, &mut initiator));
        }
    }

    /// Drops all handlers. Events must not come any more.
    pub(super) fn clear(&self) {
        let mut index = 0;
        loop {
            let Some(entry) = self.entries.borrow_mut().get_mut(index).map(Option::take) else {
                return;
            };
            drop(entry);
            index += 1;
        }
    }

    fn add(&self, entry: AnyEntry) -> Result<u32, Error> {
        let mut entries = self.entries.borrow_mut();
        if let Some(number) = self.free.borrow_mut().pop() {
            entries[number as usize - 1] = Some(entry);
            return Ok(number);
        }
        if entries.len() >= HANDLERS_MAX {
            return Err(Error::new(ErrorKind::Io, "start handler", "too many handlers"));
        }
        entries.push(Some(entry));
        Ok(u32::try_from(entries.len()).expect("the maximum is a u32"))
    }

    fn remove(&self, number: u32) {
        let entry = self.entries.borrow_mut()[number as usize - 1].take();
        self.free.borrow_mut().push(number);
        drop(entry);
    }
}

impl<H: CompletionHandler + ?Sized> Entry<H> {
    /// Calls the handler, and keeps what it fails with.
    #[inline]
    fn call(&self, core: &Core, act: impl FnOnce(&mut H) -> Result<(), Error>) {
        let mut handler = self.handler.borrow_mut();
        self.is_inside.set(true);
        let outcome = {
            let _call = core.watch.get().map(|watch| watch.begin(handler.name()));
            act(&mut handler)
        };
        self.is_inside.set(false);
        if let Err(error) = outcome {
            *self.failure.borrow_mut() = Some(error);
        }
    }
}

impl<H: CompletionHandler + 'static> Drop for Registered<'_, H> {
    fn drop(&mut self) {
        if self.entry.account.in_flight.get() == 0 {
            self.handlers.remove(self.number);
        } else {
            self.entry.is_left.set(true);
        }
    }
}

impl Drop for Dispatched<'_> {
    fn drop(&mut self) {
        if self.entry.account.in_flight.get() > 0 {
            return;
        }
        if self.entry.is_left.get() {
            self.handlers.remove(self.number);
        }
        let waiter = self.entry.waiter.take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl TaskInitiator {
    /// Runs a handler until it has nothing in flight; then gives it back. If this future is dropped
    /// before, the handler is called until its operations in flight have ended, and then dropped.
    ///
    /// # Errors
    ///
    /// Beside the handler itself: what it failed with; or that it had panicked, or nothing in
    /// flight before it was finished.
    pub async fn run<H: CompletionHandler + 'static>(&self, handler: H) -> (H, Result<(), Error>) {
        let core = self.core();
        let account = Account::of_what_runs(core);
        let entry = Rc::new(Entry {
            account,
            failure: RefCell::new(None),
            is_inside: Cell::new(false),
            is_left: Cell::new(false),
            waiter: RefCell::new(None),
            handler: RefCell::new(handler),
        });
        let number = match core.handlers.add(Rc::<Entry<H>>::clone(&entry)) {
            Ok(number) => number,
            Err(error) => return (into_handler(entry), Err(error)),
        };
        let registered = Registered { handlers: &core.handlers, number, entry: &entry };
        let mut initiator = Initiator { core, handler: number, account: &entry.account };
        entry.call(core, |handler| handler.start(&mut initiator));
        poll_fn(|context| {
            if entry.account.in_flight.get() == 0 {
                return Poll::Ready(());
            }
            *entry.waiter.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        drop(registered);
        let failed = |reason| Err(Error::new(ErrorKind::Io, "run handler", reason));
        let outcome = match entry.failure.take() {
            Some(error) => Err(error),
            None if entry.is_inside.get() => failed("it has panicked"),
            None if entry.handler.borrow().is_finished() => Ok(()),
            None => failed("it stopped before it was done"),
        };
        (into_handler(entry), outcome)
    }
}

impl TaskInitiator {
    /// Starts a handler that nobody waits for: it goes when nothing of it is in flight.
    pub(super) fn start_handler<H: CompletionHandler + 'static>(
        &self,
        handler: H,
    ) -> Result<(), Error> {
        let core = self.core();
        let account = Account::of_what_runs(core);
        let entry = Rc::new(Entry {
            account,
            failure: RefCell::new(None),
            is_inside: Cell::new(false),
            is_left: Cell::new(false),
            waiter: RefCell::new(None),
            handler: RefCell::new(handler),
        });
        let number = core.handlers.add(Rc::<Entry<H>>::clone(&entry))?;
        let _registered = Registered { handlers: &core.handlers, number, entry: &entry };
        let mut initiator = Initiator { core, handler: number, account: &entry.account };
        entry.call(core, |handler| handler.start(&mut initiator));
        Ok(())
    }
}

fn into_handler<H>(entry: Rc<Entry<H>>) -> H {
    let entry = Rc::into_inner(entry).expect("the table gave its share up");
    entry.handler.into_inner()
}
