//! One source: a stream of bytes that is read from a file, sent in batches, and acknowledged.
//!
//! ```text
//! |<- acknowledged ->|<- sent ->|<- to be sent again ->|<- unread ->|
//!                               ^ where reading is
//! ```
//!
//! A source outlives names and even files: a copy that is made before the original is truncated goes
//! on with it. What follows in the truncated file is another source, so that a source and an offset
//! mean one byte for ever.

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::cut::{Part, cut};
use super::trail::{Marker, Trail};
use crate::limits::TAIL_COPY_BYTES_MIN;
use crate::units::{Moment, WallTime};

/// A stream of bytes, by a number that is never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SourceId(pub u64);

/// A file, by the numbers that are used again for another once it is gone.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct FileKey {
    pub(super) device: u64,
    pub(super) inode: u64,
}

/// What of a source need not be sent again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Acknowledged {
    pub(super) marker: Marker,
    /// The number of the next batch.
    pub(super) sequence: u64,
    /// Whether the next batch goes on with a line.
    pub(super) is_in_line: bool,
}

/// A batch that nobody has acknowledged.
#[derive(Clone, Copy, Debug)]
struct Sent {
    start_bytes: u64,
    end_bytes: u64,
    part: Part,
    /// What is acknowledged with it.
    after: Acknowledged,
}

/// A batch to be made of what was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Planned {
    pub(super) sequence: u64,
    pub(super) offset_bytes: u64,
    pub(super) length: usize,
    pub(super) part: Part,
    pub(super) is_repeated: bool,
}

/// Where a source's bytes are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Whereabouts {
    /// In a file that is open.
    Open,
    /// Not known: it was told by the checkpoint, or its file was truncated.
    Lost(Lost),
}

/// What is known of a source whose file is not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Lost {
    /// The file was truncated while it was followed.
    pub(super) is_truncated: bool,
    /// The length of what now has its numbers.
    pub(super) other_bytes: Option<u64>,
    /// Whether that other file has the name that the source had.
    pub(super) other_has_name: bool,
    /// How many looks did not find it.
    pub(super) looks: u8,
}

#[derive(Debug)]
pub(super) struct Source {
    pub(super) key: FileKey,
    /// The name that it has, or had last.
    pub(super) path: PathBuf,
    /// The name that it was found by.
    pub(super) first_path: PathBuf,
    pub(super) whereabouts: Whereabouts,
    /// Where reading is; none if that is to be recalled from what is acknowledged.
    trail: Option<Trail>,
    /// The first bytes of the file, for as long as it is followed.
    stem: Vec<u8>,
    /// The number of the next batch that is read.
    sequence: u64,
    is_in_line: bool,
    acknowledged: Acknowledged,
    sent: VecDeque<Sent>,
    again: VecDeque<Sent>,
    /// Where reading was when the last look began that found everything: a copy that no look has
    /// seen holds all of this.
    way: Marker,
    next_way: Marker,
    /// Whether stable storage knows of it; before that nothing of it is sent.
    pub(super) is_recorded: bool,
    /// Length and time of its last change, as they were seen last.
    pub(super) seen: (u64, WallTime),
    /// There may be something to read.
    pub(super) is_ready: bool,
    grown_in_look: bool,
    /// It waits for its turn.
    pub(super) is_queued: bool,
    /// The last look that was whole has not found it.
    pub(super) is_missed: bool,
    /// Since when it has no name that is followed.
    pub(super) away_since: Option<Moment>,
    /// Since when it has not the name that it was found by, or is a copy.
    pub(super) rotated_since: Option<Moment>,
    pub(super) is_deleted: bool,
    /// It is not expected to grow any more.
    pub(super) is_final: bool,
}

impl Source {
    /// A source that was found in an open file and begins at its start.
    pub(super) fn new(key: FileKey, path: PathBuf, trail: Trail) -> Self {
        let acknowledged = Acknowledged { marker: trail.marker(), ..Acknowledged::default() };
        let mut source = Self::recorded(key, path.clone(), path, acknowledged, trail.marker());
        source.whereabouts = Whereabouts::Open;
        source.set_trail(trail);
        source.is_recorded = false;
        source.is_ready = true;
        source
    }

    /// A source as a checkpoint tells of it. Its file is to be found.
    pub(super) fn recorded(
        key: FileKey,
        path: PathBuf,
        first_path: PathBuf,
        acknowledged: Acknowledged,
        way: Marker,
    ) -> Self {
        Self {
            key,
            path,
            first_path,
            whereabouts: Whereabouts::Lost(Lost::default()),
            trail: None,
            sequence: acknowledged.sequence,
            is_in_line: acknowledged.is_in_line,
            acknowledged,
            sent: VecDeque::new(),
            again: VecDeque::new(),
            way,
            next_way: way,
            is_recorded: true,
            seen: Default::default(),
            is_ready: false,
            grown_in_look: false,
            is_queued: false,
            is_missed: false,
            stem: Vec::new(),
            away_since: None,
            rotated_since: None,
            is_deleted: false,
            is_final: false,
        }
    }

    pub(super) fn acknowledged(&self) -> &Acknowledged {
        &self.acknowledged
    }

    pub(super) fn way(&self) -> &Marker {
        &self.way
    }

    pub(super) fn trail(&self) -> Option<&Trail> {
        self.trail.as_ref()
    }

    /// The first bytes of the file, if so many are known.
    pub(super) fn stem(&self) -> Option<&[u8]> {
        (self.stem.len() == TAIL_COPY_BYTES_MIN).then_some(&self.stem)
    }

    /// Where reading is, or begins.
    pub(super) fn position(&self) -> Marker {
        self.trail.as_ref().map_or(self.acknowledged.marker, Trail::marker)
    }

    /// Reading goes on here.
    pub(super) fn set_trail(&mut self, trail: Trail) {
        self.stem = trail.stem(TAIL_COPY_BYTES_MIN).to_vec();
        self.trail = Some(trail);
    }

    /// Everything that was read is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.sent.is_empty() && self.again.is_empty()
    }

    pub(super) fn lost_mut(&mut self) -> Option<&mut Lost> {
        match &mut self.whereabouts {
            Whereabouts::Lost(lost) => Some(lost),
            Whereabouts::Open => None,
        }
    }

    pub(super) fn lost(&self) -> Option<&Lost> {
        match &self.whereabouts {
            Whereabouts::Lost(lost) => Some(lost),
            Whereabouts::Open => None,
        }
    }

    /// How many bytes the next batch has, if that is settled: it was sent before.
    pub(super) fn repeat_bytes(&self) -> Option<u64> {
        self.again.front().map(|sent| sent.end_bytes - sent.start_bytes)
    }

    /// Plans a batch of the bytes that were read from where reading is. None: there is nothing to
    /// send until the file grows.
    pub(super) fn on_read(&mut self, bytes: &[u8], is_full: bool) -> Option<Planned> {
        let repeated = self.again.front().copied();
        let is_short =
            repeated.is_some_and(|it| it.end_bytes - it.start_bytes > bytes.len() as u64);
        if is_short {
            // A copy that ends before what was sent: the rest of that is nowhere any more.
            self.again.clear();
        }
        let (length, part, is_repeated) = match repeated.filter(|_| !is_short) {
            Some(sent) => {
                let length = usize::try_from(sent.end_bytes - sent.start_bytes).ok()?;
                (length, sent.part, true)
            }
            None => {
                let Some(cut) = cut(bytes, self.is_in_line, is_full, self.is_final) else {
                    self.is_ready = false;
                    return None;
                };
                (cut.length, cut.part, false)
            }
        };
        let trail = self.trail.as_mut().expect("who reads knows where");
        let start_bytes = trail.offset_bytes();
        let sequence = repeated.filter(|_| is_repeated).map_or(self.sequence, |sent| {
            self.again.pop_front();
            sent.after.sequence - 1
        });
        trail.advance(&bytes[..length]);
        if self.stem.len() < TAIL_COPY_BYTES_MIN {
            self.stem = trail.stem(TAIL_COPY_BYTES_MIN).to_vec();
        }
        let after = Acknowledged {
            marker: trail.marker(),
            sequence: sequence + 1,
            is_in_line: part.ends_in_line(),
        };
        self.sequence = sequence + 1;
        self.is_in_line = after.is_in_line;
        let end_bytes = trail.offset_bytes();
        self.sent.push_back(Sent { start_bytes, end_bytes, part, after });
        Some(Planned { sequence, offset_bytes: start_bytes, length, part, is_repeated })
    }

    /// Everything before an offset has arrived for good. Part of a batch is none. Returns whether
    /// that is news.
    pub(super) fn on_acknowledged(&mut self, end_bytes: u64) -> bool {
        let before = self.acknowledged;
        while let Some(sent) = pop_before(&mut self.sent, end_bytes) {
            self.acknowledged = sent.after;
        }
        if self.sent.is_empty() {
            while let Some(sent) = pop_before(&mut self.again, end_bytes) {
                self.acknowledged = sent.after;
                // It need not be read again.
                self.trail = None;
                (self.sequence, self.is_in_line) = (sent.after.sequence, sent.after.is_in_line);
            }
        }
        self.acknowledged != before
    }

    /// What was sent and not acknowledged is sent again, in the same batches.
    pub(super) fn rewind(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let mut sent = std::mem::take(&mut self.sent);
        sent.append(&mut self.again);
        self.again = sent;
        self.trail = None;
        (self.sequence, self.is_in_line) =
            (self.acknowledged.sequence, self.acknowledged.is_in_line);
        self.is_ready = true;
    }

    /// The length and the time of the last change that the file has now.
    pub(super) fn notice(&mut self, seen: (u64, WallTime)) {
        if seen != self.seen {
            self.seen = seen;
            self.is_ready = true;
            // It is not at its end as long as it changes.
            self.is_final = false;
            self.grown_in_look = true;
        }
    }

    /// Decides at the end of a look whether the file is at its end, and is to be looked at once more.
    pub(super) fn settle(&mut self, now: Moment, linger: Duration) {
        if std::mem::take(&mut self.grown_in_look) && self.rotated_since.is_some() {
            self.rotated_since = Some(now);
        }
        let is_final = self.rotated_since.is_some_and(|since| now.since(since) >= linger);
        if is_final && !self.is_final {
            self.is_final = true;
            self.is_ready = true;
        }
    }

    /// A look begins.
    pub(super) fn begin_look(&mut self) {
        self.next_way = self.position();
    }

    /// A look has found everything that was there when it began.
    pub(super) fn end_look(&mut self) {
        self.way = self.next_way;
    }

    /// A copy that ends before where reading is goes on with the source: reading stands at the
    /// copy's end, and so does, at the most, what is acknowledged.
    pub(super) fn end_at(&mut self, trail: Trail) {
        let marker = trail.marker();
        let cut = |known: &mut Acknowledged| {
            if known.marker.offset_bytes > marker.offset_bytes {
                known.marker = marker;
            }
        };
        cut(&mut self.acknowledged);
        self.sent.iter_mut().for_each(|sent| cut(&mut sent.after));
        self.again.retain(|sent| sent.end_bytes <= marker.offset_bytes);
        self.set_trail(trail);
    }
}

/// Takes the first batch, if it ends there or before.
fn pop_before(batches: &mut VecDeque<Sent>, end_bytes: u64) -> Option<Sent> {
    batches.front().is_some_and(|it| it.end_bytes <= end_bytes).then(|| batches.pop_front())?
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Source {
        let trail = Trail::at(0, b"one\ntwo\n".to_vec(), Vec::new());
        Source::new(FileKey::default(), "log".into(), trail)
    }

    /// Reads as a tail does: from where reading is, as much as a repetition asks for.
    fn read(source: &mut Source, content: &[u8]) -> Option<(u64, u64, bool)> {
        if source.trail().is_none() {
            let at = usize::try_from(source.position().offset_bytes).unwrap();
            source.set_trail(Trail::at(at as u64, content.to_vec(), content[..at].to_vec()));
        }
        let rest = &content[usize::try_from(source.position().offset_bytes).unwrap()..];
        let length = source.repeat_bytes().map_or(rest.len(), |it| usize::try_from(it).unwrap());
        let planned = source.on_read(&rest[..length.min(rest.len())], false)?;
        Some((planned.sequence, planned.length as u64, planned.is_repeated))
    }

    #[test]
    fn what_is_acknowledged_ends_with_a_batch() {
        let cases = [
            ("nothing", vec![], 0),
            ("the first", vec![4], 4),
            ("half of the first", vec![3], 0),
            ("both at once", vec![8], 8),
            ("one and a half", vec![6], 4),
            ("in the wrong order", vec![8, 4], 8),
            ("more than was sent", vec![100], 8),
        ];
        for (name, receipts, want) in cases {
            let mut source = source();
            assert_eq!(read(&mut source, b"one\n"), Some((0, 4, false)));
            assert_eq!(read(&mut source, b"one\ntwo\n"), Some((1, 4, false)));
            for end in receipts {
                source.on_acknowledged(end);
            }
            assert_eq!(source.acknowledged().marker.offset_bytes, want, "{name}");
            assert_eq!(source.acknowledged().sequence, want / 4, "{name}");
        }
    }

    #[test]
    fn after_a_loss_the_same_batches_come_again_and_then_what_is_new() {
        let content = b"one\ntwo\nthree\n";
        let mut source = source();
        read(&mut source, &content[..4]);
        read(&mut source, &content[..8]);
        source.rewind();
        assert_eq!(read(&mut source, content), Some((0, 4, true)));
        source.rewind();
        assert_eq!(read(&mut source, content), Some((0, 4, true)), "it was lost once more");
        assert_eq!(read(&mut source, content), Some((1, 4, true)));
        assert_eq!(read(&mut source, content), Some((2, 6, false)));
        assert_eq!(read(&mut source, content), None);
    }

    #[test]
    fn what_is_acknowledged_late_need_not_come_again() {
        let content = b"one\ntwo\nthree\n";
        let mut source = source();
        read(&mut source, &content[..4]);
        read(&mut source, &content[..8]);
        source.rewind();
        assert!(source.on_acknowledged(4));
        assert_eq!(read(&mut source, content), Some((1, 4, true)));
        assert_eq!(read(&mut source, content), Some((2, 6, false)));
        assert!(source.on_acknowledged(14));
        assert!(source.is_settled());
    }
}
