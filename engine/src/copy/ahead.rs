//! Files that are opened, and whose bytes are asked for, before their turn comes.
//!
//! One small file that is not in the page cache costs a wait for the disk, and the cores idle. A disk
//! serves many reads at a time: those of the next files are begun (`posix_fadvise(2)`,
//! POSIX_FADV_WILLNEED) while this one is copied. What was opened is used as if it had been opened in
//! its turn: all that is known of it is asked of the descriptor then.

use std::collections::VecDeque;
use std::sync::Arc;

use super::directory::{Directory, Entry};
use super::worker::Worker;
use super::{FollowLinks, Make};
use crate::limits::FILES_AHEAD_MAX;
use crate::operation::{Advice, Advise, File, FileKind, Name, Operation, Place};

/// Files of one directory that were opened before their turn.
#[derive(Default)]
pub(super) struct Ahead {
    directory: Option<Arc<Directory>>,
    files: VecDeque<(Name, File)>,
    /// Names of the listing that were looked at.
    seen: usize,
}

impl Ahead {
    /// The file, if it was opened.
    fn take(&mut self, directory: &Arc<Directory>, name: &Name) -> Option<File> {
        if !self.directory.as_ref().is_some_and(|own| Arc::ptr_eq(own, directory)) {
            return None;
        }
        let place = self.files.iter().position(|(own, _)| own == name)?;
        self.files.remove(place).map(|(_, file)| file)
    }
}

impl Worker<'_> {
    /// Opens the next files of a listing, of which `turn` is the one to be copied now.
    pub(super) async fn look_ahead(
        &self,
        directory: &Arc<Directory>,
        entries: &[(Name, FileKind)],
        turn: usize,
    ) {
        let seen = {
            let mut ahead = self.ahead.borrow_mut();
            if !ahead.directory.as_ref().is_some_and(|own| Arc::ptr_eq(own, directory)) {
                *ahead = Ahead { directory: Some(Arc::clone(directory)), ..Ahead::default() };
            }
            ahead.seen.max(turn)
        };
        let end = entries.len().min(turn + 1 + FILES_AHEAD_MAX);
        if seen >= end {
            return;
        }
        self.ahead.borrow_mut().seen = end;
        let Ok(source) = self.opened_source(directory).await else { return };
        for (name, kind) in &entries[seen..end] {
            if *kind == FileKind::Regular && !self.is_excluded(&Entry { directory, name }, false) {
                self.open_ahead(&source, name).await;
            }
        }
    }

    /// What can't be opened now is tried again in its turn, and told then.
    async fn open_ahead(&self, source: &File, name: &Name) {
        let open = self.open_of_regular(Place::at(source, name));
        let Ok(file) = self.io.open(open).await else { return };
        let advise = Advise {
            file: file.clone(),
            advice: Advice::WillNeed,
            offset_bytes: 0,
            length_bytes: 0,
        };
        // It is a hint only.
        let _ = self.io.perform(Operation::Advise(advise)).await;
        self.ahead.borrow_mut().files.push_back((name.clone(), file));
    }

    /// Gives up what was opened and not used: it was left out, or the listing was.
    pub(super) fn look_no_further(&self) {
        self.ahead.take();
    }

    /// A file that was opened before its turn.
    pub(super) fn opened_ahead(&self, directory: &Arc<Directory>, name: &Name) -> Option<File> {
        self.ahead.borrow_mut().take(directory, name)
    }

    /// Whether all files of a directory will be read, and as fast as can be: of one that stands
    /// already some may be there, or be kept. What is asked for before its turn is in the page cache
    /// by then.
    pub(super) fn will_read_all(&self, directory: &Directory) -> bool {
        directory.is_staged
            && !self.bypasses_cache()
            && self.job.options.existing.make == Make::Copy
            && self.job.options.links != FollowLinks::Always
            && self.job.throttle.is_none()
            && !self.is_rehearsal()
    }
}
