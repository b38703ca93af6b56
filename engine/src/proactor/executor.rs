//! Runs tasks: each when it is woken, and the loop between them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, RawWakerVTable, Wake as TaskWake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::Core;
use super::job::{self, Within};
use crate::error::{Error, ErrorKind};
use crate::limits::TASKS_MAX;
use crate::processor::Wake;

/// The tasks of one proactor.
pub(super) struct Tasks {
    futures: RefCell<Vec<Option<Spawned>>>,
    free: RefCell<Vec<u32>>,
    main: Arc<ReadyWaker>,
    /// Tasks that can go on; those that others have woken join them once a turn.
    local: RefCell<VecDeque<u32>>,
    ready: Arc<Ready>,
    /// The task that is polled now, and its waker.
    current: Cell<Option<(u32, WakerIdentity)>>,
    is_running: Cell<bool>,
}

/// Whoever waits for something that happens on this thread. A task is named by its number: a waker
/// is counted, and queued behind a lock, for the case that another thread has it.
pub(super) enum Waiter {
    Task(u32),
    Other(Waker),
}

/// What tells a waker from all others while it lives.
type WakerIdentity = (*const (), *const RawWakerVTable);

struct Spawned {
    future: Pin<Box<dyn Future<Output = ()>>>,
    /// The type of what was spawned.
    name: &'static str,
    /// The job that it was spawned in.
    job: Option<Rc<job::Inner>>,
    ready: Arc<ReadyWaker>,
    /// The same.
    waker: Waker,
}

/// Tasks that were woken from anywhere, by number; and who to wake if the loop sleeps.
struct Ready {
    queue: Mutex<VecDeque<u32>>,
    has_any: AtomicBool,
    is_asleep: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
    processor: Arc<dyn Wake>,
}

struct ReadyWaker {
    ready: Arc<Ready>,
    task: u32,
    /// It is in the queue, or has ended: waking it again does nothing.
    is_queued: AtomicBool,
}

/// A task that is polled. What is still in here at the end, a panic included, has ended.
struct Polled<'a> {
    tasks: &'a Tasks,
    number: u32,
    task: Option<Spawned>,
}

/// While it lives, a task is polled.
struct Polling<'a>(&'a Cell<Option<(u32, WakerIdentity)>>);

/// While it lives, the loop runs.
pub(super) struct Running<'a>(&'a Cell<bool>);

/// The number of the future that `block_on` runs.
const MAIN: u32 = u32::MAX;

/// How many tasks run before completions are looked at again.
const BATCH: usize = 64;

impl Core {
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.try_block_on(future).unwrap_or_else(|error| {
            panic!("the processor is broken for good: {error} ({})", error.reason())
        })
    }

    /// The same; a processor that is broken for good ends the future, and not the program.
    pub(super) fn try_block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let _running = self.tasks.enter();
        let name = std::any::type_name::<F>();
        let mut future = pin!(future);
        let main = Waker::from(Arc::clone(&self.tasks.main));
        let mut is_main_ready = true;
        loop {
            if is_main_ready {
                self.tasks.main.begin_poll();
                let _polling = self.tasks.poll_begins(MAIN, &main);
                let _call = self.watch.get().map(|watch| watch.begin(name));
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&main)) {
                    return Ok(output);
                }
            }
            is_main_ready = self.run_ready_tasks();
            self.turn(!is_main_ready, None)?;
        }
    }

    /// Runs what is ready, once each; true if the main future is.
    pub(super) fn run_ready_tasks(&self) -> bool {
        let mut is_main_ready = false;
        self.tasks.collect();
        for _ in 0..BATCH {
            let next = self.tasks.local.borrow_mut().pop_front();
            match next {
                Some(MAIN) => is_main_ready = true,
                Some(number) => self.run_task(number),
                None => break,
            }
        }
        is_main_ready
    }

    fn run_task(&self, number: u32) {
        // Taken out while it runs, so that it may spawn others, and so that a panic ends it.
        let Some(task) = self.tasks.futures.borrow_mut()[number as usize].take() else { return };
        task.ready.begin_poll();
        let mut polled = Polled { tasks: &self.tasks, number, task: Some(task) };
        let Some(Spawned { future, waker, name, job, .. }) = &mut polled.task else { return };
        let mut context = Context::from_waker(waker);
        let is_pending = {
            let _polling = self.tasks.poll_begins(number, waker);
            let _call = self.watch.get().map(|watch| watch.begin(name));
            match job {
                None => future.as_mut().poll(&mut context).is_pending(),
                Some(job) => {
                    let _within = Within::enter(&self.job, Some(Rc::clone(job)));
                    job.in_span(|| future.as_mut().poll(&mut context).is_pending())
                }
            }
        };
        if is_pending {
            self.tasks.futures.borrow_mut()[number as usize] = polled.task.take();
        }
    }
}

impl Tasks {
    pub(super) fn new(processor: Arc<dyn Wake>) -> Self {
        let ready = Arc::new(Ready {
            queue: Mutex::default(),
            has_any: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            sleeper: Mutex::default(),
            processor,
        });
        Self {
            futures: RefCell::default(),
            free: RefCell::default(),
            main: ReadyWaker::new(&ready, MAIN),
            local: RefCell::default(),
            ready,
            current: Cell::new(None),
            is_running: Cell::new(false),
        }
    }

    /// Says that the loop runs from here on.
    pub(super) fn enter(&self) -> Running<'_> {
        assert!(!self.is_running.replace(true), "the proactor runs already: await instead");
        Running(&self.is_running)
    }

    /// Whether no task can go on.
    pub(super) fn are_waiting(&self) -> bool {
        self.local.borrow().is_empty() && !self.ready.has_any.load(Ordering::Acquire)
    }

    /// Queues those that were woken from anywhere behind those that were woken here.
    #[inline]
    pub(super) fn collect(&self) {
        self.ready.move_to(&self.local);
    }

    /// Whom to wake for the sake of whoever polls now.
    #[inline]
    pub(super) fn waiter(&self, context: &Context<'_>) -> Waiter {
        let waker = context.waker();
        match self.current.get() {
            Some((number, own)) if own == identity(waker) => Waiter::Task(number),
            _ => Waiter::Other(waker.clone()),
        }
    }

    /// Wakes a task of this thread, or whoever else waits. One that has ended is not there; if its
    /// number is another's by now, that one looks once more and goes on waiting.
    #[inline]
    pub(super) fn wake(&self, waiter: Waiter) {
        let number = match waiter {
            Waiter::Task(number) => number,
            Waiter::Other(waker) => return waker.wake(),
        };
        let futures = self.futures.borrow();
        let ready = match futures.get(number as usize) {
            Some(Some(task)) => &task.ready,
            _ if number == MAIN => &self.main,
            _ => return,
        };
        // If another thread does the same now, the task is queued twice, which is harmless.
        if !ready.is_queued.load(Ordering::Acquire) {
            ready.is_queued.store(true, Ordering::Release);
            self.local.borrow_mut().push_back(number);
        }
    }

    fn poll_begins(&self, number: u32, waker: &Waker) -> Polling<'_> {
        self.current.set(Some((number, identity(waker))));
        Polling(&self.current)
    }

    /// From here on a wake-up ends the wait, also one from another thread; false if there is
    /// nothing to wait for, because a task can go on.
    pub(super) fn fall_asleep(&self) -> bool {
        self.local.borrow().is_empty() && self.ready.fall_asleep()
    }

    /// The wait is over: wake-ups need to end nothing.
    pub(super) fn wake_up(&self) {
        self.ready.is_asleep.store(false, Ordering::Release);
    }

    pub(super) fn spawn(
        &self,
        future: Pin<Box<dyn Future<Output = ()>>>,
        name: &'static str,
        job: Option<Rc<job::Inner>>,
    ) -> Result<(), Error> {
        let mut futures = self.futures.borrow_mut();
        let number = match self.free.borrow_mut().pop() {
            Some(number) => number,
            None if futures.len() < TASKS_MAX => {
                futures.push(None);
                u32::try_from(futures.len() - 1).expect("the maximum is a u32")
            }
            None => return Err(Error::new(ErrorKind::Io, "spawn task", "too many tasks")),
        };
        let ready = ReadyWaker::new(&self.ready, number);
        let waker = Waker::from(Arc::clone(&ready));
        let task = Spawned { future, name, job, ready: Arc::clone(&ready), waker };
        futures[number as usize] = Some(task);
        drop(futures);
        ready.wake();
        Ok(())
    }

    /// Drops all tasks, and those that they spawn meanwhile.
    pub(super) fn clear(&self) {
        loop {
            let futures = std::mem::take(&mut *self.futures.borrow_mut());
            self.free.borrow_mut().clear();
            if futures.is_empty() {
                return;
            }
        }
    }

    /// Waits until a task can go on, or for as long as `left` says.
    pub(super) fn park(&self, left: Option<impl Fn() -> Duration>) {
        let ready = &self.ready;
        *ready.sleeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        while self.fall_asleep() {
            match left.as_ref().map(|left| left()) {
                None => thread::park(),
                Some(Duration::ZERO) => break,
                Some(left) => thread::park_timeout(left),
            }
        }
        self.wake_up();
    }

    /// How many tasks have not ended.
    pub(super) fn count(&self) -> usize {
        self.futures.borrow().len() - self.free.borrow().len()
    }

    /// Whether the loop runs.
    pub(super) fn is_running(&self) -> bool {
        self.is_running.get()
    }
}

impl Drop for Polled<'_> {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.ready.is_queued.store(true, Ordering::Release);
            drop(task);
            self.tasks.free.borrow_mut().push(self.number);
        }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

fn identity(waker: &Waker) -> WakerIdentity {
    (waker.data(), waker.vtable())
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u32>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Moves all to the end of another queue.
    #[inline]
    fn move_to(&self, local: &RefCell<VecDeque<u32>>) {
        if self.has_any.load(Ordering::Acquire) {
            let mut queue = self.lock();
            self.has_any.store(false, Ordering::Release);
            local.borrow_mut().append(&mut queue);
        }
    }

    fn push(&self, task: u32) {
        let mut queue = self.lock();
        queue.push_back(task);
        self.has_any.store(true, Ordering::Release);
        drop(queue);
        if self.is_asleep.swap(false, Ordering::AcqRel) {
            self.processor.wake();
            // It stays: who comes late here may wake the next sleep, which goes on sleeping then.
            let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(sleeper) = sleeper {
                sleeper.unpark();
            }
        }
    }

    fn fall_asleep(&self) -> bool {
        // Before the look at the queue: who pushes after the look sees it.
        self.is_asleep.store(true, Ordering::Release);
        let is_empty = self.is_empty();
        if !is_empty {
            self.is_asleep.store(false, Ordering::Release);
        }
        is_empty
    }
}

impl ReadyWaker {
    fn new(ready: &Arc<Ready>, task: u32) -> Arc<Self> {
        Arc::new(Self { ready: Arc::clone(ready), task, is_queued: AtomicBool::new(false) })
    }

    /// From here on the task can be woken again. What was done before it was woken is seen.
    fn begin_poll(&self) {
        self.is_queued.swap(false, Ordering::AcqRel);
    }
}

impl TaskWake for ReadyWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    /// A processor's waker that the first caller is held in until it is let go.
    struct Held {
        entered: Sender<()>,
        let_go: Mutex<Receiver<()>>,
        calls: AtomicBool,
    }

    impl Wake for Held {
        fn wake(&self) {
            if !self.calls.swap(true, Ordering::AcqRel) {
                self.entered.send(()).unwrap();
                self.let_go.lock().unwrap().recv().unwrap();
            }
        }
    }

    #[test]
    fn who_wakes_late_takes_no_other_wake_up_away() {
        let (entered, is_entered) = mpsc::channel();
        let (let_go, is_let_go) = mpsc::channel();
        let held = Held { entered, let_go: Mutex::new(is_let_go), calls: AtomicBool::new(false) };
        let (hand, given) = mpsc::channel();
        let (slept, has_slept) = mpsc::channel();
        let sleeper = thread::spawn(move || {
            let tasks = Tasks::new(Arc::new(held));
            hand.send(Arc::clone(&tasks.main)).unwrap();
            for _ in 0..2 {
                tasks.park(None::<fn() -> Duration>);
                tasks.collect();
                tasks.local.borrow_mut().clear();
                tasks.main.begin_poll();
                slept.send(()).unwrap();
            }
        });
        let main = given.recv().unwrap();
        let is_asleep = || main.ready.is_asleep.load(Ordering::Acquire);
        let until_asleep = || {
            while !is_asleep() {
                thread::yield_now();
            }
        };
        until_asleep();
        let late = Arc::clone(&main);
        let late = thread::spawn(move || late.wake_by_ref());
        is_entered.recv().unwrap();
        // The first sleep ends by itself, as any may, and the second begins.
        sleeper.thread().unpark();
        has_slept.recv().unwrap();
        until_asleep();
        let_go.send(()).unwrap();
        late.join().unwrap();
        until_asleep();
        main.wake_by_ref();
        has_slept.recv_timeout(Duration::from_secs(30)).expect("the second wake-up is lost");
        sleeper.join().unwrap();
    }
}
