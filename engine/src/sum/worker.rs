//! Who reads files: one worker a shard, and what all of them share.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::Options;
use super::account::Summary;
use super::hands::aligned_start;
use super::shelf::Shelf;
use crate::buffer::{Buffer, BufferPool};
use crate::copy::io::Io;
use crate::copy::route::End;
use crate::copy::throttle::Throttle;
use crate::copy::{Cancellation, Progress, file_system as magic};
use crate::error::{Errno, Error};
use crate::limits::{BUFFER_ALIGNMENT_BYTES, SUM_LARGE_FILES_MAX};
use crate::operation::{
    Advice, Advise, CacheStatus, File, FileKind, FileStatus, FileSystemStatus, Operation, SetDirect,
};
use crate::proactor::{Proactor, TaskInitiator};
use crate::processor::{Configuration, ThreadProcessor};

use super::way::{Facts, Way};

/// What all workers share.
pub(crate) struct Job<'a> {
    pub(crate) options: &'a Options,
    pub(crate) progress: &'a Progress,
    pub(crate) cancellation: &'a Cancellation,
    pub(crate) throttle: Option<Throttle>,
    pub(crate) crew: Crew<'a>,
    /// Memory for the blocks of large files, and with it the permission to read one.
    pub(crate) pools: Shelf<Option<BufferPool>>,
    /// What kind of file system each device has.
    magics: Mutex<BTreeMap<u64, u64>>,
}

/// Who does the work.
#[derive(Clone, Copy)]
pub(crate) enum Crew<'a> {
    /// Threads, each with a proactor of its own.
    Threads(&'a Configuration),
    /// Tasks on the proactor that everything runs on.
    Tasks,
}

/// Reads files, one at a time.
pub(crate) struct Worker<'a> {
    pub(crate) job: &'a Job<'a>,
    pub(crate) io: Io,
    /// What reads large files past the page cache; started when it is needed.
    proactor: OnceCell<Proactor>,
    /// For small files; kept from one to the next.
    buffers: RefCell<Vec<Buffer>>,
    pub(crate) listing: RefCell<Vec<u8>>,
    pub(crate) summary: RefCell<Summary>,
}

/// Bytes of a page of the page cache, as `cachestat(2)` counts them.
const PAGE_BYTES: u64 = 4096;

impl<'a> Job<'a> {
    pub(crate) fn new(
        options: &'a Options,
        progress: &'a Progress,
        cancellation: &'a Cancellation,
        crew: Crew<'a>,
    ) -> Self {
        Self {
            options,
            progress,
            cancellation,
            throttle: options.bytes_per_second_max.map(Throttle::new),
            crew,
            pools: Shelf::new((0..SUM_LARGE_FILES_MAX).map(|_| None).collect()),
            magics: Mutex::default(),
        }
    }

    pub(crate) fn io(&self, tasks: TaskInitiator) -> Io {
        Io { tasks, cancellation: self.cancellation.clone(), is_rehearsal: false }
    }
}

impl<'a> Worker<'a> {
    pub(crate) fn new(job: &'a Job<'a>, tasks: TaskInitiator) -> Self {
        Self {
            job,
            io: job.io(tasks),
            proactor: OnceCell::new(),
            buffers: RefCell::default(),
            listing: RefCell::default(),
            summary: RefCell::default(),
        }
    }

    /// A buffer for reading in turn, and the byte of it at which direct I/O may begin.
    pub(crate) fn take_buffer(&self) -> (Buffer, u32) {
        let buffer = self.buffers.borrow_mut().pop().unwrap_or_else(|| {
            let bytes = u64::from(self.job.options.small_bytes_max) + BUFFER_ALIGNMENT_BYTES;
            Buffer::Vec(vec![0; usize::try_from(bytes).expect("a small file fits into memory")])
        });
        let start = aligned_start(&buffer);
        (buffer, start)
    }

    pub(crate) fn give_back(&self, buffer: Buffer) {
        self.buffers.borrow_mut().push(buffer);
    }

    /// What reads large files.
    pub(crate) fn ring(&self, configuration: &Configuration) -> Result<&Proactor, Error> {
        if self.proactor.get().is_none() {
            let proactor = Proactor::start(configuration)?;
            self.summary.borrow_mut().engine = proactor.capabilities().to_string();
            // Nobody else can have set it: the worker belongs to one thread.
            let _ = self.proactor.set(proactor);
        }
        Ok(self.proactor.get().expect("it was just set"))
    }

    /// Decides how a file is read, and switches it over. To be undone by nobody: it is closed soon.
    pub(crate) async fn choose_way(&self, file: &File, status: &FileStatus, start: u64) -> Way {
        use crate::cache_policy::CachePolicy::{Auto, Keep};
        let policy = self.job.options.cache;
        let is_large = status.size_bytes >= self.job.options.large_bytes_min;
        if policy == Keep || (policy == Auto && !is_large) {
            return Way::Cached { is_resident: !is_large, drops: false };
        }
        let resident_permille = self.resident_permille(file, status.size_bytes).await;
        let facts = Facts { end: self.end(file, status).await, is_large, start, resident_permille };
        let way = Way::choose(policy, &facts);
        match way {
            Way::Direct(_) if !self.set_direct(file, true).await => {
                Way::Cached { is_resident: false, drops: resident_permille == Some(0) }
            }
            way => way,
        }
    }

    pub(crate) async fn set_direct(&self, file: &File, is_direct: bool) -> bool {
        let set = SetDirect { file: file.clone(), is_direct };
        self.io.perform(Operation::SetDirect(set)).await.is_ok()
    }

    /// Drops what of a file is in the page cache.
    pub(crate) async fn drop_pages(&self, file: &File) {
        let advice = Advice::DontNeed;
        let drop = Advise { file: file.clone(), advice, offset_bytes: 0, length_bytes: 0 };
        // It is a wish. Where it can't be met, the pages go when others need the room.
        let _ = self.io.perform(Operation::Advise(drop)).await;
    }

    async fn resident_permille(&self, file: &File, size: u64) -> Option<u32> {
        let status = CacheStatus { file: file.clone(), offset_bytes: 0, length_bytes: size };
        let (resident, _) = self.io.perform_counted(Operation::CacheStatus(status)).await.ok()?;
        let pages = size.div_ceil(PAGE_BYTES).max(1);
        let resident = u64::from(resident).min(pages);
        // One page is more than nothing, and one less is not all.
        let permille = if resident == pages { 1000 } else { (resident * 1000 / pages).max(1) };
        u32::try_from(if resident == 0 { 0 } else { permille }).ok()
    }

    async fn end(&self, file: &File, status: &FileStatus) -> End {
        let magic = match status.kind {
            FileKind::BlockDevice => magic::BLOCK_DEVICE,
            _ => self.magic(status.device, file).await,
        };
        let alignment = status.direct_memory_alignment.max(status.direct_offset_alignment);
        End { magic, direct_alignment: alignment }
    }

    async fn magic(&self, device: u64, file: &File) -> u64 {
        let magics = || self.job.magics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(magic) = magics().get(&device) {
            return *magic;
        }
        let status = FileSystemStatus { file: file.clone(), magic: 0, available_bytes: 0 };
        let operation = self.io.perform(Operation::FileSystemStatus(status)).await;
        let Ok(Operation::FileSystemStatus(status)) = operation else { return 0 };
        magics().insert(device, status.magic);
        status.magic
    }

    /// Memory for the blocks of one large file.
    pub(crate) fn block_pool(&self) -> Result<BufferPool, Error> {
        let Options { depth, block_bytes, .. } = *self.job.options;
        let map = |errno: Errno| Error::from_errno("map buffers", errno);
        // A comparison takes two at a time.
        BufferPool::unregistered(depth.max(2), block_bytes).map_err(map)
    }
}

/// A proactor whose operations are performed in the caller's turn.
pub(crate) fn inline_proactor() -> Proactor {
    Proactor::new(Box::new(ThreadProcessor::new(0, INLINE_SLOTS)))
}

/// Slots of a proactor that performs nearly everything at once.
const INLINE_SLOTS: u32 = 16;

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
