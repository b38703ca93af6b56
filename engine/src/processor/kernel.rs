//! The kernel processor: operations become submission queue entries, and completions events.
//!
//! What has no opcode (cloning, listing a directory, changing an owner …) goes to a few helper
//! threads; where the kernel lacks an opcode that others have, its operations go there, too.

#![allow(unsafe_code, reason = "a home of unsafe: what is pushed to the kernel")]

use std::iter;
use std::mem::{self, ManuallyDrop};
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::encode::{Opcodes, encode, encode_poll, writable};
use super::finish::{complete, finish, insert_chain, raw, tell_part};
use super::groups::Groups;
use super::helpers::{Done, Helpers, start_pair};
use super::slots::{Entry as SlotEntry, Link, Side, Slots};
use super::threads::{RegisteredFiles, epoch, nanoseconds, wall_clock};
use super::timers::Timers;
use super::{Capabilities, Counters, EngineKind, Full, OperationProcessor, Wake, receive_arena};
use crate::buffer::{Arena, BufferPool, ReceivePool, Registered};
use crate::error::{Errno, Error};
use crate::limits::{DRAIN_TIMEOUT, REGISTERED_FILES_MAX, RETRIES_MAX, SLOTS_MAX, SLOTS_MIN};
use crate::operation::{
    self, Accept, Address, Attempt, Chain, Close, CompletionEventQueue, Descriptor, File,
    FileStatus, Handle, MakeSocket, Operation, OperationId, Part, ProcessorIdentity,
    RegisteredFile, Socket, Token, ZeroCopy,
};
use crate::sys::ring::{Completion, Ring};
use crate::sys::socket;
use crate::units::{Moment, WallTime};

/// Performs operations through one io_uring.
pub struct KernelProcessor {
    /// Closed last of all that the kernel uses, and leaked where it could not be drained.
    ring: ManuallyDrop<Ring>,
    slots: ManuallyDrop<Slots>,
    /// Memory that the ring knows; kept until the ring is closed.
    arenas: ManuallyDrop<Vec<Arc<Arena>>>,
    /// Memory that the ring takes when something is received.
    groups: ManuallyDrop<Groups>,
    helpers: Helpers,
    /// What the helpers have done, before it is looked at. Kept for its room.
    done: Vec<Done>,
    /// Timeouts of what the helpers perform.
    timers: Timers,
    opcodes: Opcodes,
    bell: Arc<Bell>,
    /// Whether the ring watches the bell.
    is_bell_watched: bool,
    /// Whether somebody outside may ring it.
    is_waker_shared: std::cell::Cell<bool>,
    /// Whether somebody waits elsewhere: then each turn enters, as what has completed is heard of once,
    /// when the kernel's list of such work was empty before (`io_req_local_work_add`).
    is_notifying: bool,
    /// Operations that a helper has.
    assigned: u32,
    /// Cancels that the submission queue had no room for.
    cancels: Vec<OperationId>,
    /// Slots whose operation a signal interrupted, to be begun again.
    interrupted: Vec<u32>,
    /// Operations on sockets that the ring does not have: those that it ended and that go on, and those
    /// that wait for a buffer.
    unarmed: Vec<OperationId>,
    /// Slots whose operation the ring watched, and what came of that.
    watched: Vec<(u32, i32)>,
    ready: CompletionEventQueue,
    files: Option<RegisteredFiles>,
    has_registered_buffer: bool,
    identity: ProcessorIdentity,
    capabilities: Capabilities,
    epoch: Instant,
    /// Completions that named nobody: late, or sent twice.
    stale: u64,
    /// Operations that went to helpers for want of an opcode.
    fall_backs: u64,
    drain_timeout: Duration,
}

/// Wakes the ring: helpers ring it when something is done.
struct Bell {
    event: EventFd,
    /// Whether someone wants the wait to end.
    by_waker: AtomicBool,
    /// Rung as well. The ring would do it when it sees the bell rung, but not reliably: an eventfd
    /// that is written to from within the write to another is written to once (`__io_eventfd_signal`,
    /// seen on Linux 6.18).
    elsewhere: OnceLock<Arc<EventFd>>,
}

/// Ends the wait of a kernel processor.
struct BellWaker(Arc<Bell>);

/// What a completion's `user_data` means, in its top four bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u64)]
enum Kind {
    Operation = 1,
    Cancel = 2,
    Bell = 3,
}

impl KernelProcessor {
    /// A processor with room for `capacity` operations, or fewer where memory is short, and up to
    /// `helper_threads` helpers.
    ///
    /// # Errors
    ///
    /// As `io_uring_setup(2)` answers; `EOPNOTSUPP` if the kernel's rings lack what is needed.
    pub fn new(capacity: u32, helper_threads: usize) -> Result<Self, Errno> {
        let ring = Ring::new(capacity.clamp(SLOTS_MIN, SLOTS_MAX))?;
        if !ring.has_what_is_needed() {
            return Err(Errno::EOPNOTSUPP);
        }
        let opcodes = Opcodes::probe(&ring.probe()?);
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags)?;
        let (by_waker, elsewhere) = (AtomicBool::new(false), OnceLock::new());
        let bell = Arc::new(Bell { event, by_waker, elsewhere });
        let wake: Arc<dyn Wake> = Arc::<Bell>::clone(&bell);
        let slots = Slots::new(ring.entries().min(SLOTS_MAX));
        let has_table = ring.register_file_table(REGISTERED_FILES_MAX).is_ok();
        let features = ring.features().to_vec();
        Ok(Self {
            ring: ManuallyDrop::new(ring),
            helpers: Helpers::new(helper_threads, slots.capacity(), wake),
            done: Vec::with_capacity(slots.capacity()),
            slots: ManuallyDrop::new(slots),
            arenas: ManuallyDrop::default(),
            groups: ManuallyDrop::default(),
            timers: Timers::default(),
            opcodes,
            bell,
            is_bell_watched: false,
            is_waker_shared: std::cell::Cell::new(false),
            is_notifying: false,
            assigned: 0,
            cancels: Vec::new(),
            interrupted: Vec::new(),
            unarmed: Vec::new(),
            watched: Vec::new(),
            ready: CompletionEventQueue::default(),
            files: has_table.then(RegisteredFiles::default),
            has_registered_buffer: false,
            identity: ProcessorIdentity::new(),
            capabilities: Capabilities { engine: EngineKind::Uring, reason: None, features },
            epoch: epoch(),
            stale: 0,
            fall_backs: 0,
            drain_timeout: DRAIN_TIMEOUT,
        })
    }

    /// How many completions named an operation that had ended: each a bug, and harmless.
    #[must_use]
    pub fn stale_completions(&self) -> u64 {
        self.stale
    }

    /// How long dropping the processor waits for what is in flight. What takes longer is leaked.
    pub fn set_drain_timeout(&mut self, timeout: Duration) {
        self.drain_timeout = timeout;
    }

    /// Works from now on as if the kernel had no opcodes for sockets: they are watched, and attempted
    /// by system calls. For tests.
    pub fn forget_socket_opcodes(&mut self) {
        self.opcodes.forget_sockets();
    }

    /// Makes the entry for a slot's operation in the ring's vacant place number `place`; none if a
    /// helper is to perform it.
    #[inline(always)]
    fn encode(&mut self, index: u32, previous: Option<u32>, place: usize) -> Option<&mut Entry> {
        let Self { slots, ring, opcodes, identity, .. } = self;
        let lent = previous.and_then(|previous| match slots.prepare(previous).0 {
            Operation::Read(read) => writable(&mut read.buffer, *identity),
            _ => None,
        });
        let entry = &mut ring.vacant()[place];
        let user_data = user_data(Kind::Operation, slots.id(index));
        let has_parts = slots.entry(index).has_parts;
        let (operation, side) = slots.prepare(index);
        if has_parts {
            look_at_zero_copy(operation, opcodes);
        }
        encode(operation, side, lent, opcodes, *identity, entry)?;
        entry.set_user_data(user_data);
        Some(entry)
    }

    /// Encodes a chain's members, and counts them; none if one of them is for a helper: then we
    /// run the chain.
    fn encode_chain(&mut self, head: u32) -> Option<usize> {
        let mut length = 0;
        let mut previous = None;
        let mut next = Some(head);
        while let Some(index) = next {
            next = self.slots.entry(index).link.and_then(|link| link.next);
            let link = match next.map(|next| Chain::runs_anyway(self.slots.prepare(next).0)) {
                None => Flags::empty(),
                Some(false) => Flags::IO_LINK,
                Some(true) => Flags::IO_HARDLINK,
            };
            let entry = self.encode(index, previous, length)?;
            *entry = entry.clone().flags(link);
            length += 1;
            previous = Some(index);
        }
        Some(length)
    }

    /// Attempts an operation on sockets; if it would have to wait, has the ring watch for it.
    fn attempt(&mut self, index: u32) {
        match operation::attempt(self.slots.prepare(index).0) {
            Attempt::Ended(result) => return self.complete(index, raw(result)),
            Attempt::Part(number, part) => {
                tell_part(&self.slots, index, number, part, &mut self.ready);
            }
            Attempt::Blocked | Attempt::Starved => {}
        }
        self.slots.entry_mut(index).is_polled = true;
        self.unarmed.push(self.slots.id(index));
    }

    /// Gives operations on sockets back to the ring, as far as they can go on.
    fn rearm(&mut self) {
        self.groups.offer();
        if self.unarmed.is_empty() {
            return;
        }
        for id in mem::take(&mut self.unarmed) {
            let Some(index) = self.slots.find(id) else { continue };
            if self.slots.entry(index).cancel_requested {
                self.complete(index, raw(Err(Errno::ECANCELED)));
            } else if !self.has_buffers(index) || !self.make_room(1) {
                self.unarmed.push(id);
            } else if self.arm(index).is_none() {
                self.complete(index, raw(Err(Errno::EBADF)));
            }
        }
    }

    /// Whether there is a buffer for what an operation receives, if it takes one then.
    fn has_buffers(&self, index: u32) -> bool {
        let Operation::ReceiveMany(it) = self.slots.operation(index) else { return true };
        match Groups::of(&it.pool, self.identity.0) {
            Some(group) if !self.slots.entry(index).is_polled => self.groups.has_offered(group),
            _ => it.pool.has_free(),
        }
    }

    /// Pushes the entry of an operation on sockets, or one that watches for it.
    fn arm(&mut self, index: u32) -> Option<()> {
        if self.slots.entry(index).is_polled {
            let user_data = user_data(Kind::Operation, self.slots.id(index));
            let Self { slots, ring, .. } = self;
            let entry = ring.vacant().first_mut()?;
            let (operation, side) = slots.prepare(index);
            encode_poll(operation, side, entry)?;
            entry.set_user_data(user_data);
        } else {
            self.encode(index, None, 0)?;
        }
        self.stage(1);
        Some(())
    }

    /// Begins what the kernel has no opcode for, and sets the alarm of the timeout behind it.
    fn begin_without_opcode(&mut self, index: u32) {
        let next = self.slots.entry(index).link.and_then(|link| link.next);
        if let Some(next) = next
            && let Operation::LinkTimeout(timeout) = self.slots.prepare(next).0
        {
            let moment = Moment(nanoseconds(self.epoch)) + timeout.duration;
            self.timers.set(moment, self.slots.id(next), &self.slots);
        }
        if self.slots.operation(index).is_of_sockets() {
            return self.attempt(index);
        }
        self.assigned += 1;
        self.fall_backs += 1;
        self.helpers.start(index, self.slots.assign(index));
    }

    /// Takes an operation back that no helper has begun; false if one has.
    fn withdraw(&mut self, index: u32) -> bool {
        let Some((first, second)) = self.helpers.withdraw(index) else { return false };
        for assignment in iter::once(first).chain(second) {
            self.slots.settle(assignment);
            self.assigned -= 1;
        }
        true
    }

    /// Ends what the ring did not perform, and begins what is linked to it.
    fn complete(&mut self, index: u32, result: i32) {
        if let Some(next) = complete(&mut self.slots, index, result, &mut self.ready) {
            self.begin_without_opcode(next);
        }
    }

    fn ring_alarms(&mut self) {
        while self.timers.next().is_some() {
            let Some(id) = self.timers.due(self.now()) else { return };
            let Some(index) = self.slots.find(id) else { continue };
            let SlotEntry { link: Some(Link { head, .. }), result: None, .. } =
                *self.slots.entry(index)
            else {
                continue;
            };
            if self.slots.entry(head).is_polled {
                finish(&mut self.slots, index, raw(Err(Errno::ETIME)), &mut self.ready);
                self.cancel(self.slots.id(head));
            } else if self.withdraw(head) {
                finish(&mut self.slots, index, raw(Err(Errno::ETIME)), &mut self.ready);
                self.complete(head, raw(Err(Errno::ECANCELED)));
            }
        }
    }

    /// Whether there is room for `count` entries, made by submitting if need be.
    #[inline]
    fn make_room(&mut self, count: usize) -> bool {
        self.ring.vacant().len() >= count
            || (self.submit_only().is_ok() && self.ring.vacant().len() >= count)
    }

    /// Gives the kernel the entries that were encoded last.
    #[inline]
    fn stage(&mut self, count: usize) {
        // SAFETY: the kernel may use every pointer in an entry until it posts the last completion
        // with the entry's `user_data`. Until then each of them stays good:
        // * Alive. The slot owns the operation, and the operation its buffers and files; `encode`
        //   takes pointers from nothing else but the slot's side storage. Only a completion without
        //   IORING_CQE_F_MORE takes the operation out (`on_completion`).
        // * Still. Buffers lie on the heap or in an arena; slots are a fixed array. Neither moves.
        // * Alone. `Slots` lends out no reference to an operation that the kernel was shown.
        // * To the end. `Drop` reaps until no slot is held, and leaks ring, slots and arenas if it
        //   cannot; closing the ring does not wait for the kernel.
        // Cancelling changes nothing: a cancelled operation posts a completion, too.
        // Source: io_uring_enter(2); axboe/liburing issue 733.
        unsafe { self.ring.stage(count) };
    }

    fn submit_only(&mut self) -> Result<(), Errno> {
        self.ring.enter(0, None)
    }

    fn push_cancels(&mut self) {
        while let Some(id) = self.cancels.pop() {
            if self.slots.find(id).is_none() {
                continue;
            }
            let target = user_data(Kind::Operation, id);
            if !self.ring.push_cancel(target, user_data(Kind::Cancel, id)) {
                self.cancels.push(id);
                return;
            }
        }
    }

    fn watch_bell(&mut self) {
        let nobody = OperationId { index: 0, generation: 0 };
        if !self.is_bell_watched {
            let own = user_data(Kind::Bell, nobody);
            self.is_bell_watched = self.ring.push_poll(self.bell.event.as_fd(), own);
        }
    }

    /// Pushes what a wait depends on, and tells how many completions to wait for so that there are
    /// `at_least` events.
    fn completions_to_wait_for(&mut self, at_least: u32) -> u32 {
        self.push_cancels();
        let needs_bell = self.assigned > 0 || self.is_waker_shared.get();
        if needs_bell {
            self.watch_bell();
        }
        if !self.cancels.is_empty() || (needs_bell && !self.is_bell_watched) {
            // What found no room may be what ends the wait: it is pushed once this is submitted.
            return 0;
        }
        let ready = u32::try_from(self.ready.len()).unwrap_or(u32::MAX);
        // What waits for a buffer is nothing that a completion could come of.
        let unarmed = u32::try_from(self.unarmed.len()).unwrap_or(u32::MAX);
        let possible = match self.slots.held() {
            0 => 0,
            held => held - unarmed + u32::from(self.is_bell_watched),
        };
        let missing = at_least.saturating_sub(ready).min(possible);
        // The watch of the bell completes, too: it must not be counted as a result.
        if self.is_bell_watched { missing.min(1) } else { missing }
    }

    /// Takes what the ring and the helpers have completed; true if someone wants the wait to end.
    fn gather(&mut self) -> bool {
        let mut is_rung = false;
        self.ring.reap(|completion| {
            match on_completion(&mut self.slots, &mut self.groups, completion, &mut self.ready) {
                Reaped::Done => {}
                Reaped::Unarmed(index) => self.unarmed.push(self.slots.id(index)),
                Reaped::Watched(index, result) => self.watched.push((index, result)),
                Reaped::Interrupted(index) => self.interrupted.push(index),
                Reaped::Rung => is_rung = true,
                Reaped::Stale => self.stale += 1,
            }
        });
        if is_rung {
            self.is_bell_watched = false;
            // Empties the counter; it is non-blocking, and empty already is fine.
            let _ = self.bell.event.read();
        }
        while let Some(index) = self.interrupted.pop() {
            if !self.begin_again(index) {
                finish(&mut self.slots, index, raw(Err(Errno::EINTR)), &mut self.ready);
            }
        }
        while let Some((index, result)) = self.watched.pop() {
            if result >= 0 || result == raw(Err(Errno::ETIME)) {
                self.attempt(index);
            } else {
                self.complete(index, result);
            }
        }
        if self.assigned > 0 {
            self.collect_done();
        }
        if self.timers.next().is_some() {
            self.ring_alarms();
        }
        self.is_waker_shared.get() && self.bell.by_waker.swap(false, Ordering::Acquire)
    }

    fn collect_done(&mut self) {
        let mut done = mem::take(&mut self.done);
        self.helpers.take_done(&mut done);
        for Done { first: (first, result), second } in done.drain(..) {
            let index = self.slots.settle(first);
            self.assigned -= 1;
            let Some((second, second_result)) = second else {
                self.complete(index, result);
                continue;
            };
            let next = self.slots.settle(second);
            self.assigned -= 1;
            finish(&mut self.slots, index, result, &mut self.ready);
            finish(&mut self.slots, next, second_result, &mut self.ready);
        }
        self.done = done;
    }

    /// Pushes an operation once more that a signal interrupted; false if it shall end.
    fn begin_again(&mut self, index: u32) -> bool {
        let entry = self.slots.entry_mut(index);
        entry.retries += 1;
        let is_wanted = !entry.cancel_requested && entry.link.is_none();
        if !is_wanted || entry.retries > RETRIES_MAX || !self.make_room(1) {
            return false;
        }
        self.encode(index, None, 0).expect("it was encoded before");
        self.stage(1);
        true
    }

    /// Empties the slots of registered files that nobody has any more: until then the table keeps
    /// them open.
    fn empty_released_slots(&mut self) {
        let Some(files) = &mut self.files else { return };
        // Where the kernel refuses, the file stays open until its slot is filled again.
        files.reclaim(|index| {
            let _ = self.ring.register_file(index, None);
        });
    }

    /// Cancels what is in flight and waits for it; false if some is left.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + self.drain_timeout;
        for index in self.slots.held_indices() {
            let id = self.slots.id(index);
            self.cancel(id);
        }
        let mut refused = 0;
        while self.slots.held() > 0 {
            self.rearm();
            let wanted = self.completions_to_wait_for(1);
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return false;
            }
            match self.ring.enter(wanted, Some(patience)) {
                Ok(()) | Err(Errno::ETIME | Errno::EINTR | Errno::EBUSY | Errno::EAGAIN) => {}
                Err(_) => {
                    refused += 1;
                    if refused > RETRIES_MAX {
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            self.gather();
            while self.ready.pop().is_some() {}
        }
        true
    }
}

impl OperationProcessor for KernelProcessor {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        if !self.make_room(1) {
            return Err(Full(operation));
        }
        let index = self.slots.insert(operation, token).map_err(Full)?;
        let id = self.slots.id(index);
        match self.encode(index, None, 0) {
            Some(_) => self.stage(1),
            None => self.begin_without_opcode(index),
        }
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
        let index = self.slots.insert(operation, token).map_err(Full)?;
        self.assigned += 1;
        self.helpers.start_in_order(index, self.slots.assign(index));
        Ok(self.slots.id(index))
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        if self.slots.available() < chain.length() || !self.make_room(chain.length()) {
            return Err(Full(chain));
        }
        let head = insert_chain(&mut self.slots, chain, token);
        let id = self.slots.id(head);
        match self.encode_chain(head) {
            Some(length) => self.stage(length),
            None => self.begin_without_opcode(head),
        }
        Ok(id)
    }

    fn accept_chain_beside(
        &mut self,
        chain: Chain,
        token: Token,
    ) -> Result<OperationId, Full<Chain>> {
        if !chain.is_pair() || self.slots.available() < chain.length() {
            return self.accept_chain(chain, token);
        }
        let head = insert_chain(&mut self.slots, chain, token);
        self.assigned += 2;
        start_pair(&mut self.helpers, &mut self.slots, head);
        Ok(self.slots.id(head))
    }

    fn cancel(&mut self, id: OperationId) {
        let Some(index) = self.slots.find(id) else { return };
        self.slots.entry_mut(index).cancel_requested = true;
        if self.slots.is_assigned(index) {
            if self.withdraw(index) {
                self.complete(index, raw(Err(Errno::ECANCELED)));
            }
        } else if let Some(place) = self.unarmed.iter().position(|unarmed| *unarmed == id) {
            self.unarmed.remove(place);
            self.complete(index, raw(Err(Errno::ECANCELED)));
        } else if !self.cancels.contains(&id) {
            self.cancels.push(id);
        }
    }

    fn submit_and_wait(
        &mut self,
        at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error> {
        let mut refused = 0;
        self.empty_released_slots();
        loop {
            self.rearm();
            let until = [deadline, self.timers.next()].into_iter().flatten().min();
            let patience = until.map(|until| until.since(self.now()));
            let is_late = deadline.is_some_and(|deadline| deadline <= self.now());
            let wanted = if is_late { 0 } else { at_least };
            let wanted = self.completions_to_wait_for(wanted);
            let ready = self.ready.len();
            let unarmed = u32::try_from(self.unarmed.len()).unwrap_or(u32::MAX);
            let is_idle = self.ring.unsubmitted() == 0
                && self.slots.held() == self.assigned + unarmed
                && !self.is_notifying;
            if wanted == 0 && is_idle {
                self.gather();
                break;
            }
            let entered = self.ring.enter(wanted, patience);
            let is_woken = self.gather();
            let is_enough = self.ready.len() >= at_least as usize || self.slots.held() == 0;
            if self.ready.len() > ready {
                refused = 0;
            }
            match entered {
                Ok(()) if is_enough || is_late || is_woken => break,
                Ok(()) => {}
                Err(Errno::EINTR) => break,
                Err(Errno::ETIME) if is_enough || is_woken => break,
                Err(Errno::ETIME) => {}
                Err(errno @ (Errno::EAGAIN | Errno::EBUSY | Errno::ENOMEM)) => {
                    // The kernel is short of memory or its queue overflowed: what was reaped makes
                    // room. With nothing to reap, wait a moment rather than spin.
                    if is_enough {
                        break;
                    }
                    refused += 1;
                    if refused > RETRIES_MAX {
                        return Err(Error::from_errno("io_uring_enter", errno));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(errno) => return Err(Error::from_errno("io_uring_enter", errno)),
            }
        }
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
        let mut registered = None;
        if !self.has_registered_buffer {
            // SAFETY: `arenas` keeps the mapping until `Drop` has drained and closed the ring, or
            // leaks both.
            let result = unsafe { self.ring.register_buffer(arena.range()) };
            // Where it is refused (RLIMIT_MEMLOCK), plain reads and writes serve as well.
            if result.is_ok() {
                self.has_registered_buffer = true;
                registered = Some(Registered { ring: self.identity.0, index: 0 });
                self.arenas.push(Arc::clone(&arena));
            }
        }
        Ok(BufferPool::new(arena, count, block_bytes, registered))
    }

    fn receive_pool(&mut self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno> {
        let arena = receive_arena(count, block_bytes)?;
        // What came with Linux 6.0, as receiving many times did.
        if !self.opcodes.has_zero_copy() {
            return Ok(ReceivePool::new(arena, count, block_bytes, None));
        }
        let pool = self.groups.add(&self.ring, self.identity.0, (arena, count, block_bytes));
        self.groups.offer();
        Ok(pool)
    }

    fn register_file(&mut self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        let fd = file.map(File::fd).transpose()?;
        let files = self.files.as_mut().ok_or(Errno::EOPNOTSUPP)?;
        let (index, released) = files.take().ok_or(Errno::ENFILE)?;
        // Made first: if the kernel refuses, dropping it gives the number back.
        let file = RegisteredFile::new(self.identity, index, None, released);
        self.ring.register_file(index, fd)?;
        Ok(file)
    }

    fn release_files(&mut self) {
        self.empty_released_slots();
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.is_waker_shared.set(true);
        Arc::new(BellWaker(Arc::clone(&self.bell)))
    }

    fn next_alarm(&self) -> Option<Moment> {
        self.timers.next()
    }

    fn notify(&mut self, event: Arc<EventFd>) -> Result<Option<OwnedFd>, Errno> {
        self.ring.register_event(event.as_fd())?;
        self.bell.elsewhere.set(event).map_err(|_| Errno::EBUSY)?;
        self.is_notifying = true;
        Ok(None)
    }

    fn counters(&self) -> Counters {
        Counters { enters: self.ring.enters(), fall_backs: self.fall_backs, stale: self.stale }
    }
}

impl Drop for KernelProcessor {
    /// Cancels, then waits for everything in flight. What can't be waited for is leaked with the
    /// ring: closing it would not wait (`io_uring_release` only queues work).
    fn drop(&mut self) {
        if self.drain() {
            // What is left in the table would stay open for a while after the ring is closed, and
            // even after the process has ended.
            self.empty_released_slots();
            // SAFETY: each is dropped once, here, and not used afterwards. Nothing is in flight, so
            // the kernel uses neither the slots nor groups and arenas; the ring goes first.
            unsafe {
                ManuallyDrop::drop(&mut self.ring);
                ManuallyDrop::drop(&mut self.slots);
                ManuallyDrop::drop(&mut self.groups);
                ManuallyDrop::drop(&mut self.arenas);
            }
        } else {
            self.slots.count_leaked();
        }
    }
}

/// What a completion was.
enum Reaped {
    /// It was dealt with.
    Done,
    /// A signal interrupted the operation in this slot: it might be begun again.
    Interrupted(u32),
    /// The ring has ended the operation in this slot, which goes on.
    Unarmed(u32),
    /// The ring watched whether the operation in this slot can go on; this came of it.
    Watched(u32, i32),
    /// The bell rang.
    Rung,
    /// It named nobody.
    Stale,
}

#[inline(always)]
fn on_completion(
    slots: &mut Slots,
    groups: &mut Groups,
    completion: Completion,
    events: &mut CompletionEventQueue,
) -> Reaped {
    let (kind, id) = decode(completion.user_data);
    match kind {
        Some(Kind::Operation) => {}
        Some(Kind::Bell) => return Reaped::Rung,
        Some(Kind::Cancel) | None => return Reaped::Done,
    }
    let Some(index) = slots.find(id) else { return Reaped::Stale };
    let entry = slots.entry(index);
    if entry.is_polled {
        return Reaped::Watched(index, completion.result);
    }
    if entry.has_parts {
        return on_part(slots, groups, index, completion, events);
    }
    if completion.has_more() {
        return Reaped::Done;
    }
    let (operation, side) = slots.prepare(index);
    let result = land(operation, side, completion.result);
    if result < 0
        && let Some(reaped) = on_failure(slots, index, result)
    {
        return reaped;
    }
    finish(slots, index, result, events);
    Reaped::Done
}

/// What becomes of an operation that failed and shall not end.
#[cold]
fn on_failure(slots: &mut Slots, index: u32, result: i32) -> Option<Reaped> {
    let is_alone = slots.entry(index).link.is_none();
    match Errno::from_raw(-result) {
        Errno::EINTR => Some(Reaped::Interrupted(index)),
        // Some kernels do not wait on a socket that is non-blocking.
        Errno::EAGAIN if is_alone && slots.operation(index).is_of_sockets() => {
            slots.entry_mut(index).is_polled = true;
            Some(Reaped::Unarmed(index))
        }
        _ => None,
    }
}

/// Takes a completion of an operation that may have more of them.
fn on_part(
    slots: &mut Slots,
    groups: &mut Groups,
    index: u32,
    completion: Completion,
    events: &mut CompletionEventQueue,
) -> Reaped {
    let number = u32::try_from(completion.result).ok();
    let part = match slots.operation(index) {
        Operation::SendZeroCopy(_) => return on_sent(slots, index, completion, events),
        Operation::AcceptMany(_) => number.map(|_| {
            // SAFETY: the kernel has just made this descriptor for this operation, and nobody else
            // knows it: a completion is reaped once.
            let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
            Part::Socket(Socket::nonblocking(fd))
        }),
        Operation::ReceiveMany(it) => {
            // Returned if there is nothing in it: a completion that failed may name a buffer, too.
            let group = it.pool.group().map(|group| group.index);
            let block = completion.buffer().zip(group);
            let lease = block
                .and_then(|(block, group)| groups.take(group, block, number.unwrap_or_default()));
            lease.filter(|lease| !lease.is_empty()).map(Part::Bytes)
        }
        _ => None,
    };
    let is_empty = part.is_none();
    if let (Some(number), Some(part)) = (number, part) {
        let number = if let Part::Bytes(_) = part { number } else { 0 };
        tell_part(slots, index, number, part, events);
    }
    if completion.has_more() {
        return Reaped::Done;
    }
    match Errno::from_raw(-completion.result) {
        // The stream has ended.
        _ if number.is_some() && is_empty => {}
        // The kernel ends it when it likes: when its queue is full, say.
        _ if number.is_some() => return Reaped::Unarmed(index),
        // A buffer that comes back goes on with it. A connection that was aborted is none.
        Errno::ENOBUFS | Errno::EINTR | Errno::ECONNABORTED => return Reaped::Unarmed(index),
        Errno::EAGAIN => {
            // Blocks that the ring has can't be had for an attempt.
            let is_accept = matches!(slots.operation(index), Operation::AcceptMany(_));
            slots.entry_mut(index).is_polled = is_accept;
            return Reaped::Unarmed(index);
        }
        _ => {}
    }
    finish(slots, index, completion.result, events);
    Reaped::Done
}

/// Takes a completion of a zero-copy send: what came of it, or that its buffer is free.
fn on_sent(
    slots: &mut Slots,
    index: u32,
    completion: Completion,
    events: &mut CompletionEventQueue,
) -> Reaped {
    if let Some(was_copied) = completion.notification() {
        if let (true, Operation::SendZeroCopy(it)) = (was_copied, slots.operation(index)) {
            it.socket.note_zero_copy(ZeroCopy::Copied);
        }
        let result = slots.entry_mut(index).sent.take().unwrap_or_default();
        finish(slots, index, result, events);
        return Reaped::Done;
    }
    if !completion.has_more() {
        if completion.result < 0
            && let Some(reaped) = on_failure(slots, index, completion.result)
        {
            return reaped;
        }
        finish(slots, index, completion.result, events);
        return Reaped::Done;
    }
    // Also a send that failed has its buffer until the notification (`io_uring_prep_send_zc(3)`).
    slots.entry_mut(index).sent = Some(completion.result);
    if let (Ok(number), None) = (u32::try_from(completion.result), slots.entry(index).link) {
        tell_part(slots, index, number, Part::Nothing, events);
    }
    Reaped::Done
}

/// Finds out, once for each socket, whether a send could leave the bytes where they are. To this
/// machine it can't: the receiver would read them from the sender's memory.
fn look_at_zero_copy(operation: &Operation, opcodes: &Opcodes) {
    let Operation::SendZeroCopy(it) = operation else { return };
    if it.socket.zero_copy() != ZeroCopy::Unknown {
        return;
    }
    let peer = it.socket.fd().and_then(|fd| socket::address(fd, true)).and_then(Address::try_from);
    let is_possible = opcodes.has_zero_copy() && peer.is_ok_and(|peer| !peer.is_local());
    let verdict = if is_possible { ZeroCopy::Possible } else { ZeroCopy::Copied };
    it.socket.note_zero_copy(verdict);
}

/// Takes what the kernel brought into the operation, so that the operation owns it. Returns the
/// result that is the same on every processor.
fn land(operation: &mut Operation, side: &mut Side, result: i32) -> i32 {
    if let Operation::Close(close) = operation {
        return land_close(close, result);
    }
    if result < 0 {
        return result;
    }
    match operation {
        Operation::Open(open) if open.slot.is_none() => {
            // SAFETY: the kernel has just made this descriptor for this operation, and nobody else
            // knows it: a completion is reaped once.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            open.file = Some(File::from_fd(fd));
            return 0;
        }
        Operation::MakeSocket(MakeSocket { socket, .. })
        | Operation::Accept(Accept { socket, .. }) => {
            // SAFETY: as above.
            let fd = unsafe { OwnedFd::from_raw_fd(result) };
            *socket = Some(Socket::nonblocking(fd));
            return 0;
        }
        Operation::Statx(statx) => statx.status = Some(Box::new(FileStatus::from(&side.status))),
        _ => {}
    }
    result
}

/// A descriptor is gone even if closing it failed (`close(2)`, NOTES), unless it never began.
fn land_close(close: &mut Close, result: i32) -> i32 {
    if result == raw(Err(Errno::ECANCELED)) {
        return result;
    }
    let descriptor = close.handle.take().and_then(Handle::into_descriptor);
    if let Some(fd) = descriptor.and_then(Descriptor::into_fd) {
        // The kernel has closed it; the number may be another file's by now.
        let _ = fd.into_raw_fd();
    }
    if result == raw(Err(Errno::EINTR)) { 0 } else { result }
}

fn user_data(kind: Kind, id: OperationId) -> u64 {
    (kind as u64) << 60 | u64::from(id.generation) << 32 | u64::from(id.index)
}

fn decode(user_data: u64) -> (Option<Kind>, OperationId) {
    let kind = match user_data >> 60 {
        1 => Some(Kind::Operation),
        2 => Some(Kind::Cancel),
        3 => Some(Kind::Bell),
        _ => None,
    };
    let generation = u32::try_from(user_data >> 32 & 0x0fff_ffff).expect("28 bits");
    let index = u32::try_from(user_data & 0xffff_ffff).expect("32 bits");
    (kind, OperationId { index, generation })
}

impl Wake for Bell {
    fn wake(&self) {
        // It fails only if the counter is full, and then it rings already.
        let _ = self.event.write(1);
        if let Some(event) = self.elsewhere.get() {
            let _ = event.write(1);
        }
    }
}

impl Wake for BellWaker {
    fn wake(&self) {
        self.0.by_waker.store(true, Ordering::Release);
        self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use io_uring::opcode::Nop;
    use nix::libc;

    use super::*;
    use crate::operation::{AcceptMany, End, Released, SendZeroCopy, Timeout};

    /// Of the kernel's `io_uring.h`: IORING_CQE_F_MORE, IORING_CQE_F_NOTIF.
    const MORE: u32 = 2;
    const NOTIFICATION: u32 = 8;

    #[test]
    fn a_completion_that_names_an_ended_operation_is_counted_and_harmless() {
        let Ok(mut kernel) = KernelProcessor::new(8, 1) else { return };
        let mut events = CompletionEventQueue::default();
        let ended = kernel.accept(Operation::Nop, Token::default()).unwrap();
        kernel.submit_and_wait(1, None, &mut events).unwrap();
        let never = Timeout { duration: Duration::from_secs(3600) };
        let running = kernel.accept(never.into(), Token::default()).unwrap();
        assert_eq!(ended.index, running.index, "the slot is used again");
        let nowhere = OperationId { index: u32::MAX, generation: 0 };
        for stale in [ended, nowhere] {
            let user_data = user_data(Kind::Operation, stale);
            kernel.ring.vacant()[0] = Nop::new().build().user_data(user_data);
            kernel.stage(1);
        }
        kernel.submit_and_wait(0, None, &mut events).unwrap();
        assert_eq!(kernel.stale_completions(), 2);
        assert_eq!(kernel.in_flight(), 1, "the slot's operation goes on");
    }

    #[test]
    fn a_completion_with_more_to_come_keeps_the_slot() {
        let mut slots = Slots::new(8);
        let mut events = CompletionEventQueue::default();
        let index = slots.insert(Operation::Nop, Token::default()).unwrap();
        let user_data = user_data(Kind::Operation, slots.id(index));
        let mut groups = Groups::default();
        let more = Completion::new(user_data, 0, MORE);
        on_completion(&mut slots, &mut groups, more, &mut events);
        assert_eq!((slots.held(), events.len()), (1, 0), "the kernel is not done with it");
        let last = Completion::new(user_data, 0, 0);
        on_completion(&mut slots, &mut groups, last, &mut events);
        assert_eq!((slots.held(), events.len()), (0, 1));
    }

    /// What a slot table tells of completions that a kernel could have written.
    fn reap(operation: impl Into<Operation>, completions: &[(i32, u32)]) -> Vec<String> {
        let mut slots = Slots::new(8);
        let mut events = CompletionEventQueue::default();
        let index = slots.insert(operation.into(), Token::default()).unwrap();
        let user_data = user_data(Kind::Operation, slots.id(index));
        let mut told = Vec::new();
        for (result, flags) in completions {
            let completion = Completion::new(user_data, *result, *flags);
            let reaped = on_completion(&mut slots, &mut Groups::default(), completion, &mut events);
            let is_unarmed = matches!(reaped, Reaped::Unarmed(_));
            let events = std::iter::from_fn(|| events.pop()).map(|event| match event.end {
                End::More(_) => format!("part {:?}", event.result.unwrap()),
                End::Last(_) => format!("last {:?}", event.result.map_err(|error| error.errno)),
            });
            let events: Vec<_> = events.collect();
            told.push(format!("{} held {is_unarmed} {}", slots.held(), events.join(" ")));
        }
        told
    }

    fn zero_copy() -> SendZeroCopy {
        SendZeroCopy::new(&Socket::simulated(0, Released::default()), vec![0; 9])
    }

    #[test]
    fn the_buffer_of_a_zero_copy_send_is_held_until_its_notification() {
        let sent = reap(zero_copy(), &[(5, MORE), (0, NOTIFICATION)]);
        assert_eq!(sent, ["1 held false part 5", "0 held false last Ok(5)"]);
        let failed = reap(zero_copy(), &[(-libc::EPIPE, MORE), (0, NOTIFICATION)]);
        assert_eq!(failed, ["1 held false ", "0 held false last Err(EPIPE)"]);
        let copied = reap(zero_copy(), &[(5, 0)]);
        assert_eq!(copied, ["0 held false last Ok(5)"], "there is no notification");
    }

    #[test]
    fn an_operation_that_completes_many_times_keeps_its_slot_until_it_fails() {
        let listener = Socket::simulated(0, Released::default());
        let fd = || {
            let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).unwrap();
            OwnedFd::from(event).into_raw_fd()
        };
        let ended_by_the_kernel = [(fd(), MORE), (fd(), 0), (-libc::ECANCELED, 0)];
        assert_eq!(
            reap(AcceptMany { listener }, &ended_by_the_kernel),
            ["1 held false part 0", "1 held true part 0", "0 held false last Err(ECANCELED)"],
        );
    }

    #[test]
    fn zero_copy_is_given_up_on_a_socket_where_the_kernel_copies() {
        let Ok(mut kernel) = KernelProcessor::new(8, 1) else { return };
        if !kernel.opcodes.has_zero_copy() {
            return;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _server = listener.accept().unwrap();
        let socket = Socket::from_fd(client.into());
        // As if nobody knew that this is the loopback device.
        socket.note_zero_copy(ZeroCopy::Possible);
        let mut counts = Vec::new();
        for _ in 0..2 {
            let send = SendZeroCopy::new(&socket, vec![7; 5000]);
            kernel.accept(send.into(), Token::default()).unwrap();
            let mut events = CompletionEventQueue::default();
            let mut count = 0;
            while kernel.in_flight() > 0 {
                kernel.submit_and_wait(1, None, &mut events).unwrap();
                while let Some(event) = events.pop() {
                    assert_eq!(event.result, Ok(5000));
                    count += 1;
                }
            }
            counts.push(count);
        }
        assert_eq!(counts, [2, 1], "the second is a plain send");
        assert_eq!(socket.zero_copy(), ZeroCopy::Copied);
    }
}
