//! Tasks: sequences of steps that read from top to bottom, over the same slots as handlers.
//!
//! A future that waits for an operation owns none of its memory: the slot does. Dropping the future
//! leaves the operation to its slot; when it ends, whatever it owns or brought is dropped.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake as TaskWake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::{Core, TASKS};
use crate::buffer::{Buffer, BufferPool};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::TASKS_MAX;
use crate::operation::{
    Chain, CompletionEvent, End, File, FileStatus, Handle, OnDrop, Open, Operation, OperationError,
    OperationId, Read, RegisteredFile, Statx, Subject, Timeout, Token, Write,
};
use crate::processor::{Capabilities, EngineKind, Full, Wake};
use crate::units::{Moment, WallTime};

/// What a task starts operations with. Clones share the proactor.
#[derive(Clone)]
pub struct TaskInitiator(Rc<Core>);

/// The result of a spawned task, to be awaited. Dropping it leaves the task running.
pub struct JoinHandle<T>(Rc<Joint<T>>);

struct Joint<T> {
    output: RefCell<Option<T>>,
    waiter: RefCell<Option<Waker>>,
}

/// The tasks of one proactor.
pub(super) struct Tasks {
    futures: RefCell<Vec<Option<Spawned>>>,
    free: RefCell<Vec<u32>>,
    waits: RefCell<Vec<Wait>>,
    free_waits: RefCell<Vec<u32>>,
    waiters_for_room: RefCell<Vec<Waker>>,
    ready: Arc<Ready>,
}

struct Spawned {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

/// What a task waits for; an operation's tag is its index.
enum Wait {
    Free,
    /// The operation is in flight: events that must still come, and what has come.
    Pending {
        waker: Option<Waker>,
        missing: u32,
        events: Vec<CompletionEvent>,
    },
    One {
        waker: Option<Waker>,
        event: Option<CompletionEvent>,
    },
    /// Nobody waits any more; this many events must still come.
    Orphan {
        missing: u32,
    },
}

/// Tasks that can go on, by number; and who to wake if the loop sleeps.
struct Ready {
    queue: Mutex<VecDeque<u32>>,
    is_asleep: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
    processor: Arc<dyn Wake>,
}

struct ReadyWaker {
    ready: Arc<Ready>,
    task: u32,
}

/// The number of the future that `block_on` runs.
const MAIN: u32 = u32::MAX;

/// How many tasks run before completions are looked at again.
const BATCH: usize = 64;

impl Core {
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let waker = self.tasks.waker(MAIN);
        let mut is_main_ready = true;
        loop {
            if is_main_ready
                && let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return output;
            }
            is_main_ready = self.run_ready_tasks();
            if self.has_in_flight() {
                self.wait(is_main_ready);
            } else if !is_main_ready && self.tasks.ready.is_empty() {
                self.tasks.wake_waiters_for_room();
                self.sleep();
            }
        }
    }

    /// Runs what is ready, once each; true if the main future is.
    fn run_ready_tasks(&self) -> bool {
        let mut is_main_ready = false;
        for _ in 0..BATCH {
            match self.tasks.ready.pop() {
                Some(MAIN) => is_main_ready = true,
                Some(number) => self.tasks.run(number),
                None => break,
            }
        }
        is_main_ready
    }

    fn has_in_flight(&self) -> bool {
        self.processor.borrow().in_flight() > 0 || !self.events.borrow().is_empty()
    }

    /// One turn: waits only if no task can go on.
    fn wait(&self, is_main_ready: bool) {
        let ready = &self.tasks.ready;
        ready.fall_asleep();
        let at_least = u32::from(!is_main_ready && ready.is_empty());
        let turned = self.turn(at_least, None);
        ready.is_asleep.store(false, Ordering::SeqCst);
        if let Err(error) = turned {
            panic!("the processor is broken for good: {error} ({})", error.reason());
        }
    }

    /// Nothing is in flight: only another thread can wake a task.
    fn sleep(&self) {
        let is_simulated = self.processor.borrow().capabilities().engine == EngineKind::Simulated;
        assert!(!is_simulated, "a task waits for something that nobody will ever do");
        let ready = &self.tasks.ready;
        ready.fall_asleep();
        while ready.is_empty() {
            thread::park();
        }
        ready.is_asleep.store(false, Ordering::SeqCst);
    }
}

impl Tasks {
    pub(super) fn new(processor: Arc<dyn Wake>) -> Self {
        Self {
            futures: RefCell::default(),
            free: RefCell::default(),
            waits: RefCell::default(),
            free_waits: RefCell::default(),
            waiters_for_room: RefCell::default(),
            ready: Arc::new(Ready {
                queue: Mutex::default(),
                is_asleep: AtomicBool::new(false),
                sleeper: Mutex::default(),
                processor,
            }),
        }
    }

    pub(super) fn on_complete(&self, event: CompletionEvent) {
        let number = event.token.tag;
        let mut waits = self.waits.borrow_mut();
        let wait = &mut waits[number as usize];
        let waker = match wait {
            Wait::One { waker, event: slot } => {
                *slot = Some(event);
                waker.take()
            }
            Wait::Pending { waker, missing, events } => {
                *missing -= u32::from(matches!(event.end, End::Last(_)));
                events.push(event);
                if *missing == 0 { waker.take() } else { None }
            }
            Wait::Orphan { missing } => {
                *missing -= u32::from(matches!(event.end, End::Last(_)));
                if *missing == 0 {
                    *wait = Wait::Free;
                    self.free_waits.borrow_mut().push(number);
                }
                drop(waits);
                drop(event);
                return;
            }
            Wait::Free => unreachable!("an event for a wait that has ended"),
        };
        drop(waits);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn wake_waiters_for_room(&self) {
        if !self.waiters_for_room.borrow().is_empty() {
            let waiters = self.waiters_for_room.take();
            waiters.into_iter().for_each(Waker::wake);
        }
    }

    fn waker(&self, task: u32) -> Waker {
        Waker::from(Arc::new(ReadyWaker { ready: Arc::clone(&self.ready), task }))
    }

    fn run(&self, number: u32) {
        // Taken out while it runs, so that it may spawn others, and so that a panic ends it.
        let Some(mut task) = self.futures.borrow_mut()[number as usize].take() else { return };
        if task.future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready() {
            self.free.borrow_mut().push(number);
        } else {
            self.futures.borrow_mut()[number as usize] = Some(task);
        }
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()>>>) -> Result<(), Error> {
        let mut futures = self.futures.borrow_mut();
        let number = match self.free.borrow_mut().pop() {
            Some(number) => number,
            None if futures.len() < TASKS_MAX => {
                futures.push(None);
                u32::try_from(futures.len() - 1).expect("the maximum is a u32")
            }
            None => return Err(Error::new(ErrorKind::Io, "spawn task", "too many tasks")),
        };
        let waker = self.waker(number);
        futures[number as usize] = Some(Spawned { future, waker });
        drop(futures);
        self.ready.push(number);
        Ok(())
    }

    fn begin_wait(&self, wait: Wait) -> u32 {
        let mut waits = self.waits.borrow_mut();
        if let Some(number) = self.free_waits.borrow_mut().pop() {
            waits[number as usize] = wait;
            return number;
        }
        waits.push(wait);
        u32::try_from(waits.len() - 1).expect("waits are bounded by slots and tasks")
    }

    fn end_wait(&self, number: u32) -> Wait {
        let wait = std::mem::replace(&mut self.waits.borrow_mut()[number as usize], Wait::Free);
        self.free_waits.borrow_mut().push(number);
        wait
    }
}

impl TaskInitiator {
    pub(super) fn new(core: Rc<Core>) -> Self {
        Self(core)
    }

    pub(super) fn core(&self) -> &Core {
        &self.0
    }

    /// Performs an operation and gives it back with its result. Waits for room if the processor is
    /// full.
    pub fn perform(&self, operation: Operation) -> Perform {
        Perform { core: Rc::clone(&self.0), state: PerformState::New(operation) }
    }

    /// Performs a chain and gives its members' events, in order.
    pub async fn perform_chain(&self, chain: Chain) -> Vec<CompletionEvent> {
        PerformChain { core: Rc::clone(&self.0), state: ChainState::New(chain) }.await
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// As `openat2(2)` answers.
    pub async fn open(&self, open: Open) -> Result<File, OperationError> {
        let (result, operation) = self.perform(Operation::Open(open)).await;
        result?;
        match operation {
            Operation::Open(Open { file: Some(file), .. }) => Ok(file),
            _ => Err(OperationError::failed(Errno::EBADF)),
        }
    }

    /// Reads into a whole buffer from an offset; returns the number of bytes, and the buffer.
    pub async fn read_at(
        &self,
        file: impl Into<Handle>,
        buffer: impl Into<Buffer>,
        offset_bytes: u64,
    ) -> (Result<u32, OperationError>, Buffer) {
        let buffer = buffer.into();
        let length = buffer.length();
        let read = Read { handle: file.into(), buffer, offset_bytes, start: 0, length };
        match self.perform(Operation::Read(read)).await {
            (result, Operation::Read(read)) => (result, read.buffer),
            _ => unreachable!("an operation comes back as itself"),
        }
    }

    /// Writes `length` bytes of a buffer at an offset; returns the number of bytes, and the buffer.
    pub async fn write_at(
        &self,
        file: impl Into<Handle>,
        buffer: impl Into<Buffer>,
        length: u32,
        offset_bytes: u64,
    ) -> (Result<u32, OperationError>, Buffer) {
        let buffer = buffer.into();
        let write = Write { handle: file.into(), buffer, offset_bytes, start: 0, length };
        match self.perform(Operation::Write(write)).await {
            (result, Operation::Write(write)) => (result, write.buffer),
            _ => unreachable!("an operation comes back as itself"),
        }
    }

    /// Asks for the status of a file, or of a name; a symbolic link is followed if `follow` is set.
    ///
    /// # Errors
    ///
    /// As `statx(2)` answers.
    pub async fn status(
        &self,
        subject: Subject,
        follow: bool,
    ) -> Result<Box<FileStatus>, OperationError> {
        let statx = Statx { subject, follow, status: None };
        let (result, operation) = self.perform(Operation::Statx(statx)).await;
        result?;
        match operation {
            Operation::Statx(Statx { status: Some(status), .. }) => Ok(status),
            _ => Err(OperationError::failed(Errno::EIO)),
        }
    }

    /// Waits for a time of the processor's clock to pass.
    pub async fn sleep(&self, duration: Duration) {
        let _ = self.perform(Operation::Timeout(Timeout { duration })).await;
    }

    /// Runs a future beside this one, on the same thread.
    ///
    /// # Errors
    ///
    /// If there are too many tasks.
    pub fn spawn<T: 'static>(
        &self,
        future: impl Future<Output = T> + 'static,
    ) -> Result<JoinHandle<T>, Error> {
        let joint = Rc::new(Joint { output: RefCell::new(None), waiter: RefCell::new(None) });
        let end = Rc::clone(&joint);
        self.0.tasks.spawn(Box::pin(async move {
            let output = future.await;
            *end.output.borrow_mut() = Some(output);
            if let Some(waiter) = end.waiter.take() {
                waiter.wake();
            }
        }))?;
        Ok(JoinHandle(joint))
    }

    /// Lends blocks of memory; see [`crate::OperationProcessor::buffer_pool`].
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for them.
    pub fn buffer_pool(&self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        self.0.processor.borrow_mut().buffer_pool(count, block_bytes)
    }

    /// Registers a file; see [`crate::OperationProcessor::register_file`].
    ///
    /// # Errors
    ///
    /// `ENFILE` if the table is full, or as the kernel answers.
    pub fn register_file(&self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        self.0.processor.borrow_mut().register_file(file)
    }

    /// Closes registered files; see [`crate::OperationProcessor::release_files`].
    pub fn release_files(&self) {
        self.0.processor.borrow_mut().release_files();
    }

    /// The processor's monotonic clock.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.0.processor.borrow().now()
    }

    /// The processor's calendar clock.
    #[must_use]
    pub fn wall_clock(&self) -> WallTime {
        self.0.processor.borrow().wall_clock()
    }

    /// What runs, and why.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.processor.borrow().capabilities().clone()
    }
}

/// Runs futures side by side until all are done. They may borrow; they are polled together.
pub async fn join_all<'a>(futures: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>) {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    std::future::poll_fn(|context| {
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

/// A future that performs one operation. Dropping it before it is done leaves the operation to
/// end by itself: a read is cancelled, a write runs to its end.
#[must_use = "nothing is started before it is awaited"]
pub struct Perform {
    core: Rc<Core>,
    state: PerformState,
}

enum PerformState {
    New(Operation),
    Waiting { wait: u32, id: OperationId, on_drop: OnDrop },
    Done,
}

impl Future for Perform {
    type Output = (Result<u32, OperationError>, Operation);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, PerformState::Done) {
            PerformState::New(operation) => this.begin(operation, context),
            PerformState::Waiting { wait, id, on_drop } => {
                let mut waits = this.core.tasks.waits.borrow_mut();
                let Wait::One { waker, event } = &mut waits[wait as usize] else {
                    unreachable!("a single operation waits for one event")
                };
                let Some(event) = event.take() else {
                    *waker = Some(context.waker().clone());
                    this.state = PerformState::Waiting { wait, id, on_drop };
                    return Poll::Pending;
                };
                drop(waits);
                this.core.tasks.end_wait(wait);
                let result = event.result;
                let operation = event.into_operation();
                Poll::Ready((result, operation.expect("the operations of tasks end at once")))
            }
            PerformState::Done => panic!("polled after it was done"),
        }
    }
}

impl Perform {
    fn begin(
        &mut self,
        operation: Operation,
        context: &mut Context<'_>,
    ) -> Poll<<Self as Future>::Output> {
        let mut processor = self.core.processor.borrow_mut();
        let operation = match processor.perform_inline(operation) {
            Ok(performed) => return Poll::Ready((performed.result, performed.operation)),
            Err(operation) => operation,
        };
        let tasks = &self.core.tasks;
        let on_drop = operation.on_drop();
        let wait =
            tasks.begin_wait(Wait::One { waker: Some(context.waker().clone()), event: None });
        match processor.accept(operation, Token { handler: TASKS, tag: wait }) {
            Ok(id) => self.state = PerformState::Waiting { wait, id, on_drop },
            Err(Full(operation)) => {
                tasks.end_wait(wait);
                tasks.waiters_for_room.borrow_mut().push(context.waker().clone());
                self.state = PerformState::New(operation);
            }
        }
        Poll::Pending
    }
}

impl Drop for Perform {
    fn drop(&mut self) {
        let PerformState::Waiting { wait, id, on_drop } = self.state else { return };
        self.core.abandon(wait, 1, id, on_drop);
    }
}

/// A future that performs a chain.
struct PerformChain {
    core: Rc<Core>,
    state: ChainState,
}

#[expect(clippy::large_enum_variant, reason = "it lives on the task's future, made once")]
enum ChainState {
    New(Chain),
    Waiting { wait: u32, id: OperationId },
    Done,
}

impl Future for PerformChain {
    type Output = Vec<CompletionEvent>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.state, ChainState::Done) {
            ChainState::New(chain) => {
                let missing = u32::try_from(chain.length()).expect("a chain is short");
                let waker = Some(context.waker().clone());
                let tasks = &this.core.tasks;
                let wait = tasks.begin_wait(Wait::Pending { waker, missing, events: Vec::new() });
                let token = Token { handler: TASKS, tag: wait };
                match this.core.processor.borrow_mut().accept_chain(chain, token) {
                    Ok(id) => this.state = ChainState::Waiting { wait, id },
                    Err(Full(chain)) => {
                        tasks.end_wait(wait);
                        tasks.waiters_for_room.borrow_mut().push(context.waker().clone());
                        this.state = ChainState::New(chain);
                    }
                }
                Poll::Pending
            }
            ChainState::Waiting { wait, id } => {
                if let Wait::Pending { waker, missing: 1.., .. } =
                    &mut this.core.tasks.waits.borrow_mut()[wait as usize]
                {
                    *waker = Some(context.waker().clone());
                    this.state = ChainState::Waiting { wait, id };
                    return Poll::Pending;
                }
                match this.core.tasks.end_wait(wait) {
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
        let missing = match self.core.tasks.waits.borrow()[wait as usize] {
            Wait::Pending { missing, .. } => missing,
            _ => 0,
        };
        self.core.abandon(wait, missing, id, OnDrop::Detach);
    }
}

impl Core {
    /// Leaves an operation to end by itself.
    fn abandon(&self, wait: u32, missing: u32, id: OperationId, on_drop: OnDrop) {
        let mut waits = self.tasks.waits.borrow_mut();
        let place = &mut waits[wait as usize];
        let has_ended = match place {
            Wait::One { event, .. } => event.is_some(),
            _ => missing == 0,
        };
        let left = std::mem::replace(place, Wait::Orphan { missing });
        drop(waits);
        if has_ended {
            self.tasks.end_wait(wait);
        } else if on_drop == OnDrop::Cancel {
            self.processor.borrow_mut().cancel(id);
        }
        drop(left);
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.0.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                *self.0.waiter.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u32>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn pop(&self) -> Option<u32> {
        self.lock().pop_front()
    }

    fn push(&self, task: u32) {
        self.lock().push_back(task);
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            self.processor.wake();
            let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(sleeper) = sleeper {
                sleeper.unpark();
            }
        }
    }

    /// From here on a wake-up from another thread ends the wait. The caller looks at the queue
    /// once more before it waits.
    fn fall_asleep(&self) {
        *self.sleeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        self.is_asleep.store(true, Ordering::SeqCst);
    }
}

impl TaskWake for ReadyWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.push(self.task);
    }
}
