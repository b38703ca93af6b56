//! Going on with the copy of a large file that was interrupted; `journal` decides what is believed.
//!
//! ```text
//! in the open: make the temporary -> write the header -> data, and now and then a record
//!                -> attributes -> sync -> remove the journal -> publish
//! in a stage:  make the file -> set the journal -> data, and now and then another -> remove the journal
//!                -> attributes, times last
//! ```
//!
//! The journal goes before the temporary gets its name, and before it is removed: so a journal never
//! speaks of another temporary than its own. Killed between the two, a copy begins again.
//!
//! In a stage a file has its own name from the start, and no name beside it that would have to go
//! before the stage is published, or when its source is gone by the next run: there the journal is an
//! attribute of the file, as the mark is one of the stage, and goes wherever the file goes. Its times
//! come after that, so that no file that has them has a journal.

use std::path::{Path, PathBuf};

use nix::libc;

use super::journal::{
    BootId, Form, HEADER_BYTES, Header, JOURNAL, Kind, Note, RECORD_BYTES, Reached, Recorder,
};
use super::publish::{Made, NewFile, Target};
use super::temporary::{journal_name, temporary_name};
use super::worker::{Labels, Worker};
use super::{Durability, Event, Resume};
use crate::buffer::Buffer;
use crate::error::{Errno, Error};
use crate::limits::{JOURNAL_BYTES_MAX, LEFTOVER_LOOK_EVERY, LEFTOVER_LOOKS_MAX};
use crate::operation::{
    File, FileKind, FileStatus, GetAttribute, Handle, Name, Open, Operation, Place, Read,
    RemoveAttribute, SetAttribute, Sync, SyncReach, Write,
};

/// The journal of a copy.
#[derive(Debug)]
pub(super) struct Journal {
    keeper: Keeper,
    pub(super) recorder: Recorder,
}

/// What keeps a journal.
#[derive(Debug)]
enum Keeper {
    /// A file beside the temporary.
    File(File),
    /// An attribute of the copy itself.
    Attribute,
}

/// A temporary that a copy goes on with.
pub(super) struct TakenUp {
    pub(super) file: File,
    pub(super) status: FileStatus,
    pub(super) reached: Reached,
}

impl Journal {
    /// What is to be done for a note about a copy.
    pub(super) fn operation(&self, note: Note, copy: &File) -> Operation {
        let (offset_bytes, bytes) = match note {
            Note::Sync => {
                return Operation::Sync(Sync { file: copy.clone(), reach: SyncReach::Data });
            }
            Note::Record { offset_bytes, bytes } => (offset_bytes, bytes),
        };
        match &self.keeper {
            Keeper::File(file) => write_bytes(file, offset_bytes, bytes),
            Keeper::Attribute => set_journal(copy, bytes),
        }
    }

    /// Whether a record is whole: of how many bytes its operation says that they were written.
    pub(super) fn is_recorded(&self, result: u32) -> bool {
        match self.keeper {
            Keeper::File(_) => result as usize == RECORD_BYTES,
            Keeper::Attribute => true,
        }
    }
}

fn write_bytes(file: &File, offset_bytes: u64, bytes: Vec<u8>) -> Operation {
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    let (handle, buffer) = (Handle::from(file), Buffer::Vec(bytes));
    Operation::Write(Write { handle, buffer, offset_bytes, start: 0, length })
}

fn set_journal(copy: &File, bytes: Vec<u8>) -> Operation {
    let (file, value) = (copy.clone(), Buffer::Vec(bytes));
    Operation::SetAttribute(SetAttribute { file, name: JOURNAL.into(), value })
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
        let left = self.claim_left(&target.directory, name).await?;
        let Some((file, status)) = left else { return Ok(None) };
        let reached = self.read_journal(target, source, &status).await;
        let is_worth_it = reached.written_bytes > 0;
        Ok(is_worth_it.then_some(TakenUp { file, status, reached }))
    }

    /// Whether the copy of a file in a stage keeps a journal: if another run can go on with the stage.
    pub(super) fn keeps_staged_journal(&self, target: &Target, source: &FileStatus) -> bool {
        let staging = target.staging.as_ref();
        staging.is_some_and(|staging| staging.is_marked()) && self.keeps_journal(source)
    }

    /// Takes up a file that was left in a stage of this very copy, with its lock; none if there is
    /// nothing to go on with.
    pub(super) async fn take_up_staged(
        &self,
        target: &Target,
        source: &FileStatus,
    ) -> Result<Option<TakenUp>, Error> {
        if !self.keeps_staged_journal(target, source) {
            return Ok(None);
        }
        let left = self.claim_left(&target.directory, &target.name).await?;
        let Some((file, status)) = left else { return Ok(None) };
        let reached = self.read_staged_journal(&file, source, &status).await;
        let is_worth_it = reached.written_bytes > 0;
        Ok(is_worth_it.then_some(TakenUp { file, status, reached }))
    }

    /// Opens what was left under a name and locks it, if nobody else can have made it. The ring of a
    /// process that was killed may still be writing to it, and has the lock until then.
    async fn claim_left(
        &self,
        directory: &File,
        name: &Name,
    ) -> Result<Option<(File, FileStatus)>, Error> {
        let flags = libc::O_RDWR | libc::O_NONBLOCK;
        let open = Open::new(Place::at(directory, name), flags).confined();
        let Ok(file) = self.io.open(open).await else { return Ok(None) };
        for _ in 0..LEFTOVER_LOOKS_MAX {
            if let Some(status) = self.claim(&file).await? {
                let named = self.io.status_at(Place::at(directory, name), false).await?;
                let is_named = named.is_some_and(|named| named.is_same_file(&status));
                return Ok((is_named && self.is_ours(&status)).then_some((file, status)));
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
        let journal = self.read_start(file, JOURNAL_BYTES_MAX).await.unwrap_or_default();
        believed(&header, &journal, temporary)
    }

    async fn read_staged_journal(
        &self,
        file: &File,
        source: &FileStatus,
        status: &FileStatus,
    ) -> Reached {
        let Some(header) = self.header(source, status).await else { return Reached::default() };
        let buffer = Buffer::Vec(vec![0; HEADER_BYTES + RECORD_BYTES]);
        let get = GetAttribute { file: file.clone(), name: JOURNAL.into(), buffer };
        let got = self.io.perform_counted(Operation::GetAttribute(get)).await;
        let Ok((length, Operation::GetAttribute(get))) = got else { return Reached::default() };
        believed(&header, get.buffer.part(0, length).unwrap_or_default(), status)
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
        let form = match &new.made {
            Made::Temporary { name, .. } => {
                let is_first = name.as_bytes() == temporary_name(new.target.name.as_bytes(), 0);
                (is_first && self.keeps_journal(source)).then_some(Form::Appended)
            }
            Made::Staged => {
                self.keeps_staged_journal(&new.target, source).then_some(Form::Replaced)
            }
            Made::InPlace { .. } | Made::Device { .. } => None,
        };
        let Some(form) = form else { return };
        let Ok(copy) = self.io.status_of(&new.file).await else { return };
        let Some(header) = self.header(source, &copy).await else { return };
        // A sync of what is in the page cache would hold the copy up; and after another boot no stage
        // is believed.
        let is_durable = self.job.options.durability != Durability::None;
        let syncs = form == Form::Appended && (is_direct || is_durable);
        let every_bytes = self.job.options.journal_every_bytes;
        let mut recorder = Recorder::new(header, form, new.reached, every_bytes, syncs);
        let start = recorder.begin();
        let keeper = match form {
            Form::Appended => self.make_journal(new, start).await,
            Form::Replaced => {
                let set = self.io.perform(set_journal(&new.file, start)).await;
                set.is_ok().then_some(Keeper::Attribute)
            }
        };
        let journal = keeper.map(|keeper| Journal { keeper, recorder });
        *new.journal.borrow_mut() = journal;
    }

    /// Makes the journal of a temporary, in the place of what there is of an older one.
    async fn make_journal(&self, new: &NewFile, start: Vec<u8>) -> Option<Keeper> {
        self.remove_journal(new).await;
        let place = Place::at(&new.target.directory, &Self::journal_of(&new.target));
        let open = Open::create_new(place, 0o600).confined();
        let file = self.io.open(open).await.ok()?;
        let length = start.len();
        match self.io.perform_counted(write_bytes(&file, 0, start)).await {
            Ok((written, _)) if written as usize == length => Some(Keeper::File(file)),
            _ => {
                self.remove_journal(new).await;
                None
            }
        }
    }

    /// Removes the journal of a temporary, which has its name or goes in a moment.
    pub(super) async fn remove_journal(&self, new: &NewFile) {
        let Made::Temporary { .. } = &new.made else { return };
        new.journal.borrow_mut().take();
        self.remove_journal_of(&new.target).await;
    }

    /// Takes its journal from a file in a stage that has all its bytes: it is never seen under the
    /// final name.
    pub(super) async fn remove_staged_journal(&self, new: &NewFile) -> Result<(), Error> {
        let has_journal = new.journal.borrow().is_some() || new.reached != Reached::default();
        if !new.is_staged() || !has_journal {
            return Ok(());
        }
        new.journal.borrow_mut().take();
        let remove = RemoveAttribute { file: new.file.clone(), name: JOURNAL.into() };
        match self.io.perform_always(Operation::RemoveAttribute(remove)).await {
            Err(error) if error.errno() != Some(Errno::ENODATA) => Err(error),
            _ => Ok(()),
        }
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
        let note = journal.recorder.record(Kind::Written, end);
        if self.io.perform_always(journal.operation(note, &new.file)).await.is_err() {
            return false;
        }
        let bytes = journal.recorder.reached().written_bytes;
        match &new.made {
            Made::Temporary { name, .. } if bytes > 0 => {
                let target = labels.target();
                let temporary: PathBuf =
                    target.parent().unwrap_or(Path::new("")).join(name.as_os_str());
                let (target, temporary) = (target.as_path(), temporary.as_path());
                self.job.observer.on_event(&Event::Kept { target, temporary, bytes });
            }
            // Its stage tells of it.
            _ => new.target.staging.iter().for_each(|staging| staging.add_bytes(bytes)),
        }
        bytes > 0
    }

    fn journal_of(target: &Target) -> Name {
        Name::new(journal_name(target.name.as_bytes())).expect("a made-up name has no NUL")
    }
}

/// What a journal says of a copy, as far as that is as long.
fn believed(header: &Header, journal: &[u8], copy: &FileStatus) -> Reached {
    let reached = header.believed(journal);
    // Somebody may have cut it since.
    if reached.written_bytes <= copy.size_bytes { reached } else { Reached::default() }
}
