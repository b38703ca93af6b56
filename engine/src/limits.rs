//! Every bound of the engine in one place, with its reason, and how they relate.

use std::time::Duration;

use crate::units::{KIB, MIB};

/// Operations that one processor keeps at a time: what a ring takes at the most. Each slot costs
/// about 700 bytes.
pub const SLOTS_MAX: u32 = 1 << 15;
/// Fewer would have no room for a chain.
pub const SLOTS_MIN: u32 = 4;
/// Operations in flight by default: four times what keeps a fast disk busy.
pub const SLOTS_DEFAULT: u32 = 512;
/// Members of one chain: open, read, close and a timeout.
pub const CHAIN_MEMBERS_MAX: usize = 4;
/// Files that one ring keeps registered.
pub const REGISTERED_FILES_MAX: u32 = 64;
/// Blocks of one pool that sockets receive into: what a ring of provided buffers takes at the most
/// (`io_uring_register_buf_ring(3)`).
pub const RECEIVE_BLOCKS_MAX: u32 = 1 << 15;
/// Pools that one ring gives buffers of to what it receives.
pub const RECEIVE_POOLS_MAX: usize = 64;
/// Connections that wait to be accepted by who listens as a task does: what `net.core.somaxconn`
/// allows by default since Linux 5.4.
pub const BACKLOG_DEFAULT: u32 = 4096;
/// Accepted connections that wait until a task takes them.
pub const ACCEPTED_MAX: usize = 256;
/// Pieces of one connection that wait until a task takes them, before receiving pauses.
pub const PIECES_MAX: usize = 16;
/// How long it takes until a connect is attempted again that found no room among those who wait to be
/// accepted, on a socket of this machine: nothing tells when there is some (`unix(7)`).
pub const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(1);
/// Threads that perform what has no io_uring opcode.
pub const HELPER_THREADS_DEFAULT: usize = 4;
/// More helpers than this only queue on the same locks.
pub const HELPER_THREADS_MAX: usize = 64;

/// Bytes of one block of a large copy. Larger blocks gained nothing on the reference machine.
pub const BLOCK_BYTES_DEFAULT: u32 = 1 << 20;
/// Blocks of a large copy in flight.
pub const DEPTH_DEFAULT: u32 = 8;
/// Blocks in flight where both sides are in the page cache: while one is written, under the inode's
/// lock, the next is read, and a third is ready.
pub const PAIRS_MAX: u32 = 3;
/// More blocks than this only queue in the device.
pub const DEPTH_MAX: u32 = 256;
/// An arena is a whole number of huge pages, so that it can be mapped by them.
pub const HUGE_PAGE_BYTES: u64 = 2 * MIB;
/// Every buffer of an arena starts at a multiple of this: the largest alignment for direct I/O
/// that disks ask for.
pub const BUFFER_ALIGNMENT_BYTES: u64 = 4 * KIB;

/// Bytes of what is written to try out a file system: the largest alignment for direct I/O.
pub const PROBE_BYTES: u32 = 4 << 10;

/// A file up to this size is moved by one read and one write, in the turn of whoever copies it.
pub const SMALL_BYTES_MAX: u32 = 256 << 10;
/// From this size on a file is moved in many blocks by a processor of its own: below, setting that
/// up and touching its buffers costs more than it brings.
pub const LARGE_BYTES_MIN: u64 = 16 * MIB;
/// Bytes that one digest of a fingerprint stands for: small enough to find a difference soon, large
/// enough that 16 bytes for each are nothing.
pub const FINGERPRINT_UNIT_BYTES: u64 = MIB;
/// Bytes that a list of digests may take in memory before it is written: some two million names.
pub const MANIFEST_BYTES_MAX: u64 = 512 * MIB;
/// Pieces of a tree that wait for a shard; when there is no more room, whoever found the piece does it
/// at once.
pub const TREE_QUEUE_MAX: usize = 64;
/// Targets that one run copies to: each keeps files of its own open, for every file that is copied.
pub const TARGETS_MAX: usize = 16;
/// Names of a list that are taken in one go where not all of a directory is copied.
pub const LISTED_NAMES_MAX: usize = 256;
/// Files that are opened, and asked for, before it is their turn, where the cores wait for the disk.
pub const FILES_AHEAD_MAX: usize = 16;
/// Files that a shard may have open, of those that the process may: more are not added for less.
pub const SHARD_FILES: u64 = 28;
/// Of so many files that the process may have open one is for a directory that is being copied, which
/// takes two: above that those that are not worked on are closed, and opened again.
pub const OPEN_DIRECTORIES_SHARE: u64 = 8;
/// Shards of a tree copy at the most, while they mostly wait for a disk.
pub const TREE_SHARDS_MAX: usize = 32;
/// Pieces of a tree that one proactor copies side by side where there is only one.
pub const TREE_TASKS: usize = 4;
/// Segments of a file with holes that are known at a time, 16 bytes each. Between two such parts
/// no block is in flight.
pub const SEGMENTS_MAX: usize = 4096;
/// Files that are made durable together: one sync of the file system for all of them. Each keeps its
/// descriptor, and with it its lock, until it has its name.
pub const BATCH_FILES_MAX: usize = 256;
/// Descriptors that one batch keeps open, those of directories included.
pub const BATCH_DESCRIPTORS_MAX: usize = 768;
/// Bytes of the files of one batch: what a sync then has to wait for.
pub const BATCH_BYTES_MAX: u64 = 256 * MIB;
/// How long the first file of a batch waits for the others.
pub const BATCH_AGE_MAX: Duration = Duration::from_secs(2);
/// A larger file is synced by itself: it pays for that.
pub const BATCH_FILE_BYTES_MAX: u64 = LARGE_BYTES_MIN;
/// So few files are synced one by one: a sync of the file system writes what others have written,
/// too.
pub const BATCH_ALONE_MAX: usize = 4;
/// A file of this size or more keeps a journal while it is copied, to go on after an interruption,
/// and a stage with so much in it is kept: below, copying it again takes no longer than a blink.
pub const RESUME_BYTES_MIN: u64 = 128 * MIB;
/// How often its journal notes how far it came.
pub const JOURNAL_EVERY_BYTES: u64 = 64 * MIB;
/// How many notes there are to a sync, where one costs little: a sync a GiB.
pub const JOURNAL_NOTES_A_SYNC: u64 = 16;
/// Bytes of a journal that are read: some 50,000 records, so 3 TiB. What is behind is copied again.
pub const JOURNAL_BYTES_MAX: u32 = 1 << 20;
/// A source that was touched later than so long before a copy began is copied anew when that copy is
/// gone on with: the coarsest time that a file system keeps, and something for the clock's own steps.
pub const TIME_DOUBT_SECONDS: i64 = 2;
/// How often a copy of a file begins again because the source was changed meanwhile.
pub const SOURCE_CHANGED_RETRIES: u32 = 1;
/// How many temporary names are tried before the copy of a file is given up.
pub const TEMPORARY_ATTEMPTS_MAX: u64 = 16;
/// How many names of backups are tried while others take them.
pub const BACKUP_ATTEMPTS_MAX: u32 = 64;
/// How often a leftover that is locked is looked at again. The ring of a killed process keeps its
/// files, and so their locks, until a worker of the kernel has taken it down (`io_ring_exit_work`),
/// some 30 ms after the process has gone. A run that is alive keeps its lock for longer.
pub const LEFTOVER_LOOKS_MAX: u32 = 20;
/// How long it is waited between two looks.
pub const LEFTOVER_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How many symbolic links a target operand may lead through, as in path resolution
/// (`path_resolution(7)`).
pub const LINKS_FOLLOWED_MAX: u32 = 40;

/// How often the kernel is asked about parts of a file, to find out which are not in the page cache:
/// enough for some ten pieces of a file of any size.
pub const CACHE_QUESTIONS_MAX: u32 = 256;

/// Bytes of one piece of a large file that is read from the page cache: it stays in the cache of the
/// core that reads it, and hashes it next.
pub const SUM_PIECE_BYTES_CACHED: u32 = 256 << 10;
/// Hands that read one large file, or hash what a ring has read, at the most.
pub const SUM_HANDS_MAX: usize = 16;
/// Large files that are read at a time: each has blocks of its own.
pub const SUM_LARGE_FILES_MAX: usize = 2;
/// Files that were summed and wait until those before them are: a name and some digests each.
pub const SUM_WINDOW: usize = 4096;
/// Bytes of the names and digests of a tree that are sorted in memory.
pub const SORT_BYTES_MAX: usize = 8 << 20;
/// What is read at least of each sorted run that was written away, while they are merged.
pub const SORT_READ_BYTES_MIN: usize = 4 << 10;

/// What a copy whose rate is limited moves in one go at least, a page, and at most.
pub const THROTTLE_CHUNK_BYTES_MIN: u64 = 4 * KIB;
/// The upper bound.
pub const THROTTLE_CHUNK_BYTES_MAX: u64 = 1 << 30;
/// How much of the time that a limited rate gave and nobody used may be made up for.
pub const THROTTLE_SLACK: Duration = Duration::from_millis(100);
/// How long a copy waits for its rate before it looks again whether it was cancelled.
pub const THROTTLE_WAIT_MAX: Duration = Duration::from_millis(50);

/// Files that one tail follows: each is kept open, and takes some 2 KiB.
pub const TAIL_FILES_MAX: usize = 1 << 16;
/// First bytes of a file that it is known by.
pub const TAIL_HEAD_BYTES: usize = 1024;
/// Bytes before a position that the file is known by.
pub const TAIL_WINDOW_BYTES: u64 = 256;
/// A file that is shorter is never taken for the copy of another: some lines of text are common.
pub const TAIL_COPY_BYTES_MIN: usize = 64;
/// How many looks a file is searched for before it is given up: one look may miss what is renamed
/// under its eyes.
pub const TAIL_LOST_LOOKS: u8 = 3;
/// The smallest block that a batch is read into.
pub const TAIL_BATCH_BYTES_MIN: u32 = 1;
/// How long a tail waits for a block to come back before it looks for one again.
pub const TAIL_LEASE_WAIT: Duration = Duration::from_micros(500);
/// Bytes of a checkpoint that are read: the records of all files with paths of any length.
pub const TAIL_CHECKPOINT_BYTES_MAX: u64 = TAIL_FILES_MAX as u64 * 16 * KIB;

/// Tasks that one proactor runs at a time.
pub const TASKS_MAX: usize = 1 << 16;
/// Handlers that one proactor keeps at a time.
pub const HANDLERS_MAX: usize = 1 << 16;
/// Threads that one proactor offloads work to.
pub const OFFLOAD_THREADS_MAX: usize = 8;
/// Closures that wait for one of them; who has more waits.
pub const OFFLOAD_QUEUE_MAX: usize = 256;
/// How often an operation that a signal interrupted is started again, and how often in a row the
/// kernel may refuse to submit for want of memory.
pub const RETRIES_MAX: u32 = 64;
/// How long dropping a processor waits for what is in flight before it leaks it.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a name in a directory (`NAME_MAX` of `pathconf(3)` on every Linux file system).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a path that the kernel takes at a time, with the NUL that ends it (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;
/// Where a copy is, is told from a directory above that is about so many bytes of path away.
pub const ANCHOR_PATH_BYTES: usize = 1024;
/// Bytes of directory entries that one listing asks for.
pub const LISTING_BYTES: usize = 32 << 10;
/// Bytes that an extended attribute, or the names of all of a file's, are first given room for.
pub const ATTRIBUTE_BYTES: usize = 512;
/// Bytes of the longest value and the longest list of extended attributes (`xattr(7)`).
pub const ATTRIBUTE_BYTES_MAX: usize = 64 << 10;
/// Bytes that one `copy_file_range` is asked for: glibc 2.41 corrupts above 2 GiB (sourceware
/// PR33245), the kernel stops below 2 GiB, and progress should be seen.
pub const COPY_RANGE_BYTES_MAX: u32 = 1 << 30;

const _: () = assert!(SLOTS_DEFAULT <= SLOTS_MAX && SLOTS_MIN as usize >= CHAIN_MEMBERS_MAX);
const _: () = assert!(DEPTH_MAX * 2 <= SLOTS_DEFAULT, "a linked pair takes two slots a block");
const _: () = assert!(TARGETS_MAX <= u32::BITS as usize, "a bit says of each whether it is lost");
const _: () = assert!((BLOCK_BYTES_DEFAULT as u64).is_multiple_of(BUFFER_ALIGNMENT_BYTES));
const _: () = assert!((PROBE_BYTES as u64).is_multiple_of(BUFFER_ALIGNMENT_BYTES));
const _: () = assert!(HUGE_PAGE_BYTES.is_multiple_of(BUFFER_ALIGNMENT_BYTES));
const _: () = assert!(BATCH_ALONE_MAX < BATCH_FILES_MAX && BATCH_FILES_MAX < BATCH_DESCRIPTORS_MAX);
const _: () = assert!(BATCH_FILE_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(HELPER_THREADS_DEFAULT <= HELPER_THREADS_MAX);
const _: () = assert!(ACCEPTED_MAX <= BACKLOG_DEFAULT as usize, "more wait in the kernel");
const _: () = assert!(RECEIVE_BLOCKS_MAX <= u16::MAX as u32, "the kernel counts them in 16 bits");
