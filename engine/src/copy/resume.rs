//! Going on with the copy of a large file that was interrupted; `journal` decides what is believed.
//!
//! ```text
//! make the temporary -> write the header -> data, and now and then a record -> attributes -> sync
//!   -> remove the journal -> publish
//! ```
//!
//! The journal goes before the temporary gets its name, and before it is removed: so a journal never
//! speaks of another temporary than its own. Killed between the two, a copy begins again.

use std::path::{Path, PathBuf};

use nix::libc;

use super::journal::{BootId, HEADER_BYTES, Header, Kind, Note, Reached, Recorder};
use super::publish::{Made, NewFile, Target};
use super::temporary::{journal_name, temporary_name};
use super::worker::{Labels, Worker};
use super::{Durability, Event, Resume};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::limits::{JOURNAL_BYTES_MAX, LEFTOVER_LOOK_EVERY, LEFTOVER_LOOKS_MAX};
use crate::operation::{
    File, FileKind, FileStatus, Handle, Name, Open, Operation, Place, Read, Write,
};

/// The journal of a copy.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) file: File,
    pub(super) recorder: Recorder,
}

/// A temporary that a copy goes on with.
pub(super) struct TakenUp {
    pub(super) file: File,
    pub(super) status: FileStatus,
    pub(super) reached: Reached,
}

impl Worker<'_> {
    /// Whether the copy of a file keeps a journal.
    fn keeps_journal(&self, source: &FileStatus) -> bool {
        let options = &self.job.options;
        options.resume == Resume::Auto
            && source.kind == FileKind::Regular
            && source.size_bytes >= options.resume_bytes_min
    }

    /// Takes up a temporary that was left of this very copy, with its lock; none if there is nothing
    /// to go on with. It is believed only if nobody else can have made it.
    pub(super) async fn take_up(
        &self,
        target: &Target,
        name: &Name,
        source: &FileStatus,
    ) -> Result<Option<TakenUp>, Error> {
        let is_first = name.as_bytes() == temporary_name(target.name.as_bytes(), 0);
        if !is_first || !self.keeps_journal(source) {
            return Ok(None);
        }
        let flags = libc::O_RDWR | libc::O_NONBLOCK;
        let open = Open::new(Place::at(&target.directory, name), flags).confined();
        let Ok(file) = self.io.open(open).await else { return Ok(None) };
        for _ in 0..LEFTOVER_LOOKS_MAX {
            if let Some(status) = self.claim(&file).await? {
                let named = self.io.status_at(Place::at(&target.directory, name), false).await?;
                let is_named = named.is_some_and(|named| named.is_same_file(&status));
                if !is_named || !self.is_ours(&status) {
                    return Ok(None);
                }
                let reached = self.read_journal(target, source, &status).await;
                let is_worth_it = reached.written_bytes > 0;
                return Ok(is_worth_it.then_some(TakenUp { file, status, reached }));
            }
            self.io.tasks.sleep(LEFTOVER_LOOK_EVERY).await;
        }
        Ok(None)
    }

    fn is_ours(&self, status: &FileStatus) -> bool {
        let is_private = status.mode == 0o600 && status.links == 1;
        self.job.surroundings.user == Some(status.owner)
            && status.kind == FileKind::Regular
            && is_private
    }

    async fn read_journal(
        &self,
        target: &Target,
        source: &FileStatus,
        temporary: &FileStatus,
    ) -> Reached {
        let Some(header) = self.header(source, temporary).await else { return Reached::default() };
        let name = Self::journal_of(target);
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let open = Open::new(Place::at(&target.directory, &name), flags).confined();
        let Ok(file) = self.io.open(open).await else { return Reached::default() };
        match self.io.status_of(&file).await {
            Ok(status) if self.is_ours(&status) => {}
            _ => return Reached::default(),
        }
        match self.read_start(file, JOURNAL_BYTES_MAX).await.map(|it| header.believed(&it)) {
            // Somebody may have cut it since.
            Some(reached) if reached.written_bytes <= temporary.size_bytes => reached,
            _ => Reached::default(),
        }
    }

    /// What is copied to what, in this boot; none where the boot can't be told.
    async fn header(&self, source: &FileStatus, temporary: &FileStatus) -> Option<Header> {
        Some(Header {
            device: source.device,
            inode: source.inode,
            size_bytes: source.size_bytes,
            modified: source.modified,
            changed: source.changed,
            temporary: temporary.inode,
            boot: self.boot().await?,
        })
    }

    /// Which boot of the machine this is, where the kernel tells.
    pub(super) async fn boot(&self) -> Option<BootId> {
        if let Some(boot) = self.job.boot.get() {
            return Some(*boot);
        }
        let place = Place::path("/proc/sys/kernel/random/boot_id").ok()?;
        let file = self.io.open(Open::read(place)).await.ok()?;
        let text = self.read_start(file, 64).await?;
        let boot = text.get(..size_of::<BootId>())?.try_into().ok()?;
        Some(*self.job.boot.get_or_init(|| boot))
    }

    /// The first bytes of a file, at most so many, as far as one read brings them.
    async fn read_start(&self, file: File, length: u32) -> Option<Vec<u8>> {
        let buffer = Buffer::Vec(vec![0; length as usize]);
        let read = Read { handle: file.into(), buffer, offset_bytes: 0, start: 0, length };
        let (length, operation) = self.io.perform_counted(Operation::Read(read)).await.ok()?;
        let Operation::Read(read) = operation else { return None };
        Some(read.buffer.part(0, length)?.to_vec())
    }

    /// Begins the journal of a copy; the copy goes on without one where it can't be had.
    pub(super) async fn begin_journal(&self, source: &FileStatus, new: &NewFile, is_direct: bool) {
        let Made::Temporary { name, .. } = &new.made else { return };
        let is_first = name.as_bytes() == temporary_name(new.target.name.as_bytes(), 0);
        if !is_first || !self.keeps_journal(source) {
            return;
        }
        let Ok(temporary) = self.io.status_of(&new.file).await else { return };
        let Some(header) = self.header(source, &temporary).await else { return };
        self.remove_journal(new).await;
        let place = Place::at(&new.target.directory, &Self::journal_of(&new.target));
        let Ok(file) = self.io.open(Open::create_new(place, 0o600).confined()).await else {
            return;
        };
        // A sync of what is in the page cache would hold the copy up.
        let syncs = is_direct || self.job.options.durability != Durability::None;
        let every_bytes = self.job.options.journal_every_bytes;
        let mut recorder = Recorder::new(&header, Reached::default(), every_bytes, syncs);
        let mut start = header.encode().to_vec();
        let reached = new.reached;
        for (kind, end) in
            [(Kind::Synced, reached.synced_bytes), (Kind::Written, reached.written_bytes)]
        {
            if end > 0
                && let Note::Record { record, .. } = recorder.record(kind, end)
            {
                start.extend(record);
            }
        }
        recorder.on_recorded();
        let length = start.len();
        match self.write_journal(&file, 0, start).await {
            Ok(written) if written as usize == length && length >= HEADER_BYTES => {
                *new.journal.borrow_mut() = Some(Journal { file, recorder });
            }
            _ => self.remove_journal(new).await,
        }
    }

    async fn write_journal(&self, file: &File, at: u64, bytes: Vec<u8>) -> Result<u32, Error> {
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        let (handle, buffer) = (Handle::from(file), Buffer::Vec(bytes));
        let write = Write { handle, buffer, offset_bytes: at, start: 0, length };
        self.io.perform_counted(Operation::Write(write)).await.map(|(written, _)| written)
    }

    /// Removes the journal of a temporary, which has its name or goes in a moment.
    pub(super) async fn remove_journal(&self, new: &NewFile) {
        let Made::Temporary { .. } = &new.made else { return };
        new.journal.borrow_mut().take();
        self.remove_journal_of(&new.target).await;
    }

    /// Removes what there is of a journal for a target.
    pub(super) async fn remove_journal_of(&self, target: &Target) {
        self.io.remove(&target.directory, &Self::journal_of(target), false).await;
    }

    /// Keeps what there is of a copy that was interrupted, and tells of it; false if it has no
    /// journal that says how far it came.
    pub(super) async fn keep_interrupted(&self, new: &NewFile, labels: &dyn Labels) -> bool {
        let Some(mut journal) = new.journal.borrow_mut().take() else { return false };
        // What a sync that nobody waited for could not write counts as written.
        if journal.recorder.is_syncing() {
            return false;
        }
        let end = new.interrupted_at.get();
        if let Note::Record { offset_bytes, record } = journal.recorder.record(Kind::Written, end)
            && self.write_journal(&journal.file, offset_bytes, record.to_vec()).await.is_err()
        {
            return false;
        }
        let (target, bytes) = (labels.target(), journal.recorder.reached().written_bytes);
        let Made::Temporary { name, .. } = &new.made else { return false };
        let temporary: PathBuf = target.parent().unwrap_or(Path::new("")).join(name.as_os_str());
        let (target, temporary) = (target.as_path(), temporary.as_path());
        if bytes > 0 {
            self.job.observer.on_event(&Event::Kept { target, temporary, bytes });
        }
        bytes > 0
    }

    fn journal_of(target: &Target) -> Name {
        Name::new(journal_name(target.name.as_bytes())).expect("a made-up name has no NUL")
    }
}
