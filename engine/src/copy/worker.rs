//! Who does the work of a copy: one worker a shard, and what all of them share.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::ahead::Ahead;
use super::directory::Directory;
use super::durable::Batch;
use super::fingerprint::Fingerprinter;
use super::hard_links::{HardLinks, Waiting};
use super::io::Io;
use super::journal::BootId;
use super::manifest::List;
use super::parked::OpenDirectories;
use super::temporary::hash;
use super::throttle::Throttle;
use super::together::Part;
use super::told::Told;
use super::verdict::Identity;
use super::{Cancellation, Event, Observer, Options, Progress, Summary};
use crate::buffer::{Buffer, BufferPool};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::BUFFER_ALIGNMENT_BYTES;
use crate::operation::{File, FileStatus, FileSystemStatus, Name, Open, Operation, Place, Read};
use crate::proactor::{CompletionHandler, Proactor, TaskInitiator, open_files_max};
use crate::processor::Configuration;
use crate::units::Moment;

/// What all workers of one copy share; with several targets, of one lane.
pub(super) struct Job<'a> {
    pub(super) options: Options,
    pub(super) observer: &'a dyn Observer,
    pub(super) progress: &'a Progress,
    pub(super) cancellation: &'a Cancellation,
    /// The number of its target among several.
    pub(super) lane: usize,
    pub(super) surroundings: Surroundings,
    /// Files that this run has made, by device, inode and name (hashed), where another source could
    /// overwrite them.
    created: Option<Mutex<BTreeSet<(u64, u64, u64)>>>,
    /// The sources so far, where there are several.
    operands: Mutex<BTreeSet<(DirectoryEntry, Identity)>>,
    /// How many names of a file with several this run has removed, by device and inode.
    removed_names: Mutex<BTreeMap<(u64, u64), u32>>,
    /// Digests of what was copied, for a list of them.
    pub(super) list: Option<List>,
    /// Files of the source that have several names.
    pub(super) hard_links: HardLinks,
    /// A file that is not whole could not be removed from a stage: none may be published.
    are_stages_forbidden: AtomicBool,
    /// The rate that all workers keep together, if there is one.
    pub(super) throttle: Option<Arc<Throttle>>,
    /// Directories of trees that are being copied.
    pub(super) open_directories: OpenDirectories,
    /// Descriptors that files keep open while they wait to be made durable, in all lanes.
    waiting_descriptors: Arc<AtomicUsize>,
    /// Pairs of devices between which cloning was refused for good, and the answer.
    unclonable: Mutex<BTreeMap<(u64, u64), Errno>>,
    /// What kind of file system each device has.
    magics: Mutex<BTreeMap<u64, u64>>,
    /// Which boot of the machine this is, once somebody wanted to know.
    pub(super) boot: OnceLock<BootId>,
}

/// A name in a directory, by which a file was found.
pub(super) type DirectoryEntry = (Option<Identity>, Vec<u8>);

/// What the process is to the file system.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Surroundings {
    /// Who owns what it makes; none if that can't be told.
    pub(super) user: Option<u32>,
    /// Whether modes of new files are cut, so that they must be set again.
    pub(super) has_umask: bool,
}

/// Copies files, one at a time.
pub(super) struct Worker<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) io: Io,
    blocks: Rc<BlockEngine<'a>>,
    /// Files that were opened before their turn.
    pub(super) ahead: RefCell<Ahead>,
    /// Its part in the file that several lanes are copying, until it is moved.
    pub(super) part: RefCell<Option<Part>>,
    /// What the bytes of the file that is being moved come to, where that is wanted.
    pub(super) hashing: RefCell<Option<Fingerprinter>>,
    /// For small files that are read past the page cache.
    small_pool: OnceCell<BufferPool>,
    /// For small files; kept from one to the next.
    buffer: RefCell<Vec<u8>>,
    pub(super) listing: RefCell<Vec<u8>>,
    /// Files that wait to be made durable together.
    pub(super) batch: RefCell<Option<Batch>>,
    /// Names that others left to this worker, because it copied their file.
    pub(super) deferred: RefCell<Vec<Waiting>>,
    /// Device and inode of the file that this worker has published last, outside a stage.
    pub(super) published: Cell<Option<(u64, u64)>>,
    /// Something of the file that this worker copies could not be kept.
    pub(super) has_lost: Cell<bool>,
    pub(super) summary: RefCell<Summary>,
    /// What the lanes beside it have told of; none if there are none.
    told: Option<Rc<Told>>,
}

/// What moves the blocks of large files.
pub(super) struct BlockEngine<'a> {
    /// How to start a processor of its own; none where the worker's own does it.
    configuration: Option<&'a Configuration>,
    proactor: OnceCell<Proactor>,
    pool: OnceCell<BufferPool>,
}

/// Where a file is, in words for people. Made only when somebody is told.
pub(super) trait Labels {
    fn source(&self) -> PathBuf;
    fn target(&self) -> PathBuf;

    /// The entry of a tree that it is; none for what the user named.
    fn entry(&self) -> Option<(Arc<Directory>, Name)> {
        None
    }

    /// Whether it may wait for others to be made durable with them.
    fn may_wait(&self) -> bool {
        true
    }
}

impl<'a> Job<'a> {
    pub(super) fn new(
        options: Options,
        observer: &'a dyn Observer,
        progress: &'a Progress,
        cancellation: &'a Cancellation,
        has_several_sources: bool,
    ) -> Self {
        let rate = options.selection.bytes_per_second_max;
        // A source that is gone can't be copied once more.
        let may_overwrite_own = has_several_sources || options.selection.remove_source_files;
        let throttle = rate.map(|rate| Arc::new(Throttle::new(rate)));
        let open_directories = OpenDirectories::new(options.open_directories_max);
        Self {
            options,
            observer,
            progress,
            cancellation,
            lane: 0,
            surroundings: Surroundings::default(),
            created: may_overwrite_own.then(Mutex::default),
            removed_names: Mutex::default(),
            list: None,
            hard_links: HardLinks::default(),
            operands: Mutex::default(),
            are_stages_forbidden: AtomicBool::new(false),
            throttle,
            open_directories,
            waiting_descriptors: Arc::default(),
            unclonable: Mutex::default(),
            magics: Mutex::default(),
            boot: OnceLock::new(),
        }
    }

    /// The same copy to another target: they keep one rate, and one bound on descriptors.
    pub(super) fn beside(&self, lane: usize, has_several_sources: bool) -> Self {
        let Self { options, observer, progress, cancellation, .. } = self;
        let job =
            Self::new(options.clone(), *observer, progress, cancellation, has_several_sources);
        Self {
            lane,
            surroundings: self.surroundings,
            throttle: self.throttle.clone(),
            open_directories: self.open_directories.clone(),
            waiting_descriptors: Arc::clone(&self.waiting_descriptors),
            ..job
        }
    }

    /// Whether this run has made the file itself.
    pub(super) fn has_created(&self, (device, inode): (u64, u64), name: &[u8]) -> bool {
        let file = (device, inode, self.hash_created(name));
        self.created.as_ref().is_some_and(|created| lock(created).contains(&file))
    }

    /// A file may be made by one name and met by another: in a directory that takes "A" for "a". Where
    /// sources go, none of its names is overwritten.
    fn hash_created(&self, name: &[u8]) -> u64 {
        if self.options.selection.remove_source_files { 0 } else { hash(name) }
    }

    pub(super) fn forbid_stages(&self) {
        self.are_stages_forbidden.store(true, Ordering::Release);
    }

    pub(super) fn are_stages_forbidden(&self) -> bool {
        self.are_stages_forbidden.load(Ordering::Acquire)
    }

    pub(super) fn hold_descriptors(&self, count: usize) {
        self.waiting_descriptors.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn release_descriptors(&self, count: usize) {
        self.waiting_descriptors.fetch_sub(count, Ordering::Relaxed);
    }

    /// How many descriptors one batch may hold: a quarter of what the process may have open is for
    /// all of them together.
    pub(super) fn spare_descriptors(&self) -> usize {
        let most = usize::try_from(open_files_max() / 4).unwrap_or(usize::MAX);
        if self.waiting_descriptors.load(Ordering::Relaxed) >= most { 0 } else { most }
    }

    /// Whether files that are made must be remembered.
    pub(super) fn remembers_created(&self) -> bool {
        self.created.is_some()
    }

    pub(super) fn remember_created(&self, (device, inode): (u64, u64), name: &[u8]) {
        if let Some(created) = &self.created {
            lock(created).insert((device, inode, self.hash_created(name)));
        }
    }

    /// Remembers an operand; false if it was one already.
    pub(super) fn remember_operand(&self, entry: DirectoryEntry, file: Identity) -> bool {
        lock(&self.operands).insert((entry, file))
    }

    /// How many of a file's names this run has removed.
    pub(super) fn removed_names(&self, file: &FileStatus) -> u32 {
        lock(&self.removed_names).get(&(file.device, file.inode)).copied().unwrap_or(0)
    }

    pub(super) fn count_removed_name(&self, file: &FileStatus) {
        *lock(&self.removed_names).entry((file.device, file.inode)).or_default() += 1;
    }

    /// Why cloning between these devices is not worth a try, if it was refused for good.
    pub(super) fn refused_clone(&self, devices: (u64, u64)) -> Option<Errno> {
        lock(&self.unclonable).get(&devices).copied()
    }

    pub(super) fn remember_unclonable(&self, devices: (u64, u64), errno: Errno) {
        lock(&self.unclonable).insert(devices, errno);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Surroundings {
    /// Asks the process's own entries in `/proc`. Where there are none, nothing is assumed.
    pub(super) async fn look(io: &Io) -> Self {
        let mut surroundings = Self { user: None, has_umask: false };
        if let Ok(place) = Place::path("/proc/self") {
            let status = io.status_at(place, true).await;
            surroundings.user = status.ok().flatten().map(|status| status.owner);
        }
        // Where it can't be told, modes are set once more than needed.
        surroundings.has_umask = Self::umask(io).await.is_none_or(|umask| umask != 0);
        surroundings
    }

    async fn umask(io: &Io) -> Option<u32> {
        let file = io.open(Open::read(Place::path("/proc/self/status").ok()?)).await.ok()?;
        let buffer = Buffer::Vec(vec![0; 4096]);
        let length = buffer.length();
        let read = Read { handle: file.into(), buffer, offset_bytes: 0, start: 0, length };
        let (length, operation) = io.perform_counted(Operation::Read(read)).await.ok()?;
        let Operation::Read(read) = operation else { return None };
        let text = str::from_utf8(read.buffer.part(0, length)?).ok()?;
        let umask = text.lines().find_map(|line| line.strip_prefix("Umask:"))?;
        u32::from_str_radix(umask.trim(), 8).ok()
    }
}

impl<'a> Worker<'a> {
    pub(super) fn new(job: &'a Job<'a>, tasks: TaskInitiator, blocks: Rc<BlockEngine<'a>>) -> Self {
        let is_rehearsal = job.options.selection.dry_run;
        let io = Io { tasks, cancellation: job.cancellation.clone(), is_rehearsal };
        Self {
            job,
            io,
            blocks,
            ahead: RefCell::default(),
            part: RefCell::default(),
            hashing: RefCell::default(),
            small_pool: OnceCell::new(),
            buffer: RefCell::default(),
            listing: RefCell::default(),
            batch: RefCell::default(),
            deferred: RefCell::default(),
            published: Cell::default(),
            has_lost: Cell::default(),
            summary: RefCell::default(),
            told: None,
        }
    }

    /// The same, beside other lanes: what all of them fail with is told once.
    pub(super) fn beside(self, told: Option<Rc<Told>>) -> Self {
        Self { told, ..self }
    }

    /// Now, if somebody will want to know how long this takes.
    pub(super) fn started(&self) -> Option<Moment> {
        self.job.observer.wants_copies().then(|| self.io.tasks.now())
    }

    /// Tells of a failure and counts it; that the copy was cancelled is told once, at its end.
    pub(super) fn fail(&self, error: &Error) {
        let mut summary = self.summary.borrow_mut();
        if error.kind() == ErrorKind::Cancelled {
            summary.was_cancelled = true;
            return;
        }
        summary.fail(error.kind());
        if self.told.as_ref().is_none_or(|told| told.is_news(self.job.lane, error)) {
            self.job.observer.on_event(&Event::Failed(error));
        }
    }

    pub(super) fn warn(&self, labels: &dyn Labels, warning: &str) {
        self.job.observer.on_event(&Event::Warned { path: &labels.source(), warning });
    }

    /// The buffer for small files; it comes back by [`Worker::give_back`].
    pub(super) fn take_buffer(&self) -> Buffer {
        let mut buffer = self.buffer.take();
        buffer.resize(self.job.options.small_bytes_max.max(1) as usize, 0);
        Buffer::Vec(buffer)
    }

    pub(super) fn give_back(&self, buffer: Buffer) {
        if let Buffer::Vec(buffer) = buffer {
            *self.buffer.borrow_mut() = buffer;
        }
    }

    /// The kind of file system that a file is on.
    pub(super) async fn magic(&self, device: u64, file: &File) -> u64 {
        if let Some(magic) = lock(&self.job.magics).get(&device) {
            return *magic;
        }
        let status = FileSystemStatus { file: file.clone(), magic: 0, available_bytes: 0 };
        let operation = self.io.perform(Operation::FileSystemStatus(status)).await;
        let Ok(Operation::FileSystemStatus(status)) = operation else { return 0 };
        lock(&self.job.magics).insert(device, status.magic);
        status.magic
    }

    /// What moves blocks: its tasks, for what it lends.
    pub(super) fn block_tasks(&self) -> Result<TaskInitiator, Error> {
        let Some(configuration) = self.blocks.configuration else {
            return Ok(self.io.tasks.clone());
        };
        if self.blocks.proactor.get().is_none() {
            let proactor = Proactor::start(configuration)?;
            // Nobody else can have set it: the worker belongs to one thread.
            let _ = self.blocks.proactor.set(proactor);
        }
        Ok(self.blocks.proactor.get().expect("it was just set").initiator())
    }

    /// The buffers for blocks of large files.
    pub(super) fn block_pool(&self) -> Result<BufferPool, Error> {
        if let Some(pool) = self.blocks.pool.get() {
            return Ok(pool.clone());
        }
        let Options { depth, block_bytes, .. } = self.job.options;
        let tasks = self.block_tasks()?;
        let map = |errno: Errno| Error::from_errno("map buffers", errno);
        let pool = tasks.buffer_pool(depth, block_bytes).map_err(map)?;
        Ok(self.blocks.pool.get_or_init(|| pool).clone())
    }

    /// One buffer for direct I/O on a small file.
    pub(super) fn small_pool(&self) -> Result<BufferPool, Error> {
        if let Some(pool) = self.small_pool.get() {
            return Ok(pool.clone());
        }
        let alignment = u32::try_from(BUFFER_ALIGNMENT_BYTES).unwrap_or(u32::MAX);
        let bytes = self.job.options.small_bytes_max.max(1).next_multiple_of(alignment);
        let pool = BufferPool::unregistered(1, bytes);
        let pool = pool.map_err(|errno| Error::from_errno("map buffers", errno))?;
        Ok(self.small_pool.get_or_init(|| pool).clone())
    }

    /// Runs a handler on what moves blocks; fails if that is broken for good.
    pub(super) async fn run_blocks<H: CompletionHandler + 'static>(
        &self,
        handler: H,
    ) -> Result<(H, Result<(), Error>), Error> {
        match self.blocks.proactor.get() {
            // This worker has nothing else in flight: its thread may wait here.
            Some(proactor) => proactor.try_run(handler),
            None => Ok(self.io.tasks.run(handler).await),
        }
    }
}

impl<'a> BlockEngine<'a> {
    /// A processor of its own, started when it is needed.
    pub(super) fn own(configuration: &'a Configuration) -> Self {
        Self {
            configuration: Some(configuration),
            proactor: OnceCell::new(),
            pool: OnceCell::new(),
        }
    }

    /// Whether it has a processor of its own, or gets one.
    pub(super) fn is_own(&self) -> bool {
        self.configuration.is_some()
    }

    /// The worker's own.
    pub(super) fn same() -> Self {
        Self { configuration: None, proactor: OnceCell::new(), pool: OnceCell::new() }
    }
}
