//! How far the copy of a large file has come: what its journal says, and what may be believed of it.
//!
//! A journal lies beside the temporary file. It begins with a header that says what is copied to
//! what, and goes on with records, each of which says that the bytes up to some offset are written,
//! or are on stable storage. Every part has a checksum, and a record's covers the header, too: what is
//! torn, flipped or another journal's ends the journal there. In a stage the journal is an attribute of
//! the file itself, with one record, and is exchanged as a whole.
//!
//! ```text
//! header: magic 8 | device 8 | inode 8 | size 8 | modified 8 + 4 | changed 8 + 4
//!         | temporary's inode 8 | boot id 36 | CRC-32 4                          104 bytes
//! record: kind 4 | number 4 | end 8 | CRC-32 of the header's and of these 4       20 bytes
//! ```
//!
//! All numbers are little-endian. In the same boot what was written is in the page cache or on the
//! disk, and counts. After another boot only what was synced does.

use std::ffi::CStr;

use crate::limits::JOURNAL_NOTES_A_SYNC;
use crate::units::WallTime;

/// The attribute that the journal of a file in a stage is.
pub(super) const JOURNAL: &CStr = c"user.ucp.journal";

/// The number in the name is the version of the format.
const MAGIC: [u8; 8] = *b"ucpjrn01";
/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 104;
/// Bytes of a record.
pub(super) const RECORD_BYTES: usize = 20;
const BOOT_BYTES: usize = 36;

/// Which boot of the machine: the text of `/proc/sys/kernel/random/boot_id`.
pub(super) type BootId = [u8; BOOT_BYTES];

/// What is copied to what: a journal of anything else is not believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size_bytes: u64,
    pub(super) modified: WallTime,
    pub(super) changed: WallTime,
    /// The inode of the temporary file.
    pub(super) temporary: u64,
    pub(super) boot: BootId,
}

/// Up to where a file is copied.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Reached {
    pub(super) written_bytes: u64,
    pub(super) synced_bytes: u64,
}

/// What a record says of the bytes before its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Written,
    Synced,
}

/// How a journal grows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    /// Each record stands behind the one before: in a file.
    Appended,
    /// All of it, with one record, takes the place of what it was: in an attribute.
    Replaced,
}

/// What is to be done for the journal next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Note {
    /// Write these bytes at this offset of the journal.
    Record { offset_bytes: u64, bytes: Vec<u8> },
    /// Put the data of the target on stable storage.
    Sync,
}

/// Decides when something is noted. One thing at a time is under way.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    header: Header,
    form: Form,
    /// How many records there are.
    number: u32,
    every_bytes: u64,
    /// Whether syncs are worth their price.
    syncs: bool,
    reached: Reached,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Idle,
    /// What is written up to here is being synced.
    Syncing(u64),
    Recording,
}

impl Header {
    /// The bytes that a journal begins with.
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        for number in [self.device, self.inode, self.size_bytes] {
            bytes.extend(number.to_le_bytes());
        }
        for time in [self.modified, self.changed] {
            bytes.extend(time.seconds.to_le_bytes());
            bytes.extend(time.nanoseconds.to_le_bytes());
        }
        bytes.extend(self.temporary.to_le_bytes());
        bytes.extend(self.boot);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("the parts of a header have its length")
    }

    /// What binds records to it: its checksum. (That of all its bytes would be the same for every
    /// header: the remainder of a CRC.)
    fn seal(&self) -> u32 {
        let bytes = self.encode();
        let sum = bytes.last_chunk().expect("a header ends with its checksum");
        u32::from_le_bytes(*sum)
    }

    /// How many bytes at the start of the temporary need not be copied again, as `journal` says and
    /// as may be believed. `self` is what is to be copied now.
    pub(super) fn believed(&self, journal: &[u8]) -> Reached {
        let Some((header, records)) = journal.split_at_checked(HEADER_BYTES) else {
            return Reached::default();
        };
        // Of the header only the boot may differ.
        let mut then = *self;
        then.boot.copy_from_slice(&header[HEADER_BYTES - 4 - BOOT_BYTES..HEADER_BYTES - 4]);
        if header != then.encode() {
            return Reached::default();
        }
        let mut reached = Reached::default();
        for (number, record) in (0..).zip(records.chunks_exact(RECORD_BYTES)) {
            let Some((kind, end)) = decode(record, then.seal(), number) else { break };
            if end > self.size_bytes {
                break;
            }
            reached.note(kind, end);
        }
        if then.boot != self.boot {
            reached.written_bytes = reached.synced_bytes;
        }
        reached
    }
}

impl Reached {
    fn note(&mut self, kind: Kind, end: u64) {
        self.written_bytes = self.written_bytes.max(end);
        if kind == Kind::Synced {
            self.synced_bytes = self.synced_bytes.max(end);
        }
    }
}

fn encode(kind: Kind, end: u64, seal: u32, number: u32) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    let code: u32 = match kind {
        Kind::Written => 1,
        Kind::Synced => 2,
    };
    record[..4].copy_from_slice(&code.to_le_bytes());
    record[4..8].copy_from_slice(&number.to_le_bytes());
    record[8..16].copy_from_slice(&end.to_le_bytes());
    let sum = sum(&record[..16], seal);
    record[16..].copy_from_slice(&sum.to_le_bytes());
    record
}

fn sum(record: &[u8], seal: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&seal.to_le_bytes());
    hasher.update(record);
    hasher.finalize()
}

fn decode(record: &[u8], seal: u32, number: u32) -> Option<(Kind, u64)> {
    let word = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
    if word(16)? != sum(record.get(..16)?, seal) || word(4)? != number {
        return None;
    }
    let kind = match word(0)? {
        1 => Kind::Written,
        2 => Kind::Synced,
        _ => return None,
    };
    Some((kind, u64::from_le_bytes(record.get(8..16)?.try_into().ok()?)))
}

impl Recorder {
    /// A recorder of a file of which so much is there.
    pub(super) fn new(
        header: Header,
        form: Form,
        reached: Reached,
        every_bytes: u64,
        syncs: bool,
    ) -> Self {
        Self { header, form, number: 0, every_bytes, syncs, reached, state: State::Idle }
    }

    /// What its journal begins with: what is copied to what, and how much of that is there.
    pub(super) fn begin(&mut self) -> Vec<u8> {
        let Reached { written_bytes, synced_bytes } = self.reached;
        let records = [(Kind::Synced, synced_bytes), (Kind::Written, written_bytes)];
        // Where there is room for one, what is written says more.
        let passed_over = usize::from(self.form == Form::Replaced);
        let mut journal = self.header.encode().to_vec();
        for (kind, end) in records.into_iter().skip(passed_over).filter(|(_, end)| *end > 0) {
            journal.extend(encode(kind, end, self.header.seal(), self.number));
            self.number += 1;
        }
        journal
    }

    /// Up to where the file is copied, as far as the journal knows.
    pub(super) fn reached(&self) -> Reached {
        self.reached
    }

    /// Whether a sync is under way, or nobody has heard what came of it.
    pub(super) fn is_syncing(&self) -> bool {
        matches!(self.state, State::Syncing(_))
    }

    /// What to note when all bytes before `end` are written.
    pub(super) fn on_progress(&mut self, end: u64) -> Option<Note> {
        if self.state != State::Idle {
            return None;
        }
        if self.syncs && end >= self.reached.synced_bytes + self.every_bytes * JOURNAL_NOTES_A_SYNC
        {
            self.state = State::Syncing(end);
            return Some(Note::Sync);
        }
        (end >= self.reached.written_bytes + self.every_bytes)
            .then(|| self.record(Kind::Written, end))
    }

    /// The sync has succeeded.
    pub(super) fn on_synced(&mut self) -> Note {
        let State::Syncing(end) = self.state else { panic!("nothing is being synced") };
        self.record(Kind::Synced, end)
    }

    /// The record is written.
    pub(super) fn on_recorded(&mut self) {
        self.state = State::Idle;
    }

    /// A record, now.
    pub(super) fn record(&mut self, kind: Kind, end: u64) -> Note {
        self.reached.note(kind, end);
        self.state = State::Recording;
        let seal = self.header.seal();
        match self.form {
            Form::Appended => {
                let bytes = encode(kind, end, seal, self.number).to_vec();
                let offset_bytes = (HEADER_BYTES + RECORD_BYTES * self.number as usize) as u64;
                self.number += 1;
                Note::Record { offset_bytes, bytes }
            }
            Form::Replaced => {
                let record = encode(kind, end, seal, 0);
                let bytes = [self.header.encode().as_slice(), &record].concat();
                Note::Record { offset_bytes: 0, bytes }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const HEADER: Header = Header {
        device: 1,
        inode: 2,
        size_bytes: 1000,
        modified: WallTime { seconds: -3, nanoseconds: 4 },
        changed: WallTime { seconds: 5, nanoseconds: 6 },
        temporary: 7,
        boot: *b"0f0e0d0c-0b0a-4908-8706-050403020100",
    };
    const OTHER_BOOT: BootId = *b"00000000-0b0a-4908-8706-050403020100";

    fn journal(header: &Header, notes: &[(Kind, u64)]) -> Vec<u8> {
        let mut recorder = Recorder::new(*header, Form::Appended, Reached::default(), 1, false);
        let mut journal = recorder.begin();
        for (kind, end) in notes {
            let Note::Record { offset_bytes, bytes } = recorder.record(*kind, *end) else {
                panic!("a record was asked for")
            };
            assert_eq!(offset_bytes, journal.len() as u64);
            journal.extend(bytes);
        }
        journal
    }

    fn reached(written_bytes: u64, synced_bytes: u64) -> Reached {
        Reached { written_bytes, synced_bytes }
    }

    #[test]
    fn a_journal_is_believed_by_what_and_when_it_is_of() {
        use Kind::{Synced, Written};
        let notes = [(Written, 100), (Synced, 200), (Written, 300)];
        let next = WallTime { seconds: 5, nanoseconds: 7 };
        let cases = [
            ("the same", HEADER, reached(300, 200)),
            ("another boot", Header { boot: OTHER_BOOT, ..HEADER }, reached(200, 200)),
            ("another device", Header { device: 9, ..HEADER }, reached(0, 0)),
            ("another source", Header { inode: 9, ..HEADER }, reached(0, 0)),
            ("another size", Header { size_bytes: 1001, ..HEADER }, reached(0, 0)),
            ("written to", Header { modified: next, ..HEADER }, reached(0, 0)),
            ("changed", Header { changed: next, ..HEADER }, reached(0, 0)),
            ("another temporary", Header { temporary: 9, ..HEADER }, reached(0, 0)),
        ];
        for (name, now, want) in cases {
            assert_eq!(now.believed(&journal(&HEADER, &notes)), want, "{name}");
        }
    }

    #[test]
    fn what_is_torn_or_flipped_ends_the_journal() {
        let notes = [(Kind::Written, 100), (Kind::Written, 200), (Kind::Written, 300)];
        let whole = journal(&HEADER, &notes);
        for length in 0..whole.len() {
            let records = length.saturating_sub(HEADER_BYTES) / RECORD_BYTES;
            let want = reached(100 * records as u64, 0);
            assert_eq!(HEADER.believed(&whole[..length]), want, "cut to {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let records = (bit / 8).checked_sub(HEADER_BYTES).map_or(0, |at| at / RECORD_BYTES);
            let want = reached(100 * records as u64, 0);
            assert_eq!(HEADER.believed(&flipped), want, "bit {bit} flipped");
        }
    }

    #[test]
    fn a_journal_that_is_taken_up_begins_with_what_is_there() {
        let there = reached(300, 200);
        let mut appended = Recorder::new(HEADER, Form::Appended, there, 1, false);
        let mut journal = appended.begin();
        assert_eq!(HEADER.believed(&journal), there);
        let Note::Record { offset_bytes, bytes } = appended.record(Kind::Written, 400) else {
            panic!("a record was asked for")
        };
        assert_eq!(offset_bytes, journal.len() as u64);
        journal.extend(bytes);
        assert_eq!(HEADER.believed(&journal), reached(400, 200));
        let mut nothing = Recorder::new(HEADER, Form::Appended, reached(0, 0), 1, false);
        assert_eq!(nothing.begin(), HEADER.encode());
    }

    #[test]
    fn a_journal_that_is_replaced_is_whole_each_time() {
        let mut recorder = Recorder::new(HEADER, Form::Replaced, reached(300, 0), 1, false);
        assert_eq!(HEADER.believed(&recorder.begin()), reached(300, 0));
        for end in [400, 500] {
            let note = recorder.record(Kind::Written, end);
            let Note::Record { offset_bytes: 0, bytes } = note else { panic!("{note:?}") };
            assert_eq!(HEADER.believed(&bytes), reached(end, 0));
            let elsewhere = Header { boot: OTHER_BOOT, ..HEADER };
            assert_eq!(elsewhere.believed(&bytes), reached(0, 0), "after another boot");
        }
    }

    #[test]
    fn garbage_is_not_believed() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            let length = usize::try_from(random.below(300)).unwrap();
            let garbage: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
            assert_eq!(HEADER.believed(&garbage), Reached::default());
            let behind = [HEADER.encode().to_vec(), garbage].concat();
            assert_eq!(HEADER.believed(&behind), Reached::default());
        }
    }

    #[test]
    fn records_of_another_journal_or_beyond_the_file_are_not_believed() {
        let other = journal(&Header { boot: OTHER_BOOT, ..HEADER }, &[(Kind::Synced, 500)]);
        let spliced = [HEADER.encode().as_slice(), &other[HEADER_BYTES..]].concat();
        assert_eq!(HEADER.believed(&spliced), Reached::default());
        let beyond = journal(&HEADER, &[(Kind::Written, 1000), (Kind::Synced, 1001)]);
        assert_eq!(HEADER.believed(&beyond), reached(1000, 0));
    }

    #[test]
    fn one_thing_is_noted_at_a_time_and_a_sync_covers_what_was_written_before() {
        let mut recorder = Recorder::new(HEADER, Form::Appended, Reached::default(), 10, true);
        assert_eq!(recorder.on_progress(9), None);
        assert!(matches!(recorder.on_progress(10), Some(Note::Record { .. })));
        assert_eq!(recorder.on_progress(100), None, "the first is under way");
        recorder.on_recorded();
        assert_eq!(recorder.on_progress(160), Some(Note::Sync));
        assert_eq!(recorder.on_progress(400), None);
        assert!(matches!(recorder.on_synced(), Note::Record { .. }));
        assert_eq!(recorder.reached(), reached(160, 160));
        let mut without = Recorder::new(HEADER, Form::Appended, reached(50, 20), 10, false);
        assert_eq!(without.on_progress(59), None);
        let note = without.on_progress(400);
        assert!(matches!(note, Some(Note::Record { .. })));
    }
}
