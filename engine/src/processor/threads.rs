//! The thread processor: every operation, by system calls, where io_uring is blocked or would not
//! help.
//!
//! With no threads it performs each operation in the caller's turn: a worker for small warm files
//! is the same job on it, for the price of a match.

use std::collections::VecDeque;
use std::iter;
use std::mem;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::finish::{complete, finish, insert_chain, raw, tell_part};
use super::helpers::{Done, Helpers, start_pair};
use super::readiness::Readiness;
use super::slots::{Entry, Link, Slots};
use super::timers::Timers;
use super::{Capabilities, EngineKind, Full, OperationProcessor, Wake, receive_arena};
use crate::buffer::{Arena, BufferPool, ReceivePool};
use crate::error::{Errno, Error};
use crate::limits::{
    CONNECT_AGAIN_AFTER, DRAIN_TIMEOUT, HELPER_THREADS_MAX, REGISTERED_FILES_MAX, SLOTS_MAX,
    SLOTS_MIN,
};
use crate::operation::{
    self, Address, Attempt, Chain, CompletionEventQueue, Connect, File, Operation, OperationError,
    OperationId, PollEvents, ProcessorIdentity, RegisteredFile, Released, Token,
};
use crate::units::{Moment, WallTime};

/// Performs operations with system calls: on helper threads, or in the caller's turn.
pub struct ThreadProcessor {
    helpers: Option<Helpers>,
    /// What the helpers have done, before it is looked at. Kept for its room.
    done: Vec<Done>,
    /// Operations to perform in the caller's turn, where there are no helpers.
    queue: VecDeque<OperationId>,
    /// Operations on sockets to attempt: those that are new, and those whose socket is ready.
    attempts: VecDeque<OperationId>,
    /// Operations that wait for a buffer.
    starved: Vec<OperationId>,
    /// Operations that wait for their sockets, once there is one.
    readiness: Option<Readiness>,
    timers: Timers,
    slots: Slots,
    bell: Arc<Bell>,
    /// Events that were ready before anybody waited.
    ready: CompletionEventQueue,
    files: RegisteredFiles,
    capabilities: Capabilities,
    epoch: Instant,
    drain_timeout: Duration,
    identity: ProcessorIdentity,
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
    /// For waits in an epoll set, once there is one.
    event: OnceLock<EventFd>,
    /// Rung as well, for who waits for it beside other descriptors.
    elsewhere: OnceLock<Arc<EventFd>>,
}

/// Who rang.
#[derive(Clone, Copy, Default)]
struct Rung {
    /// A helper: something was done.
    by_helper: bool,
    /// Someone who wants the wait to end.
    by_waker: bool,
    /// Whether the wait is in an epoll set.
    is_in_set: bool,
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
        let slots = Slots::new(capacity.clamp(SLOTS_MIN, SLOTS_MAX));
        Self {
            helpers: (threads > 0).then(|| Helpers::new(threads, slots.capacity(), wake)),
            done: Vec::with_capacity(slots.capacity()),
            queue: VecDeque::with_capacity(slots.capacity()),
            attempts: VecDeque::new(),
            starved: Vec::new(),
            readiness: None,
            timers: Timers::default(),
            slots,
            bell,
            ready: CompletionEventQueue::default(),
            files: RegisteredFiles::default(),
            capabilities: Capabilities {
                engine: EngineKind::Threads,
                reason: None,
                features: Vec::new(),
            },
            epoch: epoch(),
            drain_timeout: DRAIN_TIMEOUT,
            identity: ProcessorIdentity::new(),
        }
    }

    /// The same, with the reason why io_uring is not used.
    #[must_use]
    pub fn with_reason(mut self, reason: impl Into<String>) -> Self {
        self.capabilities.reason = Some(reason.into());
        self
    }

    /// How long dropping the processor waits for what the helpers have begun. What takes longer is
    /// leaked.
    pub fn set_drain_timeout(&mut self, timeout: Duration) {
        self.drain_timeout = timeout;
    }

    fn begin(&mut self, index: u32) {
        let id = self.slots.id(index);
        if let Some(next) = self.slots.entry(index).link.and_then(|link| link.next) {
            self.set_alarm(next);
        }
        if self.set_alarm(index) {
            return;
        }
        if self.slots.operation(index).is_of_sockets() {
            self.attempts.push_back(id);
            return;
        }
        match &mut self.helpers {
            Some(helpers) => helpers.start(index, self.slots.assign(index)),
            None => self.queue.push_back(id),
        }
    }

    /// Sets the alarm of a timeout; false if it is something else.
    fn set_alarm(&mut self, index: u32) -> bool {
        let (Operation::Timeout(timeout) | Operation::LinkTimeout(timeout)) =
            self.slots.prepare(index).0
        else {
            return false;
        };
        let moment = Moment(nanoseconds(self.epoch)) + timeout.duration;
        self.timers.set(moment, self.slots.id(index), &self.slots);
        true
    }

    /// Ends an operation, and begins what is linked to it.
    fn complete(&mut self, index: u32, result: i32) {
        if let Some(next) = complete(&mut self.slots, index, result, &mut self.ready) {
            self.begin(next);
        }
    }

    /// Gives up an operation that has not begun; false if it has.
    fn withdraw(&mut self, index: u32) -> bool {
        let id = self.slots.id(index);
        if self.is_timer(index) {
            return true;
        }
        if !self.slots.is_assigned(index) && self.slots.operation(index).is_of_sockets() {
            // Nothing has begun that could not be given up.
            self.stop_waiting(index);
            self.attempts.retain(|queued| *queued != id);
            self.starved.retain(|starved| *starved != id);
            return true;
        }
        if let Some(helpers) = &mut self.helpers {
            let Some((first, second)) = helpers.withdraw(index) else { return false };
            for assignment in iter::once(first).chain(second) {
                self.slots.settle(assignment);
            }
            return true;
        }
        let before = self.queue.len();
        self.queue.retain(|queued| *queued != id);
        self.queue.len() < before
    }

    fn is_timer(&mut self, index: u32) -> bool {
        !self.slots.is_assigned(index)
            && matches!(self.slots.prepare(index).0, Operation::Timeout(_))
    }

    /// Whether an alarm means that an operation is attempted once more: others that have alarms are
    /// timeouts.
    fn is_to_be_attempted_again(&self, index: u32) -> bool {
        !self.slots.is_assigned(index) && self.slots.operation(index).is_of_sockets()
    }

    fn ring_alarms(&mut self) {
        while self.timers.next().is_some() {
            let Some(id) = self.timers.due(self.now()) else { return };
            let Some(index) = self.slots.find(id) else { continue };
            if self.is_timer(index) {
                self.complete(index, raw(Err(Errno::ETIME)));
            } else if self.is_to_be_attempted_again(index) {
                if self.stop_waiting(index) {
                    self.attempts.push_back(id);
                }
            } else if let Entry { link: Some(Link { head, .. }), result: None, .. } =
                *self.slots.entry(index)
                && self.withdraw(head)
            {
                finish(&mut self.slots, index, raw(Err(Errno::ETIME)), &mut self.ready);
                self.complete(head, raw(Err(Errno::ECANCELED)));
            }
        }
    }

    fn collect_done(&mut self) {
        let Some(helpers) = &mut self.helpers else { return };
        let mut done = mem::take(&mut self.done);
        helpers.take_done(&mut done);
        for Done { first: (first, result), second } in done.drain(..) {
            let index = self.slots.settle(first);
            let Some((second, second_result)) = second else {
                self.complete(index, result);
                continue;
            };
            let next = self.slots.settle(second);
            finish(&mut self.slots, index, result, &mut self.ready);
            finish(&mut self.slots, next, second_result, &mut self.ready);
        }
        self.done = done;
    }

    fn perform_queued(&mut self) {
        // What completes may begin what is linked to it, behind what is queued now.
        while let Some(id) = self.queue.pop_front() {
            let Some(index) = self.slots.find(id) else { continue };
            let result = operation::perform(self.slots.prepare(index).0);
            self.complete(index, raw(result));
        }
    }

    /// Ends an operation's wait for its socket; false if it does not wait.
    fn stop_waiting(&mut self, index: u32) -> bool {
        let Self { slots, readiness, .. } = self;
        if slots.is_assigned(index) {
            return false;
        }
        let waits_for = slots.operation(index).readiness();
        match (readiness, waits_for) {
            (Some(readiness), Some((descriptor, _))) => readiness.give_up(descriptor, index),
            _ => false,
        }
    }

    /// Attempts each operation on sockets whose turn it is, once: one that could go on for ever lets
    /// the others go first.
    fn attempt_queued(&mut self) {
        let starved = mem::take(&mut self.starved);
        for id in starved {
            match self.slots.find(id).map(|index| self.slots.operation(index)) {
                Some(Operation::ReceiveMany(it)) if !it.pool.has_free() => self.starved.push(id),
                _ => self.attempts.push_back(id),
            }
        }
        for _ in 0..self.attempts.len() {
            let Some(id) = self.attempts.pop_front() else { return };
            if let Some(index) = self.slots.find(id) {
                self.attempt(index);
            }
        }
    }

    fn attempt(&mut self, index: u32) {
        let Self { slots, readiness, .. } = self;
        let is_drained = match (readiness, slots.operation(index).readiness()) {
            (Some(readiness), Some((descriptor, PollEvents::READABLE))) => {
                readiness.is_drained(descriptor)
            }
            _ => false,
        };
        if is_drained {
            return self.await_ready(index);
        }
        match operation::attempt(self.slots.prepare(index).0) {
            Attempt::Blocked => self.await_ready(index),
            Attempt::Starved => self.starved.push(self.slots.id(index)),
            Attempt::Ended(result) => {
                self.note_received(index, result);
                self.complete(index, raw(result));
            }
            Attempt::Part(number, part) => {
                self.note_received(index, Ok(number));
                tell_part(&self.slots, index, number, part, &mut self.ready);
                self.attempts.push_back(self.slots.id(index));
            }
        }
    }

    /// Notes that a stream had no more than what was received.
    fn note_received(&mut self, index: u32, result: Result<u32, Errno>) {
        let Self { slots, readiness: Some(readiness), .. } = self else { return };
        let (socket, room) = match slots.operation(index) {
            Operation::Receive(it) if !it.is_peek => (&it.socket, it.length),
            Operation::ReceiveMany(it) => (&it.socket, it.pool.block_bytes()),
            _ => return,
        };
        if result.is_ok_and(|length| length > 0 && length < room) {
            readiness.note_drained(socket.shared());
        }
    }

    /// Has an operation wait until its socket is ready, or ends it if it can't.
    fn await_ready(&mut self, index: u32) {
        match self.try_to_await(index) {
            Ok(()) => {}
            Err(errno) => self.complete(index, raw(Err(errno))),
        }
    }

    /// The set that sockets are waited for in, made when it is needed.
    fn readiness(&mut self) -> Result<&mut Readiness, Errno> {
        if self.readiness.is_none() {
            self.readiness = Some(Readiness::new(self.bell.event()?.as_fd())?);
        }
        Ok(self.readiness.as_mut().expect("it was just made"))
    }

    /// Whether to look at the set: an operation waits, or else somebody who would find it readable
    /// for ever.
    fn looks_at_set(&self) -> bool {
        let is_awaited = self.readiness.as_ref().is_some_and(Readiness::is_awaited);
        is_awaited || self.bell.elsewhere.get().is_some()
    }

    fn try_to_await(&mut self, index: u32) -> Result<(), Errno> {
        self.readiness()?;
        let id = self.slots.id(index);
        let operation = self.slots.operation(index);
        // Nothing tells when a listener of this machine has room for one more to wait.
        if let Operation::Connect(Connect { address: Address::Unix(_), .. }) = operation {
            let soon = self.now() + CONNECT_AGAIN_AFTER;
            self.timers.set(soon, id, &self.slots);
        }
        let (descriptor, events) = operation.readiness().ok_or(Errno::EAGAIN)?;
        let readiness = self.readiness.as_mut().expect("it was made above");
        readiness.await_ready(descriptor, events, index)
    }

    fn gather(&mut self) {
        self.ring_alarms();
        self.collect_done();
        self.perform_queued();
        self.attempt_queued();
    }

    /// Waits for helpers and sockets; true if someone wants the wait to end.
    fn wait(&mut self, patience: Option<Duration>) -> Result<bool, Errno> {
        let looks_at_set = self.looks_at_set();
        let Some(readiness) = self.readiness.as_mut().filter(|_| looks_at_set) else {
            return Ok(self.bell.wait(patience));
        };
        let is_rung = self.bell.enter_set();
        let patience = if is_rung { Some(Duration::ZERO) } else { patience };
        let Self { attempts, slots, .. } = self;
        let waited = readiness.wait(patience, |index| attempts.push_back(slots.id(index)));
        let is_woken = self.bell.leave_set();
        waited.map(|()| is_woken)
    }

    /// How long a wait may last: until the deadline or the next alarm, and no time at all while
    /// something can go on.
    fn patience(&self, deadline: Option<Moment>) -> Option<Duration> {
        if !self.attempts.is_empty() {
            return Some(Duration::ZERO);
        }
        let until = [deadline, self.timers.next()].into_iter().flatten().min()?;
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

    fn accept_beside(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        // What waits for a socket keeps nobody busy.
        if operation.is_of_sockets() {
            return self.accept(operation, token);
        }
        let Some(helpers) = &mut self.helpers else { return self.accept(operation, token) };
        let index = self.slots.insert(operation, token).map_err(Full)?;
        helpers.start_in_order(index, self.slots.assign(index));
        Ok(self.slots.id(index))
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        if self.slots.available() < chain.length() {
            return Err(Full(chain));
        }
        let head = insert_chain(&mut self.slots, chain, token);
        let id = self.slots.id(head);
        self.begin(head);
        Ok(id)
    }

    fn accept_chain_beside(
        &mut self,
        chain: Chain,
        token: Token,
    ) -> Result<OperationId, Full<Chain>> {
        match &mut self.helpers {
            Some(helpers) if chain.is_pair() && self.slots.available() >= chain.length() => {
                let head = insert_chain(&mut self.slots, chain, token);
                start_pair(helpers, &mut self.slots, head);
                Ok(self.slots.id(head))
            }
            _ => self.accept_chain(chain, token),
        }
    }

    fn perform_inline(&mut self, operation: &mut Operation) -> Option<Result<u32, OperationError>> {
        let may_wait = matches!(operation, Operation::Timeout(_)) || operation.is_of_sockets();
        if self.helpers.is_some() || may_wait {
            return None;
        }
        Some(operation::perform(operation).map_err(OperationError::failed))
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
            let is_late = deadline.is_some_and(|deadline| self.now() >= deadline);
            let is_over = is_enough || is_late;
            if is_over && !self.looks_at_set() {
                break;
            }
            // Looked at also if there is enough: sockets must not wait for who is always ready.
            let patience = if is_over { Some(Duration::ZERO) } else { self.patience(deadline) };
            let is_woken = self.wait(patience).map_err(|it| Error::from_errno("epoll_wait", it))?;
            if is_over || is_woken {
                break;
            }
        }
        self.gather();
        events.append(&mut self.ready);
        Ok(())
    }

    fn in_flight(&self) -> u32 {
        self.slots.held() + u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }

    fn now(&self) -> Moment {
        Moment(nanoseconds(self.epoch))
    }

    fn wall_clock(&self) -> WallTime {
        wall_clock()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn buffer_pool(&mut self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        let arena = Arc::new(Arena::new(count, block_bytes)?);
        Ok(BufferPool::new(arena, count, block_bytes, None))
    }

    fn receive_pool(&mut self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno> {
        let arena = receive_arena(count, block_bytes)?;
        Ok(ReceivePool::new(arena, count, block_bytes, None))
    }

    fn register_file(&mut self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        let (index, released) = self.files.take().ok_or(Errno::ENFILE)?;
        Ok(RegisteredFile::new(self.identity, index, file.cloned(), released))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(BellWaker(Arc::clone(&self.bell)))
    }

    fn next_alarm(&self) -> Option<Moment> {
        self.timers.next()
    }

    fn notify(&mut self, event: Arc<EventFd>) -> Result<Option<OwnedFd>, Errno> {
        let set = self.readiness()?.share()?;
        self.bell.elsewhere.set(event).map_err(|_| Errno::EBUSY)?;
        Ok(Some(set))
    }
}

impl Drop for ThreadProcessor {
    /// Gives up what has not begun and waits for the rest. A helper that is stuck in the kernel is
    /// left behind with its operation, which `Slots` leaks.
    fn drop(&mut self) {
        for index in self.slots.held_indices() {
            let id = self.slots.id(index);
            self.cancel(id);
        }
        let deadline = self.now() + self.drain_timeout;
        self.collect_done();
        while self.slots.held() > 0 && self.now() < deadline {
            self.bell.wait(Some(deadline.since(self.now())));
            self.collect_done();
        }
    }
}

impl RegisteredFiles {
    /// A number that nobody uses.
    pub(super) fn take(&mut self) -> Option<(u32, Released)> {
        self.reclaim(|_| {});
        let index = self.free.pop().or_else(|| {
            let next = self.used;
            (next < REGISTERED_FILES_MAX).then(|| {
                self.used += 1;
                next
            })
        })?;
        Some((index, self.released.clone()))
    }

    /// Takes numbers back whose last owner is gone, after `empty` has emptied their slots.
    pub(super) fn reclaim(&mut self, mut empty: impl FnMut(u32)) {
        if self.used as usize > self.free.len() {
            let released = self.released.take();
            released.iter().for_each(|index| empty(*index));
            self.free.extend(released);
        }
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
        mem::take(&mut *rung).by_waker
    }

    fn ring(&self, who: impl FnOnce(&mut Rung)) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        who(&mut rung);
        let is_in_set = rung.is_in_set;
        drop(rung);
        self.changed.notify_all();
        if let Some(event) = self.elsewhere.get() {
            // It fails only if the counter is full, and then it is readable already.
            let _ = event.write(1);
        }
        if let (true, Some(event)) = (is_in_set, self.event.get()) {
            // It fails only if the counter is full, and then it rings already.
            let _ = event.write(1);
        }
    }

    /// What ends a wait in an epoll set.
    fn event(&self) -> Result<&EventFd, Errno> {
        if let Some(event) = self.event.get() {
            return Ok(event);
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags)?;
        Ok(self.event.get_or_init(|| event))
    }

    /// From here on whoever rings has to end a wait in an epoll set; true if somebody has rung.
    fn enter_set(&self) -> bool {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        rung.is_in_set = true;
        rung.by_helper || rung.by_waker
    }

    /// The wait is over; true if someone wanted it to end.
    fn leave_set(&self) -> bool {
        mem::take(&mut *self.rung.lock().unwrap_or_else(PoisonError::into_inner)).by_waker
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

/// When this process's monotonic clock began: the same for all its processors, so that they can keep
/// a rate together.
pub(super) fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Nanoseconds since `epoch`.
pub(super) fn nanoseconds(epoch: Instant) -> u64 {
    u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The calendar clock of the machine.
pub(super) fn wall_clock() -> WallTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: now.subsec_nanos(),
    }
}
