//! A bounded crew of threads that perform what the kernel has no asynchronous form of.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::Wake;
use super::finish::raw;
use super::slots::{Assignment, Slots};
use crate::error::Errno;

/// The crew. Threads start when there is work for them. Dropping the crew waits for those that
/// have nothing to do, and leaves one that is stuck in the kernel to itself: it keeps what it has.
pub(super) struct Helpers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    threads_max: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Told when something was done.
    wake: Arc<dyn Wake>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Work>,
    /// Done one after the other, by whoever is free.
    in_order: VecDeque<Work>,
    /// Whether somebody is at it.
    is_in_order_busy: bool,
    done: Vec<Done>,
    idle: usize,
    /// Threads that are performing something.
    busy: usize,
    is_closing: bool,
}

/// Gives a chain that is a pair, by its head's slot, to the next free helper.
pub(super) fn start_pair(helpers: &mut Helpers, slots: &mut Slots, head: u32) {
    let next = slots.entry(head).link.and_then(|link| link.next).expect("a pair has two members");
    let (first, second) = (slots.assign(head), Some(slots.assign(next)));
    helpers.shared.lock().queue.push_back(Work { index: head, first, second });
    helpers.staff();
}

/// What one helper does in one go: a slot's operation, or a read and the write of the same bytes.
struct Work {
    index: u32,
    first: Assignment,
    second: Option<Assignment>,
}

/// What was done: slots, and results as the kernel writes them.
pub(super) struct Done {
    pub(super) first: (Assignment, i32),
    pub(super) second: Option<(Assignment, i32)>,
}

impl Helpers {
    /// A crew of up to `threads_max` for up to `capacity` slots, with room for all of them.
    pub(super) fn new(threads_max: usize, capacity: usize, wake: Arc<dyn Wake>) -> Self {
        let state = State {
            queue: VecDeque::with_capacity(capacity),
            in_order: VecDeque::with_capacity(capacity),
            done: Vec::with_capacity(capacity),
            ..State::default()
        };
        let shared = Shared { state: Mutex::new(state), work: Condvar::new(), wake };
        Self { shared: Arc::new(shared), threads: Vec::new(), threads_max: threads_max.max(1) }
    }

    /// Gives a slot to the next free helper. If no thread can be started at all, performs it here.
    pub(super) fn start(&mut self, index: u32, assignment: Assignment) {
        self.shared.lock().queue.push_back(Work { index, first: assignment, second: None });
        self.staff();
    }

    /// The same, for work that would only get into its own way: it is done one after the other.
    pub(super) fn start_in_order(&mut self, index: u32, assignment: Assignment) {
        self.shared.lock().in_order.push_back(Work { index, first: assignment, second: None });
        self.staff();
    }

    /// Finds somebody for what is queued.
    fn staff(&mut self) {
        let state = self.shared.lock();
        let wanted = state.queue.len() + usize::from(state.has_next_in_order());
        if wanted == 0 {
            return;
        }
        let is_short = state.idle < wanted && self.threads.len() < self.threads_max;
        drop(state);
        if is_short && !self.hire() && self.threads.is_empty() {
            self.shared.perform_one();
        }
        self.shared.work.notify_one();
    }

    /// Takes a slot back that no helper has begun, and the other of its pair.
    pub(super) fn withdraw(&mut self, index: u32) -> Option<(Assignment, Option<Assignment>)> {
        let State { queue, in_order, .. } = &mut *self.shared.lock();
        [queue, in_order].into_iter().find_map(|queue| {
            let place = queue.iter().position(|work| work.index == index)?;
            queue.remove(place).map(|work| (work.first, work.second))
        })
    }

    /// Swaps what was done since the last call for an empty list.
    pub(super) fn take_done(&mut self, done: &mut Vec<Done>) {
        assert!(done.is_empty(), "what was done before was looked at");
        std::mem::swap(&mut self.shared.lock().done, done);
    }

    fn hire(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("ucp-helper".into())
            .stack_size(256 << 10)
            .spawn(move || shared.work_until_closing());
        let is_hired = thread.is_ok();
        self.threads.extend(thread);
        is_hired
    }
}

impl Work {
    /// Performs it. A panic here is a bug of ours; its operations must end all the same.
    fn perform(mut self) -> Done {
        let performed = catch_unwind(AssertUnwindSafe(|| match &mut self.second {
            None => (self.first.perform(), Err(Errno::ECANCELED)),
            Some(second) => self.first.perform_pair(second),
        }));
        let (first, second) = performed.unwrap_or((Err(Errno::EIO), Err(Errno::EIO)));
        let second = self.second.map(|assignment| (assignment, raw(second)));
        Done { first: (self.first, raw(first)), second }
    }
}

impl State {
    fn has_next_in_order(&self) -> bool {
        !self.is_in_order_busy && !self.in_order.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_until_closing(&self) {
        loop {
            let mut state = self.lock();
            while state.queue.is_empty() && !state.has_next_in_order() {
                if state.is_closing {
                    return;
                }
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
            drop(state);
            self.perform_one();
        }
    }

    fn perform_one(&self) {
        let mut state = self.lock();
        let is_in_order = state.has_next_in_order();
        let next = if is_in_order { &mut state.in_order } else { &mut state.queue };
        let Some(work) = next.pop_front() else { return };
        state.is_in_order_busy |= is_in_order;
        state.busy += 1;
        drop(state);
        let done = work.perform();
        let mut state = self.lock();
        state.busy -= 1;
        state.is_in_order_busy &= !is_in_order;
        state.done.push(done);
        drop(state);
        self.wake.wake();
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        let is_stuck = state.busy > 0;
        drop(state);
        self.shared.work.notify_all();
        for thread in self.threads.drain(..).filter(|_| !is_stuck) {
            // A helper that panicked outside an operation has nothing left to wait for.
            let _ = thread.join();
        }
    }
}
