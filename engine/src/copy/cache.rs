//! Leaving the page cache as it was, where that is asked for.
//!
//! ```text
//! past the page cache (`route`)   nothing passes through it
//! uncached (RWF_DONTCACHE)        the kernel takes away the pages that it made for a read or a write
//! in the end                      of the source is dropped what was not there before (`absence`); what of
//!                                 a target is there still is put on its device and dropped, but of a
//!                                 small one that was written uncached: that goes by itself
//! ```
//!
//! Whether a file can be moved uncached is found out by a read behind the end of every file.

use super::absence::Absence;
use super::data::{Moved, PAGE_BYTES};
use super::publish::NewFile;
use super::segments::Segment;
use super::worker::Worker;
use super::{CacheEffect, DataPath};
use crate::buffer::Buffer;
use crate::cache_policy::CachePolicy;
use crate::error::Error;
use crate::operation::{
    Advice, Advise, CacheStatus, File, FileKind, FileStatus, Handle, Operation, Read, SyncReach,
};

/// Behind the end of every file, and so far before the last offset that a read can't pass that.
const BEHIND_EVERY_END: u64 = 1 << 62;

/// What is known of a source's pages before it is read.
#[derive(Debug)]
pub(super) enum Pages {
    /// Reading changes nothing, or nobody cares.
    Settled,
    /// These are not in the page cache. Of what is read uncached by several at once some may stay.
    Absent(Vec<Segment>),
    /// Nobody can tell which are there, and those that are read stay.
    Unknown,
}

impl Worker<'_> {
    pub(super) fn bypasses_cache(&self) -> bool {
        self.job.options.cache == CachePolicy::Bypass
    }

    /// What moves a file's bytes through the page cache.
    pub(super) async fn handle(&self, file: &File) -> Handle {
        let handle = Handle::from(file);
        if self.moves_uncached(file).await { handle.uncached() } else { handle }
    }

    /// Whether a file is to be moved uncached, and can be.
    pub(super) async fn moves_uncached(&self, file: &File) -> bool {
        if !self.bypasses_cache() {
            return false;
        }
        let handle = Handle::from(file).uncached();
        let (buffer, offset_bytes) = (Buffer::Vec(vec![0]), BEHIND_EVERY_END);
        let read = Read { handle, buffer, offset_bytes, start: 0, length: 1 };
        self.io.perform_counted(Operation::Read(read)).await.is_ok()
    }

    /// Looks at the pages of a source that is about to be read.
    pub(super) async fn look_at_pages(&self, source: &File, status: &FileStatus) -> Pages {
        if !self.bypasses_cache() || status.kind != FileKind::Regular {
            return Pages::Settled;
        }
        match self.absent_pages(source, status.size_bytes).await {
            Some(absent) if absent.is_empty() => Pages::Settled,
            Some(absent) => Pages::Absent(absent),
            None if self.moves_uncached(source).await => Pages::Settled,
            None => Pages::Unknown,
        }
    }

    async fn absent_pages(&self, file: &File, size_bytes: u64) -> Option<Vec<Segment>> {
        let mut absence = Absence::of(size_bytes);
        while let Some(part) = absence.question() {
            absence.on_answer(self.resident_pages(file, part).await?);
        }
        absence.finish()
    }

    /// Takes from the page cache what a copy has put there, as far as that is asked for, and says
    /// what came of it.
    pub(super) async fn settle_cache(
        &self,
        source: &File,
        pages: Pages,
        new: &NewFile,
        mut moved: Moved,
    ) -> Result<Moved, Error> {
        if !self.bypasses_cache() {
            return Ok(moved);
        }
        let is_source_settled = match pages {
            Pages::Settled => true,
            Pages::Absent(absent) => {
                let mut are_gone = true;
                for part in absent {
                    are_gone &= self.drop_pages(source, part).await;
                }
                are_gone
            }
            Pages::Unknown => !passes_through(moved.path),
        };
        let is_as_before = self.settle_target(new, &moved).await? && is_source_settled;
        moved.cache = Some(if is_as_before { CacheEffect::AsBefore } else { CacheEffect::Changed });
        Ok(moved)
    }

    async fn settle_target(&self, new: &NewFile, moved: &Moved) -> Result<bool, Error> {
        if new.is_stream() {
            return Ok(true);
        }
        // A large file may have a page for its tail from when room was reserved or it was cut: no
        // write takes that away.
        let is_small = matches!(moved.path, DataPath::Small | DataPath::Stream);
        if is_small && self.moves_uncached(&new.file).await {
            return Ok(true);
        }
        let whole = Segment { start: 0, end: moved.bytes.next_multiple_of(PAGE_BYTES) };
        if self.resident_pages(&new.file, whole).await == Some(0) {
            return Ok(true);
        }
        // Pages that are not on the device are not dropped.
        self.sync(&new.file, SyncReach::Data).await?;
        Ok(self.drop_pages(&new.file, whole).await)
    }

    /// Drops pages of a file from the page cache, and makes sure that they are gone: others may have
    /// them mapped, or read them again.
    pub(super) async fn drop_pages(&self, file: &File, part: Segment) -> bool {
        let drop = Advise {
            file: file.clone(),
            advice: Advice::DontNeed,
            offset_bytes: part.start,
            length_bytes: part.length(),
        };
        self.io.perform(Operation::Advise(drop)).await.is_ok()
            && self.resident_pages(file, part).await == Some(0)
    }

    /// How many pages of a part of a file are in the page cache; none where the kernel does not tell.
    pub(super) async fn resident_pages(&self, file: &File, part: Segment) -> Option<u64> {
        let status = CacheStatus {
            file: file.clone(),
            offset_bytes: part.start,
            length_bytes: part.length(),
        };
        let resident = self.io.perform_counted(Operation::CacheStatus(status)).await;
        resident.ok().map(|(resident, _)| resident.into())
    }
}

/// Whether what is read on this path may leave pages.
fn passes_through(path: DataPath) -> bool {
    !matches!(path, DataPath::Direct | DataPath::Clone | DataPath::CopyRange)
}
