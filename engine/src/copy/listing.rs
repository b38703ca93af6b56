//! Directories of which only listed names are copied (`--files-from`): the list takes the place of
//! what is in them, and each step to a name is opened by itself, as everything below an operand.

use std::sync::{Arc, Mutex, PoisonError};

use super::Listed;
use super::directory::Entry;
use super::tree::Batch;
use super::worker::{Labels, Worker};
use crate::error::{Errno, Error};
use crate::limits::LISTED_NAMES_MAX;
use crate::operation::{FileKind, Name};

/// The names of a directory that are listed, as far as they were not looked at.
#[derive(Debug)]
pub(super) struct ListedNames {
    listed: Arc<Listed>,
    after: Mutex<Option<Vec<u8>>>,
}

impl ListedNames {
    /// None if everything in the directory is copied.
    pub(super) fn new(listed: &Arc<Listed>) -> Option<Self> {
        let listed = Arc::clone(listed);
        (!listed.is_whole()).then_some(Self { listed, after: Mutex::default() })
    }

    /// What is listed below one of the names.
    pub(super) fn below(&self, name: &Name) -> Option<&Arc<Listed>> {
        self.listed.below(name.as_bytes())
    }

    /// The next names. What they stand for is not known.
    pub(super) fn next_batch(&self) -> Result<Batch, Error> {
        let mut after = self.after.lock().unwrap_or_else(PoisonError::into_inner);
        let names = self.listed.names_after(after.as_deref()).take(LISTED_NAMES_MAX);
        let mut entries = Vec::new();
        for name in names {
            let name = Name::new(name).map_err(|errno| Error::from_errno("open", errno))?;
            entries.push((name, FileKind::Unknown));
        }
        let is_last = entries.len() < LISTED_NAMES_MAX;
        *after = entries.last().map(|(name, _)| name.as_bytes().to_vec());
        Ok(Batch { entries, is_last })
    }
}

impl Worker<'_> {
    /// Tells of each listed name that can't be reached, because of what stands at `entry`. Returns
    /// whether `entry` itself is to be copied.
    pub(super) fn fail_listed_below(&self, entry: &Entry<'_>, errno: Errno) -> bool {
        let Some(listed) = entry.listed() else { return true };
        for name in listed.wanted_below() {
            let Ok(name) = Name::new(name) else { continue };
            let error = Error::from_errno("open", errno);
            self.fail(&error.on(entry.source().join(name.as_os_str())));
        }
        listed.is_wanted()
    }
}
