//! All sources, and what becomes of them: which file is which, what was rotated and how.
//!
//! It is shown what a look at the directories found, and what was read, and decides. It does no I/O.
//!
//! A file is a source's if it carries the source's marker (`trail.rs`), whatever its name. In a look
//! each file that is not known is asked, in this order:
//!
//! 1. Does it have the numbers of a source whose file is lost, and carry its marker? It is that one.
//! 2. Does it carry the marker of any source whose file is lost? Then it is its copy, and goes on
//!    with it.
//! 3. Is it the beginning of a file that is open? It may be a copy that is being made: it is held
//!    back until the file is truncated (2), the two differ, or nothing has happened for a while.
//! 4. Otherwise it is a source of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::change::Change;
use super::checkpoint::{Checkpoint, Record};
use super::source::{FileKey, Lost, Planned, Source, SourceId, Whereabouts};
use super::trail::{Marker, Trail};
use crate::limits::{TAIL_COPY_BYTES_MIN, TAIL_FILES_MAX, TAIL_LOST_LOOKS};
use crate::units::{Moment, WallTime};

/// A regular file, as a look finds it under a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) path: PathBuf,
    /// Whether the name is one that is to be followed.
    pub(super) is_wanted: bool,
    pub(super) key: FileKey,
    pub(super) size_bytes: u64,
    pub(super) modified: WallTime,
}

/// How a file that is not known may be a source's: it is if it carries the marker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Claim {
    pub(super) id: SourceId,
    pub(super) marker: Marker,
    /// Where reading would go on.
    pub(super) resume_bytes: u64,
    /// It would be all there is of a copy that ends before where reading was.
    pub(super) is_all_read: bool,
}

/// A file that may be a copy in the making.
#[derive(Clone, Copy, Debug)]
struct Held {
    original: SourceId,
    size_bytes: u64,
    /// Since when it has this size.
    since: Moment,
}

#[derive(Debug)]
pub(super) struct Sources {
    table: BTreeMap<SourceId, Source>,
    open: BTreeMap<FileKey, SourceId>,
    held: BTreeMap<FileKey, Held>,
    /// Who has something to read, in turn.
    turn: VecDeque<SourceId>,
    changes: VecDeque<Change>,
    next_source: u64,
    /// Files that are rotated and did not grow for so long are at their end.
    linger: Duration,
    /// Whether a checkpoint would say something new.
    is_changed: bool,
}

impl Sources {
    /// What a checkpoint tells of. New sources get ids from `id_min` on at the least.
    pub(super) fn new(checkpoint: Checkpoint, id_min: u64, linger: Duration) -> Self {
        Self {
            table: checkpoint.records.into_iter().map(Record::into_source).collect(),
            open: BTreeMap::new(),
            held: BTreeMap::new(),
            turn: VecDeque::new(),
            changes: VecDeque::new(),
            next_source: checkpoint.next_source.max(id_min),
            linger,
            is_changed: false,
        }
    }

    /// What is to be told.
    pub(super) fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    pub(super) fn get(&self, id: SourceId) -> &Source {
        &self.table[&id]
    }

    fn get_mut(&mut self, id: SourceId) -> &mut Source {
        self.table.get_mut(&id).expect("the source is there")
    }

    pub(super) fn is_open(&self, id: SourceId) -> bool {
        self.table.get(&id).is_some_and(|source| source.lost().is_none())
    }

    /// The numbers of the files that are followed, or were: they are looked for under any name.
    pub(super) fn inodes(&self) -> BTreeSet<u64> {
        self.table.values().map(|source| source.key.inode).collect()
    }

    // A look.

    pub(super) fn begin_look(&mut self) {
        self.table.values_mut().for_each(Source::begin_look);
    }

    /// Takes what the look has found under names; returns the files that are not known and are to
    /// be looked into.
    pub(super) fn on_seen(&mut self, seen: &[Seen], now: Moment) -> Vec<Seen> {
        let mut names: BTreeMap<FileKey, &Seen> = BTreeMap::new();
        for file in seen {
            let current = self.open.get(&file.key).map(|id| &self.table[id].path);
            let rank = |it: &Seen| (it.is_wanted, current == Some(&it.path));
            let best = names.entry(file.key).or_insert(file);
            if rank(file) > rank(best) {
                *best = file;
            }
        }
        let mut strangers = Vec::new();
        for file in names.into_values() {
            if let Some(id) = self.open.get(&file.key).copied()
                && self.is_shorter(id, file.size_bytes)
            {
                self.on_truncated(id);
            }
            match self.open.get(&file.key) {
                Some(id) => self.on_known(*id, file, now),
                None if self.is_to_be_examined(file, now) => strangers.push(file.clone()),
                None => {}
            }
        }
        let there: BTreeSet<FileKey> = seen.iter().map(|file| file.key).collect();
        self.held.retain(|key, _| there.contains(key));
        strangers
    }

    fn on_known(&mut self, id: SourceId, file: &Seen, now: Moment) {
        let source = self.table.get_mut(&id).expect("an open file has its source");
        source.notice((file.size_bytes, file.modified));
        source.away_since = (!file.is_wanted).then(|| source.away_since.unwrap_or(now));
        source.is_missed = false;
        let is_at_home = file.is_wanted && file.path == source.first_path;
        source.rotated_since = (!is_at_home).then(|| source.rotated_since.unwrap_or(now));
        if source.path != file.path {
            let from = std::mem::replace(&mut source.path, file.path.clone());
            let to = Some(file.path.clone());
            self.changes.push_back(Change::Renamed { source: id, from, to });
            self.is_changed = true;
        }
    }

    /// Whether a file is shorter than what was read of it.
    fn is_shorter(&self, id: SourceId, size_bytes: u64) -> bool {
        size_bytes < self.table[&id].position().offset_bytes
    }

    fn is_to_be_examined(&self, file: &Seen, now: Moment) -> bool {
        let is_lost = |source: &Source| source.key == file.key;
        if !file.is_wanted && !self.table.values().any(is_lost) {
            return false;
        }
        let Some(held) = self.held.get(&file.key) else { return true };
        let is_open = self.table.get(&held.original).is_some_and(|it| it.lost().is_none());
        !is_open || held.size_bytes != file.size_bytes || self.is_over(held.since, now)
    }

    /// Whether a file that is held back was for too long.
    fn is_over(&self, since: Moment, now: Moment) -> bool {
        now.since(since) >= self.linger
    }

    /// The open files that this look has not found under any name.
    pub(super) fn unseen(&self, seen: &[Seen]) -> Vec<SourceId> {
        let there: BTreeSet<FileKey> = seen.iter().map(|file| file.key).collect();
        let unseen = self.open.iter().filter(|(key, _)| !there.contains(key));
        unseen.map(|(_, id)| *id).collect()
    }

    /// What an open file itself tells that no name leads to.
    pub(super) fn on_unseen(
        &mut self,
        id: SourceId,
        links: u32,
        seen: (u64, WallTime),
        now: Moment,
    ) {
        if self.is_shorter(id, seen.0) {
            return self.on_truncated(id);
        }
        let source = self.get_mut(id);
        source.notice(seen);
        source.is_missed = links > 0;
        source.away_since = source.away_since.or(Some(now));
        source.rotated_since = source.rotated_since.or(Some(now));
        if links == 0 && !source.is_deleted {
            source.is_deleted = true;
            let path = source.path.clone();
            self.changes.push_back(Change::Deleted { source: id, path, is_open: true });
        }
    }

    /// The sources whose numbers a file has, and that it may be; those that it can't be are told.
    pub(super) fn own_claims(&mut self, file: &Seen) -> Vec<Claim> {
        let own = self.lost().filter(|(_, source, _)| source.key == file.key);
        let own: Vec<_> = own
            .map(|(id, source, lost)| (id, source.acknowledged().marker, lost.is_truncated))
            .collect();
        let mut claims = Vec::new();
        // The latest first: the others were truncated before it began.
        for (id, marker, is_truncated) in own.into_iter().rev() {
            if is_truncated || marker.reach_bytes() > file.size_bytes {
                self.refuse(id, file);
            } else {
                let resume_bytes = marker.offset_bytes;
                claims.push(Claim { id, marker, resume_bytes, is_all_read: false });
            }
        }
        claims
    }

    /// Whether there is a source whose file is not known.
    pub(super) fn has_lost(&self) -> bool {
        self.lost().next().is_some()
    }

    /// The sources whose copy a file may be.
    pub(super) fn copy_claims(&self, file: &Seen) -> Vec<Claim> {
        let size_bytes = file.size_bytes;
        let claim = |(id, source, lost): (SourceId, &Source, &Lost)| {
            if source.key == file.key {
                return None;
            }
            let is_cut = lost.is_truncated || lost.other_bytes.is_some();
            let least = match is_cut && is_named_after(&file.path, &source.path) {
                true => 1,
                false => TAIL_COPY_BYTES_MIN as u64,
            };
            let position = source.position();
            let is_all_read = position.offset_bytes > size_bytes;
            let marker = match source.trail().and_then(|trail| trail.beginning(size_bytes)) {
                Some(beginning) => beginning,
                None if is_all_read => *source.way(),
                None => position,
            };
            let resume_bytes = position.offset_bytes.min(size_bytes);
            (least..=size_bytes).contains(&marker.reach_bytes()).then_some(Claim {
                id,
                marker,
                resume_bytes,
                is_all_read,
            })
        };
        self.lost().filter_map(claim).collect()
    }

    fn lost(&self) -> impl Iterator<Item = (SourceId, &Source, &Lost)> {
        self.table.iter().filter_map(|(id, source)| Some((*id, source, source.lost()?)))
    }

    /// The open files of which one that begins with `head` may be a copy in the making.
    pub(super) fn originals(&self, file: &Seen, head: &[u8], now: Moment) -> Vec<SourceId> {
        if self.held.get(&file.key).is_some_and(|held| self.is_over(held.since, now)) {
            return Vec::new();
        }
        let stem = head.get(..TAIL_COPY_BYTES_MIN);
        let is_like = |id: &&SourceId| {
            let source = &self.table[id];
            let has_stem = stem.is_some() && source.stem() == stem;
            has_stem || is_named_after(&file.path, &source.path)
        };
        self.open.values().filter(is_like).copied().collect()
    }

    /// A file is the beginning of another: it is held back.
    pub(super) fn hold(&mut self, file: &Seen, original: SourceId, now: Moment) {
        let size_bytes = file.size_bytes;
        let held = self.held.entry(file.key).or_insert(Held { original, size_bytes, since: now });
        if held.size_bytes != size_bytes || held.original != original {
            *held = Held { original, size_bytes, since: now };
        }
    }

    /// A file with the numbers of a source that is lost does not carry its marker.
    pub(super) fn refuse(&mut self, id: SourceId, file: &Seen) {
        let source = self.get_mut(id);
        let has_name = source.path == file.path;
        if let Some(lost) = source.lost_mut() {
            lost.other_bytes = Some(file.size_bytes);
            lost.other_has_name = has_name;
        }
    }

    /// A file carries a claim's marker, and reading goes on at the trail.
    pub(super) fn adopt(&mut self, claim: &Claim, file: &Seen, trail: Trail, now: Moment) {
        self.held.remove(&file.key);
        self.open.insert(file.key, claim.id);
        self.is_changed = true;
        let source = self.get_mut(claim.id);
        let Whereabouts::Lost(lost) = source.whereabouts else {
            panic!("source {} has a file already", claim.id)
        };
        let is_own = source.key == file.key;
        let before = std::mem::replace(&mut source.path, file.path.clone());
        source.key = file.key;
        source.whereabouts = Whereabouts::Open;
        let offset_bytes = trail.offset_bytes();
        if claim.is_all_read {
            source.end_at(trail);
        } else {
            source.set_trail(trail);
        }
        source.seen = (file.size_bytes, file.modified);
        source.is_ready = true;
        source.away_since = (!file.is_wanted).then_some(now);
        if !is_own || source.path != source.first_path {
            source.rotated_since = Some(now);
        }
        let (source, path) = (claim.id, file.path.clone());
        let is_copy = lost.is_truncated || (!is_own && lost.other_bytes.is_some());
        if is_copy {
            self.changes.push_back(Change::CopyTruncated { source, path: before, copy: path });
        } else {
            let renamed = (before != path).then(|| Change::Renamed {
                source,
                from: before,
                to: Some(path.clone()),
            });
            self.changes.push_back(Change::Resumed { source, path, offset_bytes });
            self.changes.extend(renamed);
        }
        self.queue(source);
    }

    /// A file is a source of its own; none if there are too many.
    pub(super) fn found(&mut self, file: &Seen, trail: Trail) -> Option<SourceId> {
        if self.table.len() >= TAIL_FILES_MAX {
            return None;
        }
        self.held.remove(&file.key);
        let id = SourceId(self.next_source);
        self.next_source += 1;
        let mut source = Source::new(file.key, file.path.clone(), trail);
        source.seen = (file.size_bytes, file.modified);
        self.table.insert(id, source);
        self.open.insert(file.key, id);
        self.changes.push_back(Change::Found { source: id, path: file.path.clone() });
        Some(id)
    }

    /// Whether a file without the numbers of a followed one would be followed: that of a source
    /// that was truncated is, whatever name it has got meanwhile.
    pub(super) fn follows(&self, file: &Seen) -> bool {
        let is_its = |(_, source, lost): (SourceId, &Source, &Lost)| {
            lost.is_truncated && source.key == file.key
        };
        file.is_wanted || self.lost().any(is_its)
    }

    /// A look ends; a whole one has found all that there was when it began. Returns the files to be
    /// closed.
    pub(super) fn end_look(&mut self, is_whole: bool, now: Moment) -> Vec<SourceId> {
        let copied: BTreeSet<SourceId> = self.held.values().map(|held| held.original).collect();
        for (id, source) in &mut self.table {
            // A copy that is held back holds what was read when it was found, but perhaps no more.
            if is_whole && !copied.contains(id) {
                source.end_look();
            }
            source.settle(now, self.linger);
        }
        let ids: Vec<SourceId> = self.table.keys().copied().collect();
        ids.iter().for_each(|id| self.queue(*id));
        if is_whole {
            self.give_up_lost();
        }
        ids.into_iter().filter(|id| self.let_go(*id, now)).collect()
    }

    fn give_up_lost(&mut self) {
        let mut gone = Vec::new();
        for (id, source) in &mut self.table {
            let (path, end_bytes) = (source.path.clone(), source.position().offset_bytes);
            let seen_bytes = source.seen.0;
            let Some(lost) = source.lost_mut() else { continue };
            lost.looks += 1;
            if lost.looks < TAIL_LOST_LOOKS {
                continue;
            }
            let source = *id;
            let is_cut = lost.other_bytes.is_some_and(|bytes| bytes < end_bytes);
            gone.push(match lost.other_bytes {
                _ if lost.is_truncated || (is_cut && lost.other_has_name) => {
                    let unread_bytes = seen_bytes.saturating_sub(end_bytes);
                    Change::Truncated { source, path, unread_bytes }
                }
                Some(_) => Change::InodeReused { source, path },
                None => Change::Deleted { source, path, is_open: false },
            });
        }
        self.is_changed |= !gone.is_empty();
        for change in &gone {
            if let Change::Truncated { source, .. }
            | Change::InodeReused { source, .. }
            | Change::Deleted { source, .. } = change
            {
                self.table.remove(source);
            }
        }
        self.changes.extend(gone);
    }

    /// Lets a file go that is away, read to its end, and acknowledged.
    fn let_go(&mut self, id: SourceId, now: Moment) -> bool {
        let Some(source) = self.table.get(&id) else { return false };
        let is_over = source.away_since.is_some_and(|since| self.is_over(since, now));
        let is_read = source.is_final && !source.is_ready && source.is_settled();
        if !is_over || !is_read || source.lost().is_some() {
            return false;
        }
        let source = self.table.remove(&id).expect("it is there");
        self.open.remove(&source.key);
        self.is_changed = true;
        if source.is_missed && !source.is_deleted {
            let from = source.path.clone();
            self.changes.push_back(Change::Renamed { source: id, from, to: None });
        }
        self.changes.push_back(Change::LetGo { source: id, path: source.path });
        true
    }

    // Reading.

    /// Whether a look would learn something at once: a file was truncated.
    pub(super) fn is_look_urgent(&self) -> bool {
        self.lost().any(|(_, _, lost)| lost.is_truncated && lost.looks == 0)
    }

    fn queue(&mut self, id: SourceId) {
        let Some(source) = self.table.get_mut(&id) else { return };
        let may = source.is_ready && source.is_recorded && source.lost().is_none();
        if may && !std::mem::replace(&mut source.is_queued, true) {
            self.turn.push_back(id);
        }
    }

    /// Whose turn it is to be read.
    pub(super) fn next_turn(&mut self) -> Option<SourceId> {
        while let Some(id) = self.turn.pop_front() {
            let Some(source) = self.table.get_mut(&id) else { continue };
            source.is_queued = false;
            if source.is_ready && source.lost().is_none() {
                return Some(id);
            }
        }
        None
    }

    /// It was its turn, and is again after the others if there may be more to read.
    pub(super) fn end_turn(&mut self, id: SourceId) {
        self.queue(id);
    }

    /// A file could not be read: the next look has it read again.
    pub(super) fn on_failed(&mut self, id: SourceId) {
        let source = self.get_mut(id);
        source.is_ready = false;
        source.seen = Default::default();
    }

    /// Reading begins here.
    pub(super) fn set_trail(&mut self, id: SourceId, trail: Trail) {
        self.get_mut(id).set_trail(trail);
    }

    /// See [`Source::on_read`].
    pub(super) fn on_read(&mut self, id: SourceId, bytes: &[u8], is_full: bool) -> Option<Planned> {
        self.get_mut(id).on_read(bytes, is_full)
    }

    /// A file does not carry the marker of what was read of it any more.
    pub(super) fn on_truncated(&mut self, id: SourceId) {
        let source = self.get_mut(id);
        let key = source.key;
        source.whereabouts = Whereabouts::Lost(Lost { is_truncated: true, ..Lost::default() });
        self.open.remove(&key);
    }

    // What was acknowledged.

    pub(super) fn on_acknowledged(&mut self, id: SourceId, end_bytes: u64) {
        if let Some(source) = self.table.get_mut(&id) {
            self.is_changed |= source.on_acknowledged(end_bytes);
        }
    }

    /// Everything that was sent and not acknowledged is sent again.
    pub(super) fn rewind(&mut self) {
        let ids: Vec<SourceId> = self.table.keys().copied().collect();
        for id in ids {
            self.get_mut(id).rewind();
            self.queue(id);
        }
    }

    /// Everything that is known to be there was read, sent and acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.table
            .values()
            .all(|source| source.is_settled() && !source.is_ready && source.lost().is_none())
            && self.held.is_empty()
    }

    /// Whether there is a source that stable storage does not know of, so that nothing of it may
    /// be sent.
    pub(super) fn has_unrecorded(&self) -> bool {
        self.table.values().any(|source| !source.is_recorded)
    }

    pub(super) fn is_changed(&self) -> bool {
        self.is_changed || self.has_unrecorded()
    }

    /// What is to be written down now, as the checkpoint of this number.
    pub(super) fn checkpoint(&self, number: u64) -> Checkpoint {
        let records = self.table.iter().map(|(id, source)| Record::of(*id, source)).collect();
        Checkpoint { number, next_source: self.next_source, records }
    }

    /// A checkpoint is on stable storage, and nothing has changed since it was made.
    pub(super) fn on_recorded(&mut self) {
        self.is_changed = false;
        let ids: Vec<SourceId> = self.table.keys().copied().collect();
        for id in ids {
            self.get_mut(id).is_recorded = true;
            self.queue(id);
        }
    }
}

/// Whether a name is made from another, as those of copies are: `app.log.1`, `app.log-20261124`.
pub(super) fn is_named_after(copy: &Path, original: &Path) -> bool {
    let (copy, original) = (copy.as_os_str().as_bytes(), original.as_os_str().as_bytes());
    copy.len() > original.len() && copy.starts_with(original)
}
