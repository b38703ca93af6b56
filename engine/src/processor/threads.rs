//! The thread processor: every operation, by system calls, where io_uring is blocked or would not
//! help.
//!
//! With no threads it performs each operation in the caller's turn: a worker for small warm files
//! is the same job on it, for the price of a match.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::finish::{finish, link, raw};
use super::helpers::Helpers;
use super::slots::Slots;
use super::{Capabilities, EngineKind, Full, OperationProcessor, Performed, Wake};
use crate::buffer::{Arena, Buffer, BufferPool};
use crate::error::{Errno, Error};
use crate::limits::{HELPER_THREADS_MAX, REGISTERED_FILES_MAX, SLOTS_MAX};
use crate::operation::{
    self, Chain, CompletionEventQueue, File, Operation, OperationError, OperationId,
    ProcessorIdentity, RegisteredFile, Released, Timeout, Token,
};
use crate::units::{Moment, WallTime};

/// Performs operations with system calls: on helper threads, or in the caller's turn.
pub struct ThreadProcessor {
    /// Dropped first: waits for what the helpers have begun.
    helpers: Option<Helpers>,
    /// Operations to perform in the caller's turn, where there are no helpers.
    queue: VecDeque<OperationId>,
    timers: BinaryHeap<Reverse<(Moment, Alarm)>>,
    slots: Slots,
    bell: Arc<Bell>,
    /// Events that were ready before anybody waited.
    ready: CompletionEventQueue,
    files: RegisteredFiles,
    capabilities: Capabilities,
    epoch: Instant,
    identity: ProcessorIdentity,
}

/// What a timer does when its time has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Alarm {
    index: u32,
    generation: u32,
}

/// The numbers of an emulated table of registered files.
#[derive(Debug, Default)]
pub(super) struct RegisteredFiles {
    used: u32,
    free: Vec<u32>,
    released: Released,
}

/// A wake-up that is not lost when it comes before the wait.
#[derive(Default)]
struct Bell {
    rung: Mutex<Rung>,
    changed: Condvar,
}

/// Who rang.
#[derive(Clone, Copy, Default)]
struct Rung {
    /// A helper: something was done.
    by_helper: bool,
    /// Someone who wants the wait to end.
    by_waker: bool,
}

/// Ends the wait of a thread processor.
struct BellWaker(Arc<Bell>);

impl ThreadProcessor {
    /// A processor with up to `threads` helpers that keeps up to `capacity` operations. With no
    /// helpers, operations are performed in the caller's turn.
    #[must_use]
    pub fn new(threads: usize, capacity: u32) -> Self {
        let bell = Arc::new(Bell::default());
        let threads = threads.min(HELPER_THREADS_MAX);
        let wake: Arc<dyn Wake> = Arc::<Bell>::clone(&bell);
        Self {
            helpers: (threads > 0).then(|| Helpers::new(threads, wake)),
            queue: VecDeque::new(),
            timers: BinaryHeap::new(),
            slots: Slots::new(capacity.clamp(1, SLOTS_MAX)),
            bell,
            ready: CompletionEventQueue::default(),
            files: RegisteredFiles::default(),
            capabilities: Capabilities {
                engine: EngineKind::Threads,
                reason: None,
                features: Vec::new(),
            },
            epoch: Instant::now(),
            identity: ProcessorIdentity::new(),
        }
    }

    /// The same, with the reason why io_uring is not used.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.capabilities.reason = Some(reason.into());
        self
    }

    fn begin(&mut self, index: u32) {
        let id = self.slots.id(index);
        let (operation, _) = self.slots.prepare(index);
        if let Operation::Timeout(Timeout { duration }) = operation {
            let duration = *duration;
            self.set_alarm(id, duration);
            return;
        }
        if let Some(duration) = self.timeout_behind(index) {
            self.set_alarm(id, duration);
        }
        match &mut self.helpers {
            Some(helpers) => helpers.start(index, self.slots.assign(index)),
            None => self.queue.push_back(id),
        }
    }

    /// The timeout of a chain member whose next member is one.
    fn timeout_behind(&mut self, index: u32) -> Option<Duration> {
        let next = self.slots.entry(index).link?.next?;
        match self.slots.prepare(next).0 {
            Operation::LinkTimeout(Timeout { duration }) => Some(*duration),
            _ => None,
        }
    }

    fn set_alarm(&mut self, id: OperationId, duration: Duration) {
        let alarm = Alarm { index: id.index, generation: id.generation };
        self.timers.push(Reverse((self.now() + duration, alarm)));
    }

    /// Ends an operation, and begins or ends what is linked to it.
    fn complete(&mut self, index: u32, result: i32) {
        let next = self.slots.entry(index).link.and_then(|link| link.next);
        if let Some(next) = next {
            let (member, _) = self.slots.prepare(index);
            let outcome = u32::try_from(result).map_err(drop);
            let is_broken = Chain::is_broken_by(member, outcome);
            self.follow(index, next, is_broken);
        }
        finish(&mut self.slots, index, result, &mut self.ready);
    }

    fn follow(&mut self, index: u32, next: u32, is_broken: bool) {
        if let Operation::LinkTimeout(_) = self.slots.prepare(next).0 {
            let fired = self.slots.entry(next).result.is_some();
            let behind = self.slots.entry(next).link.and_then(|link| link.next);
            if let Some(behind) = behind {
                self.follow(index, behind, is_broken);
            }
            if !fired {
                finish(&mut self.slots, next, raw(Err(Errno::ECANCELED)), &mut self.ready);
            }
        } else if is_broken {
            self.complete(next, raw(Err(Errno::ECANCELED)));
        } else {
            self.lend_buffer(index, next);
            self.begin(next);
        }
    }

    /// Moves the buffer of a member to the next, if the next has none of its own.
    fn lend_buffer(&mut self, index: u32, next: u32) {
        let is_borrower = matches!(
            self.slots.prepare(next).0,
            Operation::Write(write) if matches!(write.buffer, Buffer::OfPreviousMember)
        );
        if !is_borrower {
            return;
        }
        let Operation::Read(read) = self.slots.prepare(index).0 else { return };
        let buffer = std::mem::replace(&mut read.buffer, Buffer::OfPreviousMember);
        if let Operation::Write(write) = self.slots.prepare(next).0 {
            write.buffer = buffer;
        }
    }

    /// Gives up an operation that has not begun; false if it has.
    fn withdraw(&mut self, index: u32) -> bool {
        let id = self.slots.id(index);
        if self.is_timer(index) {
            return true;
        }
        if let Some(helpers) = &mut self.helpers {
            return helpers.withdraw(index).map(|it| self.slots.settle(it)).is_some();
        }
        let before = self.queue.len();
        self.queue.retain(|queued| *queued != id);
        self.queue.len() < before
    }

    fn is_timer(&mut self, index: u32) -> bool {
        !self.slots.is_assigned(index)
            && matches!(self.slots.prepare(index).0, Operation::Timeout(_))
    }

    fn ring_alarms(&mut self) {
        while let Some(Reverse((moment, alarm))) = self.timers.peek().copied() {
            if moment > self.now() {
                return;
            }
            self.timers.pop();
            let id = OperationId { index: alarm.index, generation: alarm.generation };
            let Some(index) = self.slots.find(id) else { continue };
            if self.is_timer(index) {
                self.complete(index, raw(Err(Errno::ETIME)));
            } else if self.withdraw(index) {
                if let Some(next) = self.slots.entry(index).link.and_then(|link| link.next) {
                    finish(&mut self.slots, next, raw(Err(Errno::ETIME)), &mut self.ready);
                }
                self.complete(index, raw(Err(Errno::ECANCELED)));
            }
        }
    }

    fn collect_done(&mut self) {
        let Some(helpers) = &mut self.helpers else { return };
        for (assignment, result) in helpers.take_done() {
            let index = self.slots.settle(assignment);
            self.complete(index, result);
        }
    }

    fn perform_queued(&mut self) {
        // What completes may begin what is linked to it, behind what is queued now.
        while let Some(id) = self.queue.pop_front() {
            let Some(index) = self.slots.find(id) else { continue };
            let result = operation::perform(self.slots.prepare(index).0);
            self.complete(index, raw(result));
        }
    }

    fn gather(&mut self) {
        self.ring_alarms();
        self.collect_done();
        self.perform_queued();
    }

    /// How long a wait may last: until the deadline or the next alarm.
    fn patience(&self, deadline: Option<Moment>) -> Option<Duration> {
        let alarm = self.timers.peek().map(|Reverse((moment, _))| *moment);
        let until = [deadline, alarm].into_iter().flatten().min()?;
        Some(until.since(self.now()))
    }
}

impl OperationProcessor for ThreadProcessor {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        let index = self.slots.insert(operation, token).map_err(Full)?;
        let id = self.slots.id(index);
        self.begin(index);
        Ok(id)
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        if self.slots.available() < chain.length() {
            return Err(Full(chain));
        }
        let members: Vec<u32> = chain
            .into_members()
            .map(|member| self.slots.insert(member, token).expect("room was checked"))
            .collect();
        link(&mut self.slots, &members);
        let id = self.slots.id(members[0]);
        self.begin(members[0]);
        Ok(id)
    }

    fn perform_inline(&mut self, mut operation: Operation) -> Result<Performed, Operation> {
        if self.helpers.is_some() || matches!(operation, Operation::Timeout(_)) {
            return Err(operation);
        }
        let result = operation::perform(&mut operation).map_err(OperationError::failed);
        Ok(Performed { result, operation })
    }

    fn cancel(&mut self, id: OperationId) {
        let Some(index) = self.slots.find(id) else { return };
        self.slots.entry_mut(index).cancel_requested = true;
        if self.slots.entry(index).result.is_none() && self.withdraw(index) {
            self.complete(index, raw(Err(Errno::ECANCELED)));
        }
    }

    fn submit_and_wait(
        &mut self,
        at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error> {
        loop {
            self.gather();
            let is_enough = self.ready.len() >= at_least as usize || self.slots.held() == 0;
            let patience = self.patience(deadline);
            let is_late = deadline.is_some_and(|deadline| self.now() >= deadline);
            if is_enough || is_late || self.bell.wait(patience) {
                break;
            }
        }
        self.gather();
        while let Some(event) = self.ready.pop() {
            events.push(event);
        }
        Ok(())
    }

    fn in_flight(&self) -> u32 {
        self.slots.held() + u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }

    fn now(&self) -> Moment {
        Moment(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall_clock(&self) -> WallTime {
        wall_clock()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn buffer_pool(&mut self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        let arena = Rc::new(Arena::new(count, block_bytes)?);
        Ok(BufferPool::new(arena, count, block_bytes, None))
    }

    fn register_file(&mut self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        let (index, released) = self.files.take().ok_or(Errno::ENFILE)?;
        Ok(RegisteredFile::new(self.identity, index, file.cloned(), released))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(BellWaker(Arc::clone(&self.bell)))
    }
}

impl Drop for ThreadProcessor {
    /// Gives up what has not begun and waits for the rest.
    fn drop(&mut self) {
        for index in self.slots.held_indices() {
            let id = self.slots.id(index);
            self.cancel(id);
        }
        for (assignment, result) in self.helpers.take().map(Helpers::drain).unwrap_or_default() {
            let index = self.slots.settle(assignment);
            finish(&mut self.slots, index, result, &mut self.ready);
        }
        // What is left was linked to what was cancelled and never begun.
        for index in self.slots.held_indices() {
            drop(self.slots.remove(index));
        }
    }
}

impl RegisteredFiles {
    /// A number that nobody uses.
    pub(super) fn take(&mut self) -> Option<(u32, Released)> {
        self.free.extend(self.released.take());
        let index = self.free.pop().or_else(|| {
            let next = self.used;
            (next < REGISTERED_FILES_MAX).then(|| {
                self.used += 1;
                next
            })
        })?;
        Some((index, self.released.clone()))
    }
}

impl Bell {
    /// Waits until it rings or the time is over; true if someone wants the wait to end.
    fn wait(&self, patience: Option<Duration>) -> bool {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if !rung.by_helper && !rung.by_waker {
            rung = match patience {
                None => self.changed.wait(rung).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.changed.wait_timeout(rung, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        std::mem::take(&mut *rung).by_waker
    }

    fn ring(&self, who: impl FnOnce(&mut Rung)) {
        who(&mut self.rung.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Wake for Bell {
    fn wake(&self) {
        self.ring(|rung| rung.by_helper = true);
    }
}

impl Wake for BellWaker {
    fn wake(&self) {
        self.0.ring(|rung| rung.by_waker = true);
    }
}

/// The calendar clock of the machine.
pub(super) fn wall_clock() -> WallTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: now.subsec_nanos(),
    }
}
