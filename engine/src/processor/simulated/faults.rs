//! What goes wrong in a simulation, and how often: by chance, by script, or at a moment.
//!
//! A plan is made before the simulation and given to the processor. What it did is counted in a
//! [`FaultRecord`] that the test keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::SimulatedWorld;
use crate::error::Errno;
use crate::operation::Operation;
use crate::random::Random;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Fault {
    /// Fewer bytes are moved than asked for, and at least one.
    ShortTransfer,
    /// `EIO`; of a sync: what was to be written is lost.
    InputOutput,
    /// `ENOSPC`, although there is room.
    NoSpace,
    /// `EINTR`, after which the processor begins the operation again, as all processors do.
    Interrupted,
    /// `EAGAIN`.
    TryAgain,
    /// The operation takes a thousand times as long.
    Slow,
    /// A completion comes before that of an operation that was begun earlier.
    Reordered,
    /// A wait ends before what it waits for.
    EarlyReturn,
    /// A cancel comes in time.
    CancelInTime,
    /// A cancel comes too late: the operation ends as if nobody had asked.
    CancelTooLate,
    /// A source file becomes shorter.
    SourceShrunk,
    /// A source file becomes longer.
    SourceGrown,
    /// Bytes of a source file change, and its length does not.
    SourceRewritten,
    /// A source file's name becomes a symbolic link.
    SourceReplacedByLink,
    /// A file system tells something wrong about a file's holes.
    HoleLie,
    /// A bit of a file flips on its device, after the first sync of its data.
    Flipped,
    /// An operation fails because the script says so.
    Scripted,
    /// A flag is set, or a hook is called, at a moment that the plan names.
    Hooked,
    /// A connect is refused, although somebody listens.
    Refused,
    /// A connection is broken off on both ends, with what is on its way.
    Reset,
    /// One end of a connection sees the end of the stream, as if the other were gone; the other sees
    /// a reset.
    HungUp,
    /// What is sent travels a thousand times as long.
    Delayed,
    /// Each end of a connection keeps a few bytes only, so that who sends has to wait.
    WindowSmall,
    /// The kernel ends an operation that completes many times, which the processor begins again.
    MultishotEnded,
    /// Something has come, and no buffer is free for it.
    NoBuffers,
    /// The buffer of a zero-copy send is out a thousand times as long.
    NotificationDelayed,
    /// A connection's traffic was ended in one direction.
    HalfClosed,
    /// A connection's stream has ended.
    StreamEnded,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 28] = [
        Self::ShortTransfer,
        Self::InputOutput,
        Self::NoSpace,
        Self::Interrupted,
        Self::TryAgain,
        Self::Slow,
        Self::Reordered,
        Self::EarlyReturn,
        Self::CancelInTime,
        Self::CancelTooLate,
        Self::SourceShrunk,
        Self::SourceGrown,
        Self::SourceRewritten,
        Self::SourceReplacedByLink,
        Self::HoleLie,
        Self::Flipped,
        Self::Scripted,
        Self::Hooked,
        Self::Refused,
        Self::Reset,
        Self::HungUp,
        Self::Delayed,
        Self::WindowSmall,
        Self::MultishotEnded,
        Self::NoBuffers,
        Self::NotificationDelayed,
        Self::HalfClosed,
        Self::StreamEnded,
    ];

    /// Those that only a network knows.
    pub const OF_NETWORKS: [Self; 10] = [
        Self::Refused,
        Self::Reset,
        Self::HungUp,
        Self::Delayed,
        Self::WindowSmall,
        Self::MultishotEnded,
        Self::NoBuffers,
        Self::NotificationDelayed,
        Self::HalfClosed,
        Self::StreamEnded,
    ];

    /// Those that change a source file.
    const CHANGES: [Self; 4] =
        [Self::SourceShrunk, Self::SourceGrown, Self::SourceRewritten, Self::SourceReplacedByLink];

    /// Those that an operation can suffer by chance.
    const OF_OPERATIONS: [Self; 7] = [
        Self::ShortTransfer,
        Self::InputOutput,
        Self::NoSpace,
        Self::Interrupted,
        Self::TryAgain,
        Self::Slow,
        Self::HoleLie,
    ];

    /// The errno that an operation ends with.
    pub(super) const fn errno(self) -> Option<Errno> {
        match self {
            Self::InputOutput => Some(Errno::EIO),
            Self::NoSpace => Some(Errno::ENOSPC),
            Self::Interrupted => Some(Errno::EINTR),
            Self::TryAgain => Some(Errno::EAGAIN),
            _ => None,
        }
    }

    /// Whether the kernel could do this to an operation of this kind.
    fn can_befall(self, kind: OperationKind) -> bool {
        use OperationKind as K;

        let moves_data =
            matches!(kind, K::Read | K::Write | K::ReadVectored | K::WriteVectored | K::CopyRange);
        if kind.is_of_sockets() {
            return self.can_befall_socket(kind);
        }
        match self {
            Self::ShortTransfer => moves_data,
            Self::NoSpace => matches!(
                kind,
                K::Write
                    | K::WriteVectored
                    | K::Allocate
                    | K::CopyRange
                    | K::CloneFile
                    | K::Sync
                    | K::Open
                    | K::MakeDirectory
                    | K::SymbolicLink
                    | K::Link
                    | K::MakeNode
                    | K::Rename
                    | K::SetAttribute
            ),
            Self::Interrupted => {
                moves_data || matches!(kind, K::Open | K::Sync | K::Allocate | K::Lock)
            }
            Self::TryAgain => moves_data || matches!(kind, K::Open | K::Allocate | K::Statx),
            Self::InputOutput => !matches!(
                kind,
                K::Nop | K::Timeout | K::LinkTimeout | K::Lock | K::Advise | K::SetDirect
            ),
            Self::HoleLie => kind == K::Seek,
            Self::Slow => !matches!(kind, K::Timeout | K::LinkTimeout),
            _ => false,
        }
    }
}

impl Fault {
    fn can_befall_socket(self, kind: OperationKind) -> bool {
        use OperationKind as K;

        let receives = matches!(kind, K::Receive | K::ReceiveMany | K::ReceiveMessage);
        let sends = matches!(kind, K::Send | K::SendMessage | K::SendZeroCopy);
        match self {
            Self::ShortTransfer | Self::Reset => receives || sends,
            Self::Interrupted => {
                receives || sends || matches!(kind, K::Accept | K::AcceptMany | K::Connect)
            }
            Self::Slow => !matches!(kind, K::AcceptMany | K::ReceiveMany),
            Self::HungUp => receives,
            Self::Delayed => sends || matches!(kind, K::Connect | K::Shutdown),
            Self::Refused | Self::WindowSmall => kind == K::Connect,
            Self::MultishotEnded => matches!(kind, K::AcceptMany | K::ReceiveMany),
            Self::NotificationDelayed => kind == K::SendZeroCopy,
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names the variants of [`Operation`] without what they hold.
macro_rules! operation_kinds {
    ($($kind:ident),+ $(,)?) => {
        /// The kind of an operation, for plans of faults.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "each is documented by the operation of its name")]
        pub enum OperationKind {
            Nop,
            $($kind),+
        }

        impl OperationKind {
            /// Every one.
            pub const ALL: &[Self] = &[Self::Nop, $(Self::$kind),+];

            /// The kind of an operation.
            #[must_use]
            pub const fn of(operation: &Operation) -> Self {
                match operation {
                    Operation::Nop => Self::Nop,
                    $(Operation::$kind(_) => Self::$kind),+
                }
            }
        }
    };
}

operation_kinds! {
    Timeout, LinkTimeout, Read, Write, ReadVectored, WriteVectored, Sync, Allocate, Truncate, Seek,
    CloneFile, CopyRange, Advise, CacheStatus, SetDirect, Lock, Open, Close, Flush, Rename, Unlink,
    MakeDirectory, SymbolicLink, Link, ReadLink, MakeNode, ListDirectory, Statx, FileSystemStatus,
    DeviceStatus,
    ChangeOwner, ChangeMode, ChangeTimes, GetAttribute, SetAttribute, RemoveAttribute,
    ListAttributes,
    MakeSocket, Bind, Listen, Accept, AcceptMany, Connect, Shutdown, SocketAddress, Receive,
    ReceiveMany, ReceiveMessage, Send, SendMessage, SendZeroCopy, SetSocketOption, GetSocketOption,
    Poll,
}

impl OperationKind {
    /// Whether it is an operation on sockets.
    #[must_use]
    pub const fn is_of_sockets(self) -> bool {
        matches!(
            self,
            Self::MakeSocket
                | Self::Bind
                | Self::Listen
                | Self::Accept
                | Self::AcceptMany
                | Self::Connect
                | Self::Shutdown
                | Self::SocketAddress
                | Self::Receive
                | Self::ReceiveMany
                | Self::ReceiveMessage
                | Self::Send
                | Self::SendMessage
                | Self::SendZeroCopy
                | Self::SetSocketOption
                | Self::GetSocketOption
                | Self::Poll
        )
    }
}

/// What goes wrong in one simulation.
#[derive(Debug, Default)]
pub struct FaultPlan {
    /// Once in how many operations of a kind a fault happens; absent is never.
    chances: BTreeMap<(OperationKind, Fault), u64>,
    scripted: Vec<Scripted>,
    /// How many bytes the ranges with these numbers move at the most.
    range_bytes_max: BTreeMap<u64, u32>,
    /// Once in how many completions a source file changes, each way.
    changes: BTreeMap<Fault, u64>,
    /// Files at or below these paths change.
    sources: Vec<PathBuf>,
    early_return_once_in: u64,
    flip_once_in: u64,
    hooks: BTreeMap<u64, Vec<Hook>>,
    /// How many operations of each kind have begun.
    begun: BTreeMap<OperationKind, u64>,
    completions: u64,
    record: FaultRecord,
}

#[derive(Debug)]
struct Scripted {
    kind: OperationKind,
    number: u64,
    errno: Errno,
}

/// What is called at a moment of the simulation.
struct Hook(Box<dyn FnOnce(&SimulatedWorld)>);

/// How a source file changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SourceChange {
    /// The file.
    pub path: PathBuf,
    /// One of the `Source…` faults.
    pub fault: Fault,
}

/// What went wrong in a simulation. Clones share it, so that a test can keep one.
#[derive(Clone, Debug, Default)]
pub struct FaultRecord(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    counts: BTreeMap<Fault, u64>,
    changes: Vec<SourceChange>,
    completions: u64,
}

/// What an operation that begins will suffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    pub(super) errno: Option<Errno>,
    /// What the errno is counted as, unless the script counted it.
    pub(super) fault: Option<Fault>,
    pub(super) is_short: bool,
    pub(super) is_slow: bool,
    pub(super) is_lie: bool,
    /// No more bytes are moved.
    pub(super) bytes_max: Option<u32>,
}

impl FaultPlan {
    /// Nothing goes wrong; completions still come in a random order.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Swarm testing: of all faults about half, each for about half of the kinds of operation that
    /// it can befall, some often and some seldom. The seed decides.
    ///
    /// A plan that always has every fault would never see what a simulation reaches only while some
    /// fault stays away.
    ///
    /// # Source
    ///
    /// Groce et al., "Swarm testing", ISSTA 2012.
    #[must_use]
    pub fn swarm(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5741_524d);
        let mut plan = Self::default();
        for fault in Fault::OF_OPERATIONS {
            if random.once_in(2) {
                continue;
            }
            let once_in = 5 << random.below(6);
            let kinds = OperationKind::ALL.iter().filter(|kind| !kind.is_of_sockets());
            for kind in kinds {
                if fault.can_befall(*kind) && random.once_in(2) {
                    plan.chances.insert((*kind, fault), once_in);
                }
            }
        }
        for fault in Fault::CHANGES {
            if random.once_in(4) {
                plan.changes.insert(fault, 10 << random.below(5));
            }
        }
        plan.early_return_once_in = if random.once_in(2) { 0 } else { 2 << random.below(6) };
        plan
    }

    /// The same for what a network does: its faults are put to the plan.
    #[must_use]
    pub fn with_network_swarm(mut self, seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x4e45_5457);
        for fault in Fault::ALL {
            if random.once_in(2) {
                continue;
            }
            let once_in = 5 << random.below(6);
            let kinds = OperationKind::ALL.iter().filter(|kind| kind.is_of_sockets());
            for kind in kinds {
                if fault.can_befall(*kind) && random.once_in(2) {
                    self.chances.insert((*kind, fault), once_in);
                }
            }
        }
        self
    }

    /// A fault befalls one of `times` operations of a kind on average.
    ///
    /// # Panics
    ///
    /// If that fault can't befall that kind of operation.
    #[must_use]
    pub fn once_in(mut self, times: u64, fault: Fault, kind: OperationKind) -> Self {
        assert!(fault.can_befall(kind), "{fault} does not happen to {kind:?}");
        self.chances.insert((kind, fault), times);
        self
    }

    /// A source file changes after one of `times` completions on average. Needs
    /// [`FaultPlan::with_sources`].
    ///
    /// # Panics
    ///
    /// If the fault is not one of the `Source…` faults.
    #[must_use]
    pub fn change_once_in(mut self, times: u64, fault: Fault) -> Self {
        assert!(Fault::CHANGES.contains(&fault), "{fault} does not change a source");
        self.changes.insert(fault, times);
        self
    }

    /// A wait ends early in one of `times` cases on average.
    #[must_use]
    pub fn return_early_once_in(mut self, times: u64) -> Self {
        self.early_return_once_in = times;
        self
    }

    /// No operation of a kind suffers anything by chance.
    #[must_use]
    pub fn spare(mut self, kind: OperationKind) -> Self {
        self.chances.retain(|(other, _), _| *other != kind);
        self
    }

    /// After one of `times` syncs of data on average, a bit of the file flips on its device, behind
    /// the file system's back: what only reading back finds.
    #[must_use]
    pub fn flip_once_in(mut self, times: u64) -> Self {
        self.flip_once_in = times;
        self
    }

    /// The files at or below `path` are those that change, each once at the most.
    #[must_use]
    pub fn with_sources(mut self, path: impl AsRef<Path>) -> Self {
        self.sources.push(path.as_ref().to_owned());
        self
    }

    /// The operation of `kind` that begins as the `number`th of its kind, counted from 1, fails
    /// with `errno` and does nothing.
    #[must_use]
    pub fn fail_nth(mut self, number: u64, kind: OperationKind, errno: Errno) -> Self {
        self.scripted.push(Scripted { kind, number, errno });
        self
    }

    /// The `number`th range that a server is asked to copy, counted from 1, moves no more than `bytes`.
    /// NFS servers and kernels are known that say 0 before the end of a file.
    #[must_use]
    pub fn cut_range(mut self, number: u64, bytes: u32) -> Self {
        self.range_bytes_max.insert(number, bytes);
        self
    }

    /// Sets a flag after `completions` operations have completed: for tests of cancelling.
    #[must_use]
    pub fn cancel_after(self, completions: u64, flag: Arc<AtomicBool>) -> Self {
        self.call_after(completions, move |_| flag.store(true, Ordering::Relaxed))
    }

    /// Calls `hook` after `completions` operations have completed: to look at the world, or to keep
    /// what a power cut at that moment would leave of it ([`SimulatedWorld::crash`]).
    #[must_use]
    pub fn call_after(
        mut self,
        completions: u64,
        hook: impl FnOnce(&SimulatedWorld) + 'static,
    ) -> Self {
        self.hooks.entry(completions).or_default().push(Hook(Box::new(hook)));
        self
    }

    /// What went wrong, to keep: it goes on counting while the processor runs.
    #[must_use]
    pub fn record(&self) -> FaultRecord {
        self.record.clone()
    }

    /// Decides what an operation that begins will suffer.
    pub(super) fn begin(&mut self, kind: OperationKind, random: &mut Random) -> Fate {
        let begun = self.begun.entry(kind).or_default();
        *begun += 1;
        let mut fate = Fate::default();
        let is_due = |it: &&Scripted| it.kind == kind && it.number == *begun;
        if let Some(scripted) = self.scripted.iter().find(is_due) {
            fate.errno = Some(scripted.errno);
            self.record.count(Fault::Scripted);
            return fate;
        }
        if kind == OperationKind::CopyRange {
            fate.bytes_max = self.range_bytes_max.get(begun).copied();
        }
        for fault in Fault::OF_OPERATIONS {
            let once_in = self.chances.get(&(kind, fault)).copied().unwrap_or(0);
            if !random.once_in(once_in) {
                continue;
            }
            match fault {
                Fault::Slow => fate.is_slow = true,
                Fault::ShortTransfer => fate.is_short = true,
                Fault::HoleLie => fate.is_lie = true,
                fault => (fate.errno, fate.fault) = (fault.errno(), Some(fault)),
            }
        }
        fate
    }

    /// Whether a fault strikes an operation of a kind now; counted by who sees to it.
    pub(super) fn draws(&self, kind: OperationKind, fault: Fault, random: &mut Random) -> bool {
        random.once_in(self.chances.get(&(kind, fault)).copied().unwrap_or(0))
    }

    /// Whether a fault strikes an operation of a kind now; counted.
    pub(super) fn strikes(&self, kind: OperationKind, fault: Fault, random: &mut Random) -> bool {
        let strikes = self.draws(kind, fault, random);
        if strikes {
            self.record.count(fault);
        }
        strikes
    }

    /// Counts a completion: hooks that are due are called, and source files may change.
    pub(super) fn on_completion(&mut self, world: &SimulatedWorld, random: &mut Random) {
        self.completions += 1;
        self.record.lock().completions = self.completions;
        while let Some(due) = self.hooks.first_entry().filter(|it| *it.key() <= self.completions) {
            for hook in due.remove() {
                self.record.count(Fault::Hooked);
                (hook.0)(world);
            }
        }
        if self.sources.is_empty() {
            return;
        }
        for (fault, once_in) in &self.changes {
            if random.once_in(*once_in) {
                self.change_a_source(world, *fault, random);
            }
        }
    }

    fn change_a_source(&self, world: &SimulatedWorld, fault: Fault, random: &mut Random) {
        let mut files: Vec<PathBuf> = self.sources.iter().flat_map(|it| world.files(it)).collect();
        let mut recorded = self.record.lock();
        files.retain(|path| recorded.changes.iter().all(|change| change.path != *path));
        if files.is_empty() {
            return;
        }
        let number = usize::try_from(random.below(files.len() as u64)).expect("an index");
        let path = files.swap_remove(number);
        if world.change(&path, fault, random) {
            recorded.changes.push(SourceChange { path, fault });
            *recorded.counts.entry(fault).or_default() += 1;
        }
    }

    /// Whether a bit flips in the file whose data was synced now.
    pub(super) fn flips(&mut self, random: &mut Random) -> bool {
        self.flip_once_in > 0 && random.once_in(self.flip_once_in)
    }

    /// Whether the wait that begins now ends before what it waits for.
    pub(super) fn returns_early(&self, random: &mut Random) -> bool {
        let is_early = random.once_in(self.early_return_once_in);
        if is_early {
            self.record.count(Fault::EarlyReturn);
        }
        is_early
    }
}

impl FaultRecord {
    /// How often a fault happened.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.lock().counts.get(&fault).copied().unwrap_or(0)
    }

    /// How often each fault happened, those that never did included.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        Fault::ALL.into_iter().map(|fault| (fault, self.of(fault))).collect()
    }

    /// The source files that changed, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<SourceChange> {
        self.lock().changes.clone()
    }

    /// How many operations have completed: what the moments of hooks are counted in.
    #[must_use]
    pub fn completions(&self) -> u64 {
        self.lock().completions
    }

    pub(super) fn count(&self, fault: Fault) {
        *self.lock().counts.entry(fault).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swarm_is_decided_by_its_seed_and_has_every_fault_sometimes() {
        let mut seen = BTreeMap::<Fault, u64>::new();
        for seed in 0..100 {
            let (plan, again) = (FaultPlan::swarm(seed), FaultPlan::swarm(seed));
            assert_eq!(plan.chances, again.chances, "seed {seed}");
            for (kind, fault) in plan.chances.keys() {
                assert!(fault.can_befall(*kind), "{fault} on {kind:?}");
                *seen.entry(*fault).or_default() += 1;
            }
        }
        for fault in Fault::OF_OPERATIONS {
            assert!(seen.contains_key(&fault), "{fault} never happens");
        }
    }

    #[test]
    fn a_script_hits_the_nth_operation_of_a_kind_only() {
        let mut plan = FaultPlan::none().fail_nth(2, OperationKind::Write, Errno::EIO);
        let record = plan.record();
        let mut random = Random::new(1);
        let kinds = [OperationKind::Write, OperationKind::Read, OperationKind::Read];
        for kind in kinds {
            assert_eq!(plan.begin(kind, &mut random).errno, None);
        }
        assert_eq!(plan.begin(OperationKind::Write, &mut random).errno, Some(Errno::EIO));
        assert_eq!(plan.begin(OperationKind::Write, &mut random).errno, None);
        assert_eq!(record.of(Fault::Scripted), 1);
    }

    #[test]
    #[should_panic(expected = "does not happen")]
    fn a_fault_that_the_kernel_never_shows_is_refused() {
        let _ = FaultPlan::none().once_in(1, Fault::NoSpace, OperationKind::Read);
    }
}
