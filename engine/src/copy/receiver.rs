//! A file that is given the bytes of a source, alone or beside others.
//!
//! What one of them fails with stops that one only: it is kept with it, and the bytes go on to the
//! others. A failure of the source stops all.

use super::publish::NewFile;
use super::zeros::LeftOut;
use crate::error::Error;
use crate::operation::Handle;

/// A file that is given bytes.
#[derive(Debug)]
pub(super) struct Receiver<'a> {
    pub(super) new: &'a NewFile,
    /// The block of its file system, once that is known.
    pub(super) block_bytes: Option<u32>,
    /// What of it is left out, so that it is a hole.
    pub(super) left_out: LeftOut,
    /// What is written to it through the page cache leaves nothing there.
    pub(super) is_uncached: bool,
    /// Bytes that were no data in the source's map.
    pub(super) gap_bytes: u64,
    /// Why it gets nothing more. Whoever owns the file says which it is.
    failed: Option<Error>,
}

impl<'a> Receiver<'a> {
    pub(super) fn new(new: &'a NewFile) -> Self {
        let left_out = LeftOut::default();
        Self { new, block_bytes: None, left_out, is_uncached: false, gap_bytes: 0, failed: None }
    }

    /// What it is written by, through the page cache.
    pub(super) fn handle(&self) -> Handle {
        let handle = Handle::from(&self.new.file);
        if self.is_uncached { handle.uncached() } else { handle }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.failed.is_some()
    }

    /// It gets nothing more. Of several reasons the first is the one.
    pub(super) fn lose(&mut self, error: Error) {
        self.failed.get_or_insert(error);
    }

    /// Takes note of what was done to it alone.
    pub(super) fn take_in<T>(&mut self, done: Result<T, Error>) -> Option<T> {
        done.map_err(|error| self.lose(error)).ok()
    }

    /// How much of it is holes, or why it is not whole.
    pub(super) fn into_hole_bytes(self) -> Result<u64, Error> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.gap_bytes + self.left_out.bytes.get()),
        }
    }
}

/// Those that still get bytes.
pub(super) fn alive<'r, 'a>(
    receivers: &'r mut [Receiver<'a>],
) -> impl Iterator<Item = &'r mut Receiver<'a>> {
    receivers.iter_mut().filter(|receiver| !receiver.is_lost())
}

/// Whether nobody is left to write to.
pub(super) fn are_lost(receivers: &[Receiver<'_>]) -> bool {
    receivers.iter().all(Receiver::is_lost)
}
