//! What a copy tells while it works, and what it tells at its end.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::reason::{FellBack, PathReason};
use crate::error::{Error, ErrorKind};

/// Is told what happens, from any thread, as it happens.
pub trait Observer: Sync {
    /// Something happened to one file.
    fn on_event(&self, event: &Event<'_>);

    /// Whether it wants to hear of each file that was copied. Where it does not, the names are not
    /// even put together, and no clock is read.
    fn wants_copies(&self) -> bool {
        true
    }

    /// Whether an existing file may be overwritten ([`crate::copy::Overwrite::Ask`]). The copy of
    /// this file waits for the answer; a tree is copied by one worker then, so that questions come
    /// one at a time.
    fn may_overwrite(&self, question: &Question<'_>) -> bool {
        let _ = question;
        false
    }
}

/// What is asked before an existing file is overwritten.
#[derive(Debug)]
#[non_exhaustive]
pub struct Question<'a> {
    /// Which file.
    pub target: &'a Path,
    /// Its mode: what is not writable is asked about in other words.
    pub mode: u32,
    /// Whether it will be replaced by another file rather than written to.
    pub is_replaced: bool,
}

/// What happened to one file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A file, link or directory was copied and stands under its name, or in a stage that will.
    Copied(&'a Copied<'a>),
    /// A target is on stable storage: its data, metadata and name, and the directories above as far
    /// as this run has made them. Only with [`super::Durability::Full`].
    Done(&'a Done<'a>),
    /// What stands at the target, or in what an interrupted run has left of it, is the source's copy
    /// already: nothing was written.
    UpToDate {
        /// Which.
        source: &'a Path,
        /// Where its copy stands.
        target: &'a Path,
    },
    /// A file was left out: it is named, and counted, and the exit status says so.
    Skipped {
        /// Which.
        source: &'a Path,
        /// Why.
        reason: &'a str,
    },
    /// What stands at the target stays, as was asked for: it is no failure.
    Stayed {
        /// What would have been copied.
        source: &'a Path,
        /// What stays.
        target: &'a Path,
    },
    /// A source was named twice, and is copied once.
    Repeated {
        /// Which.
        source: &'a Path,
        /// Whether it is a directory.
        is_directory: bool,
    },
    /// Something is worth knowing, though the copy goes on and succeeds.
    Warned {
        /// About which file.
        path: &'a Path,
        /// What.
        warning: &'a str,
    },
    /// In a dry run: this would be copied, made or linked. Of it is known what the source tells.
    WouldCopy(&'a Copied<'a>),
    /// In a dry run: this would be deleted from the target.
    WouldDelete {
        /// Which.
        path: &'a Path,
        /// What it is.
        kind: EntryKind,
    },
    /// A name was deleted from the target, because the source does not have it.
    Deleted {
        /// Which.
        path: &'a Path,
        /// What it was.
        kind: EntryKind,
    },
    /// A source was removed: its copy is verified, and on stable storage.
    Removed {
        /// Which.
        source: &'a Path,
    },
    /// In a dry run: this source would be removed once it was copied.
    WouldRemove {
        /// Which.
        source: &'a Path,
    },
    /// The copy of a large file or of a directory was interrupted. What there is of it is kept, and
    /// the same copy, made again, goes on from there.
    Kept {
        /// Which.
        target: &'a Path,
        /// Where what there is of it lies; of a file, with a journal beside it.
        temporary: &'a Path,
        /// How much of it is written.
        bytes: u64,
    },
    /// A file could not be copied. The others go on.
    Failed(&'a Error),
}

/// A file that was copied: what was done, and how.
///
/// Made by [`Copied::new`], which claims nothing; whoever knows more fills it in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Copied<'a> {
    /// Where from.
    pub source: &'a Path,
    /// Where to.
    pub target: &'a Path,
    /// What it is.
    pub kind: EntryKind,
    /// What was done.
    pub action: Action,
    /// How its data was moved; none for what has no data.
    pub path: Option<DataPath>,
    /// Why that way; none for what has no data.
    pub path_reason: Option<PathReason>,
    /// What would have been better and was refused.
    pub fell_back: &'a [FellBack],
    /// How it got its name.
    pub publication: Publication,
    /// The bytes that were copied: its length.
    pub bytes: u64,
    /// How many of them an interrupted copy had left already.
    pub resumed_bytes: u64,
    /// Of an image of a disk: why its copy would have begun again, had it been interrupted.
    pub begins_again: Option<&'static str>,
    /// How many of them are holes in the target; none if that is not known.
    pub holes_bytes: Option<u64>,
    /// How holes were looked for in the source; none where the file system made the copy, and
    /// without data.
    pub hole_search: Option<HoleSearch>,
    /// Whether its extents are shared with the source's; none if that is not known.
    pub is_shared: Option<bool>,
    /// The digest of its bytes, or why there is none.
    pub digest: Result<Digest, &'static str>,
    /// What its bytes were compared with after they were written; none if they were not.
    pub verified: Option<Verified>,
    /// What became of the page cache; none unless it is to stay as it was
    /// ([`crate::cache_policy::CachePolicy::Bypass`]).
    pub cache: Option<CacheEffect>,
    /// From when its target was begun to its name and close, by the clock of the processor that
    /// copied it; none if several took part.
    pub elapsed: Option<Duration>,
    /// Where what stood there before is kept.
    pub backup: Option<&'a Path>,
    /// Whether what stood there before was removed because that was asked for, or could not be
    /// written in place though that was.
    pub removed: bool,
    /// Whether its source was changed while it was copied, so that it may be of no single moment;
    /// only where that is allowed.
    pub is_of_changed: bool,
}

/// What a copied file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file, or what was made one from a stream.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    SymbolicLink,
    /// A named pipe.
    Fifo,
    /// A unix socket's name.
    Socket,
    /// A device of bytes.
    CharacterDevice,
    /// A device of blocks.
    BlockDevice,
}

/// What was done to make a copy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Its bytes were copied, or what the link says was.
    Copied,
    /// It was made: a directory, a node.
    Made,
    /// It became one more name of a file.
    Linked,
    /// It was there, and what is in the source was copied into it: a directory.
    Merged,
}

/// A digest of a file's bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Digest {
    /// By which algorithm: `sha256`.
    pub algorithm: &'static str,
    /// In hexadecimal digits.
    pub hex: String,
}

impl From<crate::digest::Digest> for Digest {
    fn from(digest: crate::digest::Digest) -> Self {
        Self { algorithm: digest.algorithm().name(), hex: digest.to_string() }
    }
}

/// What a file's bytes were compared with after they were written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verified {
    /// With what the device has.
    Device,
    /// With the page cache, where there is no device to read from.
    Cache,
}

/// What a copy that is to leave the page cache as it was has left there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CacheEffect {
    /// Of the source what was there, and of the target nothing, once it has reached its device.
    AsBefore,
    /// Some of it stays, or may: the file system has no other place for it, or does not tell.
    Changed,
}

/// How holes were looked for in a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HoleSearch {
    /// Not at all: every byte was written.
    None,
    /// By the file system's map (SEEK_HOLE).
    Map,
    /// What was read and is only zeros was left out.
    Zeros,
    /// By the map, and in what that says is data, by its zeros.
    MapAndZeros,
}

/// A target that no power cut takes away any more.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Done<'a> {
    /// Which.
    pub target: &'a Path,
    /// Whether it is a directory that was published whole: then everything that was copied below it
    /// is durable, too, and is not told of one by one.
    pub is_tree: bool,
}

/// How the data of a file was moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DataPath {
    /// Extents are shared with the source (FICLONE).
    Clone,
    /// By the server or inside the kernel (`copy_file_range`).
    CopyRange,
    /// Past the page cache on both sides.
    Direct,
    /// Read from the page cache, written past it, or the other way round.
    MixedDirect,
    /// Through the page cache, many blocks in flight.
    Buffered,
    /// Through the page cache in one go: small.
    Small,
    /// Read to its end without a known size.
    Stream,
}

/// How a file got its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Publication {
    /// Renamed from a temporary name; nothing stood there.
    New,
    /// Renamed over the old file.
    Replaced,
    /// Part of a staged directory.
    Staged,
    /// It had its name before: a directory that was there.
    Existing,
    /// Written into the existing file, for this reason.
    InPlace(&'static str),
}

/// How far a copy is. Counted up by the copy, looked at by whoever shows it.
///
/// Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    bytes_done: AtomicU64,
    bytes_found: AtomicU64,
    files_done: AtomicU64,
    files_found: AtomicU64,
    phase: AtomicU8,
}

/// What a copy is doing, of its parts that follow each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Phase {
    /// It looks at what it was asked for.
    #[default]
    Starting,
    /// It copies files.
    Copying,
    /// All is copied: it waits until that is on stable storage.
    Syncing,
    /// It reads back what was written.
    Verifying,
    /// It counts what came of it.
    Ending,
    /// It reads files, for their digests.
    Reading,
}

/// Asks a copy to stop. It drains, removes its temporaries and returns. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

/// What a whole copy came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Regular files copied.
    pub files: u64,
    /// Directories made or entered.
    pub directories: u64,
    /// Symbolic links copied.
    pub links: u64,
    /// Further names given to files that were copied under another.
    pub hard_links: u64,
    /// FIFOs, sockets and devices made anew.
    pub specials: u64,
    /// Bytes of files copied.
    pub bytes: u64,
    /// Files left out.
    pub skipped: u64,
    /// Whether nothing was done, and the counts are those of what would be.
    pub is_dry_run: bool,
    /// Names deleted from the target, because the source does not have them.
    pub deleted: u64,
    /// Sources removed, because their copies are safe.
    pub removed: u64,
    /// Names that the user wanted left out; of an excluded directory only its own.
    pub excluded: u64,
    /// Files that stood at the target already, or in what an interrupted run has left of it, and
    /// needed no copy.
    pub up_to_date: u64,
    /// Files that were read back from their device and are right.
    pub verified_device: u64,
    /// Files that were read back from where they are kept, for want of a device, and are right.
    pub verified_cache: u64,
    /// Existing targets that were left as they were, as was asked for.
    pub stayed: u64,
    /// Files that could not be copied.
    pub failed: u64,
    /// The class that all failures share; none without failures, [`ErrorKind::DoesNotVerify`] if
    /// any is of that, and [`ErrorKind::Io`] if they differ otherwise.
    pub failure: Option<ErrorKind>,
    /// Whether it was asked to stop.
    pub was_cancelled: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// What ran, and why: "using io_uring", or why not.
    pub engine: String,
    /// What ran: "io_uring", "threads".
    pub engine_name: String,
    /// Why io_uring was not used, if it was wanted.
    pub engine_reason: Option<String>,
    /// How many files each data path moved.
    pub paths: PathCounts,
}

/// How many files each data path moved.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PathCounts([u64; DataPath::ALL.len()]);

impl DataPath {
    /// All paths, in the order that they are tried in.
    pub const ALL: [Self; 7] = [
        Self::Clone,
        Self::CopyRange,
        Self::Direct,
        Self::MixedDirect,
        Self::Buffered,
        Self::Small,
        Self::Stream,
    ];

    /// The path's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::CopyRange => "copy-range",
            Self::Direct => "direct",
            Self::MixedDirect => "mixed-direct",
            Self::Buffered => "buffered",
            Self::Small => "small",
            Self::Stream => "stream",
        }
    }
}

impl<'a> Copied<'a> {
    /// A file of no bytes that was made under a new name.
    #[must_use]
    pub fn new(source: &'a Path, target: &'a Path, kind: EntryKind) -> Self {
        Self {
            source,
            target,
            kind,
            action: Action::Made,
            path: None,
            path_reason: None,
            fell_back: &[],
            publication: Publication::New,
            bytes: 0,
            resumed_bytes: 0,
            begins_again: None,
            holes_bytes: None,
            hole_search: None,
            is_shared: None,
            digest: Err(match kind {
                EntryKind::File => "not asked for",
                _ => "it has no data",
            }),
            verified: None,
            cache: None,
            elapsed: None,
            backup: None,
            removed: false,
            is_of_changed: false,
        }
    }
}

impl EntryKind {
    /// The kind's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::SymbolicLink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharacterDevice => "character-device",
            Self::BlockDevice => "block-device",
        }
    }
}

impl Action {
    /// The action's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copied => "copied",
            Self::Made => "made",
            Self::Linked => "linked",
            Self::Merged => "merged",
        }
    }
}

impl CacheEffect {
    /// The effect's stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AsBefore => "as-before",
            Self::Changed => "changed",
        }
    }
}

impl Verified {
    /// What was compared with, by its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Cache => "cache",
        }
    }
}

impl Publication {
    /// The publication's stable name, without its reason.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Replaced => "replaced",
            Self::Staged => "staged",
            Self::Existing => "existing",
            Self::InPlace(_) => "in-place",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Copying => "copying",
            Self::Syncing => "syncing",
            Self::Verifying => "verifying",
            Self::Ending => "ending",
            Self::Reading => "reading",
        })
    }
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InPlace(reason) => write!(f, "in place: {reason}"),
            other => f.write_str(other.name()),
        }
    }
}

impl PathCounts {
    /// Counts one file.
    pub fn count(&mut self, path: DataPath) {
        self.0[path as usize] += 1;
    }

    /// The paths that moved any, with how many.
    pub fn used(&self) -> impl Iterator<Item = (DataPath, u64)> {
        let counts = self.0;
        DataPath::ALL.into_iter().map(move |path| (path, counts[path as usize])).filter(|c| c.1 > 0)
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

impl Progress {
    /// Counts bytes that were written.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes back bytes that are written a second time.
    pub fn take_back_bytes(&self, bytes: u64) {
        self.0.bytes_done.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes back a file that was counted as done, because it is copied again.
    pub fn forget_file(&self, bytes: u64) {
        self.take_back_bytes(bytes);
        self.0.bytes_found.fetch_sub(bytes, Ordering::Relaxed);
        self.0.files_done.fetch_sub(1, Ordering::Relaxed);
        self.0.files_found.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a file that is done with.
    pub fn add_file(&self) {
        self.0.files_done.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a file that will be copied.
    pub fn find_file(&self, bytes: u64) {
        self.0.files_found.fetch_add(1, Ordering::Relaxed);
        self.0.bytes_found.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says what the copy is doing from here on.
    pub fn set_phase(&self, phase: Phase) {
        self.0.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// What the copy is doing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let phases =
            [Phase::Copying, Phase::Syncing, Phase::Verifying, Phase::Ending, Phase::Reading];
        let number = self.0.phase.load(Ordering::Relaxed);
        phases.into_iter().find(|phase| *phase as u8 == number).unwrap_or_default()
    }

    /// Bytes written, and bytes known to be copied.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (self.0.bytes_done.load(Ordering::Relaxed), self.0.bytes_found.load(Ordering::Relaxed))
    }

    /// Files done, and files known to be copied.
    #[must_use]
    pub fn files(&self) -> (u64, u64) {
        (self.0.files_done.load(Ordering::Relaxed), self.0.files_found.load(Ordering::Relaxed))
    }
}

impl Cancellation {
    /// Asks the copy to stop. May be called from a signal handler's thread, any number of times.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the copy was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Summary {
    /// Counts a failure.
    pub(crate) fn fail(&mut self, kind: ErrorKind) {
        self.failed += 1;
        self.failure = shared_failure(self.failure, Some(kind));
    }

    /// Adds what another part of the same copy came to.
    pub(crate) fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.links += other.links;
        self.hard_links += other.hard_links;
        self.specials += other.specials;
        self.bytes += other.bytes;
        self.skipped += other.skipped;
        self.deleted += other.deleted;
        self.removed += other.removed;
        self.excluded += other.excluded;
        self.stayed += other.stayed;
        self.failed += other.failed;
        self.was_cancelled |= other.was_cancelled;
        self.failure = shared_failure(self.failure, other.failure);
        self.verified_device += other.verified_device;
        self.verified_cache += other.verified_cache;
        self.up_to_date += other.up_to_date;
        self.paths.add(&other.paths);
    }
}

/// What is said of two failures: that something does not verify outweighs all else.
fn shared_failure(one: Option<ErrorKind>, other: Option<ErrorKind>) -> Option<ErrorKind> {
    match (one, other) {
        (failure, None) | (None, failure) => failure,
        (Some(one), Some(other)) if one == other => Some(one),
        (Some(ErrorKind::DoesNotVerify), _) | (_, Some(ErrorKind::DoesNotVerify)) => {
            Some(ErrorKind::DoesNotVerify)
        }
        _ => Some(ErrorKind::Io),
    }
}

/// Silence.
impl Observer for () {
    fn on_event(&self, _event: &Event<'_>) {}

    fn wants_copies(&self) -> bool {
        false
    }
}
