//! Runs tasks: each when it is woken, and the loop between them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake as TaskWake, Waker};
use std::thread::{self, Thread};

use super::Core;
use crate::error::{Error, ErrorKind};
use crate::limits::TASKS_MAX;
use crate::processor::{EngineKind, Wake};

/// The tasks of one proactor.
pub(super) struct Tasks {
    futures: RefCell<Vec<Option<Spawned>>>,
    free: RefCell<Vec<u32>>,
    ready: Arc<Ready>,
}

struct Spawned {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
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
                self.waits.wake_for_room();
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
            ready: Arc::new(Ready {
                queue: Mutex::default(),
                is_asleep: AtomicBool::new(false),
                sleeper: Mutex::default(),
                processor,
            }),
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

    pub(super) fn spawn(&self, future: Pin<Box<dyn Future<Output = ()>>>) -> Result<(), Error> {
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
