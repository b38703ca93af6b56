//! Who reads a file that has several names, where several lanes copy it.
//!
//! Two shards may meet two names of one file at a time. Were each lane to settle by itself which of
//! them is copied and which is linked, one lane could read the file by the one name and another lane by
//! the other. So whoever comes first to any name reads it, for all lanes; another name that comes
//! meanwhile is left to that team.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::lanes::Branch;
use crate::operation::{FileKind, Name};

/// Files that are being read, by device and inode, with the names that came meanwhile.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<(u64, u64), Vec<Left>>>);

/// A name that is left to another team. It keeps its directories from being finished.
pub(super) struct Left {
    pub(super) branch: Branch,
    pub(super) name: Name,
    pub(super) kind: FileKind,
}

impl Readers {
    /// Begins to read a file; false if another does, who was left this name.
    pub(super) fn begin(&self, file: (u64, u64), leave: impl FnOnce() -> Left) -> bool {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match files.get_mut(&file) {
            Some(left) => {
                left.push(leave());
                false
            }
            None => {
                files.insert(file, Vec::new());
                true
            }
        }
    }

    /// The file was read; returns who came meanwhile.
    pub(super) fn end(&self, file: (u64, u64)) -> Vec<Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&file).unwrap_or_default()
    }
}
