//! The simulated processor: files and a network in memory, virtual time, faults on demand, all from one
//! seed.
//!
//! It gives the answers that the kernel gives, for the same reasons, in an order that the seed
//! decides. Data moves when an operation completes and through the address that the buffer had when
//! it was accepted; until then the memory of a read is filled with [`POISON`]. So what looks at a
//! buffer too early, or frees it, is caught here as it would fail on a ring.
//!
//! ```text
//! accept --> begun, due at a random moment --(clock)--> performed --> event
//!              |                      ^
//!              +-- cancel: in time ---+ (due soon, with ECANCELED) or too late (no difference)
//! ```

mod attributes;
mod content;
mod data;
mod faults;
mod inode;
mod journal;
mod lies;
mod names;
mod network;
mod open;
mod perform;
mod sockets;
mod walk;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use faults::{Fault, FaultPlan, FaultRecord, OperationKind, SourceChange};
pub use world::{MountOptions, SimulatedWorld, TreeEntry};

use self::faults::Fate;
use super::finish::{complete, finish, insert_chain, raw};
use super::slots::Slots;
use super::threads::RegisteredFiles;
use super::{Capabilities, EngineKind, Full, OperationProcessor, Wake};
use crate::buffer::{Arena, BufferPool, ReceivePool};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{RECEIVE_BLOCKS_MAX, RETRIES_MAX, SLOTS_MAX};
use crate::operation::{
    Chain, CompletionEventQueue, File, Operation, OperationId, ProcessorIdentity, RegisteredFile,
    SyncReach, Timeout, Token,
};
use crate::random::Random;
use crate::units::{Moment, WallTime};

/// What the memory of a read is filled with until the read completes.
pub const POISON: u8 = 0xdb;

/// Performs operations on a [`SimulatedWorld`], in virtual time.
///
/// # Examples
///
/// ```
/// use ucp_engine::operation::{CompletionEventQueue, Operation, Place, Statx, Subject, Token};
/// use ucp_engine::processor::{FaultPlan, OperationProcessor, SimulatedProcessor, SimulatedWorld};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let world = SimulatedWorld::new();
/// world.add_file("/a", "five!");
/// let mut processor = SimulatedProcessor::new(7, 64, &world, FaultPlan::none());
/// let subject = Subject::Place(Place::path("/a")?);
/// let statx = Operation::Statx(Statx { subject, follow: true, status: None });
/// processor.accept(statx, Token::default()).expect("there is room for one");
/// let mut events = CompletionEventQueue::default();
/// processor.submit_and_wait(1, None, &mut events)?;
/// let event = events.pop().expect("it was waited for");
/// assert_eq!(event.result, Ok(0));
/// # Ok(())
/// # }
/// ```
pub struct SimulatedProcessor {
    world: SimulatedWorld,
    slots: Slots,
    /// What the processor knows of each slot.
    states: Vec<State>,
    /// What the memory of a read held before it was spoiled, by slot: what the read does not fill,
    /// it leaves as it was.
    spoiled: Vec<Vec<u8>>,
    /// What happens next, by its moment; what was begun first comes first.
    due: BTreeMap<(u64, u64), Due>,
    /// The operations that have begun and not ended, by the order in which they began.
    begun: BTreeSet<u64>,
    /// Operations that wait for what another operation does.
    waiting: Vec<u32>,
    /// Operations that wait for a buffer.
    starved: Vec<u32>,
    /// What of the network's changes those that wait have seen.
    changes_seen: u64,
    next_sequence: u64,
    random: Random,
    plan: FaultPlan,
    ready: CompletionEventQueue,
    files: RegisteredFiles,
    bell: Arc<Bell>,
    identity: ProcessorIdentity,
    capabilities: Capabilities,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    fate: Fate,
    /// Where it is among what is due; none if it has not begun, or waits for ever.
    key: Option<(u64, u64)>,
    sequence: u64,
    /// The cancel that came in time.
    verdict: Option<Errno>,
    /// A cancel came too late: rather than wait, the operation ends.
    is_to_end: bool,
    has_begun: bool,
}

/// What happens at a moment.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// An operation completes.
    Completion(u32),
    /// The timeout of a chain member runs out.
    Alarm(OperationId),
}

#[derive(Debug, Default)]
struct Bell(AtomicBool);

/// What every turn costs, so that time passes for who polls.
const TURN: Duration = Duration::from_nanos(200);
/// How much longer a slow operation takes.
const SLOWNESS: u64 = 1000;

impl SimulatedProcessor {
    /// A processor that keeps up to `capacity` operations and works on `world`. All that is random
    /// is decided by `seed`, and all that goes wrong by `plan`.
    #[must_use]
    pub fn new(seed: u64, capacity: u32, world: &SimulatedWorld, plan: FaultPlan) -> Self {
        let capacity = capacity.clamp(1, SLOTS_MAX);
        Self {
            world: world.clone(),
            slots: Slots::new(capacity),
            states: vec![State::default(); capacity as usize],
            spoiled: vec![Vec::new(); capacity as usize],
            due: BTreeMap::new(),
            begun: BTreeSet::new(),
            waiting: Vec::new(),
            starved: Vec::new(),
            changes_seen: 0,
            next_sequence: 0,
            random: Random::new(seed),
            plan,
            ready: CompletionEventQueue::default(),
            files: RegisteredFiles::default(),
            bell: Arc::default(),
            identity: ProcessorIdentity::new(),
            capabilities: Capabilities {
                engine: EngineKind::Simulated,
                reason: None,
                features: Vec::new(),
            },
        }
    }

    /// The world that it works on.
    #[must_use]
    pub fn world(&self) -> &SimulatedWorld {
        &self.world
    }

    /// What has gone wrong until now, to keep.
    #[must_use]
    pub fn record(&self) -> FaultRecord {
        self.plan.record()
    }

    /// Keeps an operation's memory in mind by its addresses.
    fn expose(&mut self, index: u32) {
        if perform::has_memory(self.slots.operation(index)) {
            self.slots.expose(index);
        }
    }

    /// Spoils the memory that an operation reads into, until it completes.
    fn spoil(&mut self, index: u32) {
        let spoiled = &mut self.spoiled[index as usize];
        spoiled.clear();
        if let Some(mut memory) = self.slots.memory(index)
            && memory.is_writable()
        {
            memory.bytes().for_each(|bytes| spoiled.extend_from_slice(bytes));
            memory.poison(POISON);
        }
    }

    fn begin(&mut self, index: u32) {
        if !self.states[index as usize].has_begun {
            self.spoil(index);
        }
        let (kind, duration) = match self.slots.operation(index) {
            Operation::Timeout(Timeout { duration }) => (OperationKind::Timeout, Some(*duration)),
            operation => (OperationKind::of(operation), None),
        };
        let now = self.now();
        let fate = self.plan.begin(kind, &mut self.random);
        let latency = duration.unwrap_or_else(|| self.latency(kind, fate));
        if let Some(duration) = self.timeout_behind(index) {
            let id = self.slots.id(index);
            self.schedule(now + duration, Due::Alarm(id));
        }
        let key = self.schedule(now + latency, Due::Completion(index));
        self.begun.insert(key.1);
        let state = &mut self.states[index as usize];
        state.fate = fate;
        state.key = Some(key);
        state.sequence = key.1;
        state.has_begun = true;
    }

    fn schedule(&mut self, at: Moment, due: Due) -> (u64, u64) {
        let key = (at.0, self.next_sequence);
        self.next_sequence += 1;
        self.due.insert(key, due);
        key
    }

    fn latency(&mut self, kind: OperationKind, fate: Fate) -> Duration {
        use OperationKind as K;

        let (least, spread) = match kind {
            K::Nop => (100, 1_000),
            K::Read | K::Write | K::ReadVectored | K::WriteVectored => (5_000, 100_000),
            K::Sync => (100_000, 1_000_000),
            K::CopyRange | K::CloneFile => (10_000, 200_000),
            _ => (1_000, 30_000),
        };
        let mut nanoseconds = least + self.random.below(spread);
        if fate.is_slow {
            self.plan.record().count(Fault::Slow);
            nanoseconds *= SLOWNESS;
        }
        Duration::from_nanos(nanoseconds)
    }

    /// The timeout of a chain member whose next member is one.
    fn timeout_behind(&self, index: u32) -> Option<Duration> {
        let next = self.slots.entry(index).link?.next?;
        match self.slots.operation(next) {
            Operation::LinkTimeout(Timeout { duration }) => Some(*duration),
            _ => None,
        }
    }

    /// Lets everything happen that is due.
    fn run_due(&mut self) {
        while let Some((key, due)) = self.due.first_key_value().map(|(key, due)| (*key, *due)) {
            if key.0 > self.now().0 {
                return;
            }
            self.due.remove(&key);
            match due {
                Due::Completion(index) => self.on_due(index),
                Due::Alarm(id) => self.on_alarm(id),
            }
        }
    }

    /// An operation's moment has come.
    fn on_due(&mut self, index: u32) {
        self.states[index as usize].key = None;
        let state = self.states[index as usize];
        let is_timeout = matches!(self.slots.operation(index), Operation::Timeout(_));
        if state.verdict.is_none() && self.slots.operation(index).is_of_sockets() {
            return self.on_due_socket(index);
        }
        let result = match state.verdict {
            Some(errno) => Err(errno),
            None if is_timeout => Err(state.fate.errno.unwrap_or(Errno::ETIME)),
            None => {
                let operation = self.slots.operation(index);
                if perform::would_wait(&self.world.lock(), operation, self.identity) {
                    self.waiting.push(index);
                    return;
                }
                match self.perform(index) {
                    Err(Errno::EINTR) if self.begin_again(index) => return,
                    result => result,
                }
            }
        };
        self.end(index, raw(result));
    }

    /// Begins an operation once more that a signal interrupted; false if it shall end.
    fn begin_again(&mut self, index: u32) -> bool {
        let entry = self.slots.entry_mut(index);
        if entry.cancel_requested || entry.link.is_some() || entry.retries == RETRIES_MAX {
            return false;
        }
        entry.retries += 1;
        self.begun.remove(&self.states[index as usize].sequence);
        self.begin(index);
        true
    }

    /// The timeout of a chain member has run out: it cancels the member, in time or not.
    fn on_alarm(&mut self, id: OperationId) {
        let Some(index) = self.slots.find(id) else { return };
        if self.slots.entry(index).result.is_some() {
            return;
        }
        let next = self.slots.entry(index).link.and_then(|link| link.next);
        let in_time = self.slots.entry(index).sent.is_none() && self.comes_in_time(index);
        let answer = if in_time { Errno::ETIME } else { Errno::EALREADY };
        if let Some(next) = next {
            finish(&mut self.slots, next, raw(Err(answer)), &mut self.ready);
        }
        if in_time {
            if let Some(key) = self.states[index as usize].key.take() {
                self.due.remove(&key);
            }
            self.end(index, raw(Err(Errno::ECANCELED)));
        }
    }

    /// Whether a cancel of a running operation comes in time.
    fn comes_in_time(&mut self, index: u32) -> bool {
        let is_timeout = matches!(self.slots.operation(index), Operation::Timeout(_));
        let is_waiting = self.states[index as usize].key.is_none();
        let goes_on = self.slots.operation(index).is_multishot();
        let in_time = is_timeout || is_waiting || goes_on || self.random.once_in(2);
        self.states[index as usize].is_to_end = !in_time;
        let fault = if in_time { Fault::CancelInTime } else { Fault::CancelTooLate };
        self.plan.record().count(fault);
        in_time
    }

    /// Ends a begun operation, and tells the plan.
    fn end(&mut self, index: u32, result: i32) {
        let sequence = self.states[index as usize].sequence;
        self.begun.remove(&sequence);
        if self.begun.first().is_some_and(|oldest| *oldest < sequence) {
            self.plan.record().count(Fault::Reordered);
        }
        self.waiting.retain(|other| *other != index);
        self.starved.retain(|other| *other != index);
        self.wake_waiting();
        if result == 0 {
            self.flip_after_sync(index);
        }
        self.restore(index, result);
        self.slots.conceal(index);
        if let Some(next) = complete(&mut self.slots, index, result, &mut self.ready) {
            // What has its memory from the member before has it only now.
            if matches!(self.slots.operation(next), Operation::Write(_)) {
                self.slots.conceal(next);
                self.expose(next);
            }
            self.begin(next);
        }
        self.plan.on_completion(&self.world, &mut self.random);
    }

    /// Has those look again that wait for what others do.
    fn wake_waiting(&mut self) {
        for other in std::mem::take(&mut self.waiting) {
            let soon = self.now() + TURN;
            self.states[other as usize].key = Some(self.schedule(soon, Due::Completion(other)));
        }
        self.changes_seen = self.world.lock().network.changes;
    }

    /// The same, if a socket was closed or something has come of an operation that goes on.
    fn look_at_network(&mut self) {
        if !self.waiting.is_empty() && self.world.lock().network.changes != self.changes_seen {
            self.wake_waiting();
        }
        self.feed_starved();
    }

    /// Performs what is due, with what the plan has in store for it.
    fn perform(&mut self, index: u32) -> Result<u32, Errno> {
        let Self { world, slots, random, states, plan, identity, .. } = self;
        let fate = states[index as usize].fate;
        let mut world = world.lock();
        world.tick();
        if let Some(errno) = fate.errno {
            if let Some(fault) = fate.fault {
                plan.record().count(fault);
            }
            // A sync that was interrupted begins again and has lost nothing.
            let is_begun_again = errno == Errno::EINTR;
            if !is_begun_again || !matches!(slots.operation(index), Operation::Sync(_)) {
                fail(&mut world, slots, index, *identity);
            }
            // A close that was interrupted has closed (close(2), NOTES).
            let is_close = matches!(slots.operation(index), Operation::Close(_));
            return if is_close && errno == Errno::EINTR { Ok(0) } else { Err(errno) };
        }
        let cut = |result: Result<u32, Errno>, limit: Option<usize>| {
            if let (Ok(count), Some(limit)) = (result, limit)
                && count as usize == limit
            {
                plan.record().count(Fault::ShortTransfer);
            }
            result
        };
        if !perform::has_memory(slots.operation(index)) {
            let operation = slots.prepare(index).0;
            if let (Operation::Seek(seek), true) = (&mut *operation, fate.is_lie) {
                plan.record().count(Fault::HoleLie);
                return lies::lie(&world, seek, random);
            }
            let limit = match operation {
                Operation::CopyRange(_) if fate.bytes_max.is_some() => {
                    fate.bytes_max.map(|bytes| bytes as usize)
                }
                Operation::CopyRange(range) if fate.is_short => {
                    let target = perform::of_file(&range.target)?;
                    world.short_length(target, range.length as usize, random)
                }
                _ => None,
            };
            return cut(perform::perform(&mut world, operation, *identity, limit), limit);
        }
        let transfer = perform::transfer(slots.operation(index), *identity);
        let mut memory = slots.memory(index).ok_or(Errno::EINVAL)?;
        let transfer = transfer?;
        let limit = match transfer.data() {
            Some(descriptor) if fate.is_short => {
                world.short_length(descriptor, memory.length(), random)
            }
            _ => None,
        };
        cut(transfer.perform(&mut world, &mut memory, limit), limit)
    }

    /// Brings back what a read has not filled.
    fn restore(&mut self, index: u32, result: i32) {
        let filled = usize::try_from(result).unwrap_or(0);
        let rest = self.spoiled[index as usize].get(filled..).unwrap_or_default();
        if let Some(mut memory) = self.slots.memory(index)
            && memory.is_writable()
        {
            memory.put(filled, rest);
        }
    }

    /// A device that has taken data may change it.
    fn flip_after_sync(&mut self, index: u32) {
        let Operation::Sync(sync) = self.slots.operation(index) else { return };
        if sync.reach != SyncReach::Data || !self.plan.flips(&mut self.random) {
            return;
        }
        let Ok(descriptor) = perform::of_file(&sync.file) else { return };
        if self.world.lock().flip_a_bit(descriptor, &mut self.random) {
            self.plan.record().count(Fault::Flipped);
        }
    }

    fn advance_to(&mut self, moment: Moment) {
        let mut world = self.world.lock();
        world.clock = world.clock.max(moment.0);
    }
}

/// What an operation that fails does all the same.
fn fail(world: &mut world::World, slots: &mut Slots, index: u32, identity: ProcessorIdentity) {
    match slots.operation(index) {
        Operation::Sync(sync) => {
            if let Ok(descriptor) = perform::of_file(&sync.file) {
                world.fail_sync(descriptor, sync.reach);
            }
        }
        Operation::Close(_) => {
            if let Operation::Close(close) = slots.prepare(index).0 {
                let _ = perform::perform_close(world, close, identity);
            }
        }
        _ => {}
    }
}

impl OperationProcessor for SimulatedProcessor {
    fn accept(
        &mut self,
        operation: Operation,
        token: Token,
    ) -> Result<OperationId, Full<Operation>> {
        let index = self.slots.insert(operation, token).map_err(Full)?;
        self.states[index as usize] = State::default();
        self.expose(index);
        self.begin(index);
        Ok(self.slots.id(index))
    }

    fn accept_chain(&mut self, chain: Chain, token: Token) -> Result<OperationId, Full<Chain>> {
        if self.slots.available() < chain.length() {
            return Err(Full(chain));
        }
        let head = insert_chain(&mut self.slots, chain, token);
        let mut next = Some(head);
        while let Some(index) = next {
            self.states[index as usize] = State::default();
            self.expose(index);
            next = self.slots.entry(index).link.and_then(|link| link.next);
        }
        self.begin(head);
        Ok(self.slots.id(head))
    }

    fn cancel(&mut self, id: OperationId) {
        let Some(index) = self.slots.find(id) else { return };
        self.slots.entry_mut(index).cancel_requested = true;
        let state = self.states[index as usize];
        let is_running = self.slots.entry(index).result.is_none() && state.has_begun;
        // A send that was made can't be taken back while its buffer is out.
        let is_sent = self.slots.entry(index).sent.is_some();
        if !is_running || is_sent || state.verdict.is_some() || !self.comes_in_time(index) {
            return;
        }
        if let Some(key) = state.key {
            self.due.remove(&key);
        }
        let soon = self.now() + Duration::from_nanos(self.random.below(1000));
        self.waiting.retain(|other| *other != index);
        self.starved.retain(|other| *other != index);
        let key = self.schedule(soon, Due::Completion(index));
        let state = &mut self.states[index as usize];
        (state.verdict, state.key) = (Some(Errno::ECANCELED), Some(key));
    }

    fn submit_and_wait(
        &mut self,
        at_least: u32,
        deadline: Option<Moment>,
        events: &mut CompletionEventQueue,
    ) -> Result<(), Error> {
        let mut is_over = self.bell.0.swap(false, Ordering::Relaxed);
        if at_least > 0 && self.slots.held() > 0 {
            is_over |= self.plan.returns_early(&mut self.random);
        }
        self.advance_to(self.now() + TURN);
        loop {
            self.run_due();
            self.look_at_network();
            let is_enough = self.ready.len() >= at_least as usize || self.slots.held() == 0;
            if is_over || is_enough || deadline.is_some_and(|deadline| self.now() >= deadline) {
                break;
            }
            let next = self.due.first_key_value().map(|((moment, _), _)| Moment(*moment));
            let Some(until) = [next, deadline].into_iter().flatten().min() else {
                let reason = "all that is in flight waits for ever";
                return Err(Error::new(ErrorKind::Io, "wait", reason));
            };
            self.advance_to(until);
        }
        events.append(&mut self.ready);
        Ok(())
    }

    fn in_flight(&self) -> u32 {
        self.slots.held() + u32::try_from(self.ready.len()).unwrap_or(u32::MAX)
    }

    fn now(&self) -> Moment {
        Moment(self.world.lock().clock)
    }

    fn wall_clock(&self) -> WallTime {
        self.world.now()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn buffer_pool(&mut self, count: u32, block_bytes: u32) -> Result<BufferPool, Errno> {
        let arena = arena(count, block_bytes)?;
        Ok(BufferPool::new(arena, count, block_bytes, None))
    }

    fn receive_pool(&mut self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno> {
        if count == 0 || count > RECEIVE_BLOCKS_MAX || block_bytes == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(ReceivePool::new(arena(count, block_bytes)?, count, block_bytes, None))
    }

    fn register_file(&mut self, file: Option<&File>) -> Result<RegisteredFile, Errno> {
        file.map(perform::of_file).transpose()?;
        let (index, released) = self.files.take().ok_or(Errno::ENFILE)?;
        Ok(RegisteredFile::new(self.identity, index, file.cloned(), released))
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::<Bell>::clone(&self.bell)
    }

    fn skip_to(&mut self, moment: Moment) -> bool {
        self.advance_to(moment.max(self.now() + TURN));
        true
    }
}

/// An arena that nobody uses any more, or a new one: to map and touch a huge page takes longer than
/// a whole simulation.
fn arena(count: u32, block_bytes: u32) -> Result<Arc<Arena>, Errno> {
    /// Arenas that one thread keeps.
    const ARENAS_MAX: usize = 8;

    thread_local! {
        static ARENAS: RefCell<Vec<(u32, u32, Arc<Arena>)>> = const { RefCell::new(Vec::new()) };
    }
    ARENAS.with_borrow_mut(|arenas| {
        // Pools and leases own the arena: while one of them lives, it is in use.
        for (known_count, known_bytes, arena) in arenas.iter_mut() {
            let has_this_shape = (*known_count, *known_bytes) == (count, block_bytes);
            if has_this_shape && Arc::get_mut(arena).is_some() {
                return Ok(Arc::clone(arena));
            }
        }
        let arena = Arc::new(Arena::new(count, block_bytes)?);
        if arenas.len() >= ARENAS_MAX {
            arenas.remove(0);
        }
        arenas.push((count, block_bytes, Arc::clone(&arena)));
        Ok(arena)
    })
}

impl Drop for SimulatedProcessor {
    /// Cancels what comes in time, lets the rest happen, and gives up what would wait for ever.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            for index in self.slots.held_indices() {
                self.cancel(self.slots.id(index));
            }
            while let Some(((moment, _), _)) = self.due.first_key_value() {
                self.advance_to(Moment(*moment));
                self.run_due();
            }
        }
        for index in self.slots.held_indices() {
            drop(self.slots.remove(index));
        }
    }
}

impl Wake for Bell {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
