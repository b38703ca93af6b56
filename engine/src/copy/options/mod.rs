//! What a copy can be asked for.
//!
//! One file a family of options; [`Options`] holds one of each.

mod attributes;
mod data;
mod existing;
mod listed;
mod operands;
mod safety;
mod selection;
mod verification;
mod what;

use std::path::PathBuf;

pub use attributes::*;
pub use data::*;
pub use existing::*;
pub use listed::*;
pub use operands::*;
pub use safety::*;
pub use selection::*;
pub use verification::*;
pub use what::*;

use crate::cache_policy::CachePolicy;
use crate::digest::Algorithm;

/// How a copy is made. The default is what `ucp SOURCE… TARGET` does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether data goes past the page cache.
    pub direct: Direct,
    /// What the copy leaves in the page cache.
    pub cache: CachePolicy,
    /// Whether extents may be shared with the source.
    pub reflink: Reflink,
    /// Which holes targets get.
    pub holes: Holes,
    /// Whether a block device is written over only if nobody uses it and it looks empty.
    pub protect_devices: bool,
    /// The block devices that may be written over in any case, by the names of their targets.
    pub destroy_data: Vec<PathBuf>,
    /// How a block's read and write follow each other.
    pub pipeline: PipelineMode,
    /// When files are read before it is their turn.
    pub look_ahead: LookAhead,
    /// What becomes of FIFOs, sockets and devices.
    pub specials: Specials,
    /// What is kept of a file beside its bytes.
    pub preserve: Preserve,
    /// What is on stable storage when the copy returns.
    pub durability: Durability,
    /// Which symbolic links are followed.
    pub links: FollowLinks,
    /// What happens where something stands already, and how a target is made.
    pub existing: Existing,
    /// What becomes of directories that were named.
    pub directories: Directories,
    /// Whether directories of other file systems than their operand's stay empty (`-x`).
    pub one_file_system: bool,
    /// Whether a source keeps its whole path below the target directory (`--parents`).
    pub parents: bool,
    /// Whether existing targets are written in place rather than replaced.
    pub in_place: bool,
    /// Whether a new directory is staged and published whole.
    pub stage: Stage,
    /// What is hashed, compared and written down.
    pub verification: Verification,
    /// Whether a file whose source is changed while it is copied, twice, is published all the same
    /// and marked, rather than discarded.
    pub allow_changed: bool,
    /// Whether the copy of a large file or of a new directory that was interrupted goes on where it
    /// stopped.
    pub resume: Resume,
    /// From this size on a file is large for that; with so many bytes in it, a new directory is kept
    /// when its copy is cancelled.
    pub resume_bytes_min: u64,
    /// How often it is noted how far such a copy has come.
    pub journal_every_bytes: u64,
    /// Blocks of a large file in flight.
    pub depth: u32,
    /// Bytes of one block.
    pub block_bytes: u32,
    /// A file up to this size is moved by one read and one write.
    pub small_bytes_max: u32,
    /// From this size on a file is moved in blocks, many in flight.
    pub large_bytes_min: u64,
    /// How many directories of a tree are kept open before those that are not worked on are closed,
    /// to be opened again; none for what the process may have open.
    pub open_directories_max: Option<usize>,
    /// What of the sources is copied, and what becomes of the rest.
    pub selection: Selection,
    /// The mode bits that new files must not have, where the source's mode is not kept.
    pub umask: u32,
}

impl Options {
    /// Why these options can't be had together; none if they can.
    #[must_use]
    pub fn contradiction(&self) -> Option<&'static str> {
        let backup = self.existing.backup.as_ref().map(|backup| backup.style);
        let may_replace_copies = backup.is_some_and(|style| style != BackupStyle::Numbered);
        if self.cache == CachePolicy::Keep && self.direct == Direct::On {
            return Some("what goes past the page cache is not kept there");
        }
        match self.selection.remove_source_files {
            true if self.selection.delete => {
                Some("what is removed from a source would be deleted from its mirror")
            }
            true if may_replace_copies => {
                Some("a simple backup may replace a copy whose source was removed")
            }
            _ => None,
        }
    }

    /// The same, with what one option asks of others.
    pub(in crate::copy) fn complete(mut self) -> Self {
        if self.selection.remove_source_files {
            // A copy that stands alone is whole, on the disk, under its own name, and stays there.
            self.verification.verify.get_or_insert(Algorithm::Xxh3_128);
            self.durability = Durability::Full;
            self.stage = Stage::Never;
            self.existing.merge_created = false;
        }
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            direct: Direct::default(),
            cache: CachePolicy::default(),
            reflink: Reflink::default(),
            holes: Holes::default(),
            protect_devices: true,
            destroy_data: Vec::new(),
            pipeline: PipelineMode::default(),
            look_ahead: LookAhead::default(),
            specials: Specials::default(),
            preserve: Preserve::default(),
            durability: Durability::default(),
            links: FollowLinks::default(),
            existing: Existing::default(),
            directories: Directories::default(),
            one_file_system: false,
            parents: false,
            in_place: false,
            stage: Stage::default(),
            verification: Verification::default(),
            allow_changed: false,
            resume: Resume::default(),
            resume_bytes_min: crate::limits::RESUME_BYTES_MIN,
            journal_every_bytes: crate::limits::JOURNAL_EVERY_BYTES,
            depth: crate::limits::DEPTH_DEFAULT,
            block_bytes: crate::limits::BLOCK_BYTES_DEFAULT,
            small_bytes_max: crate::limits::SMALL_BYTES_MAX,
            large_bytes_min: crate::limits::LARGE_BYTES_MIN,
            open_directories_max: None,
            selection: Selection::default(),
            umask: 0,
        }
    }
}
