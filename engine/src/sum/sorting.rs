//! Putting records into the order of their names, with little memory: as a state machine that does no
//! I/O.
//!
//! ```text
//! push ─► a run in memory ─► full: sorted, and written away ─► in the end: runs are merged, each read
//!                                                             a part at a time
//! ```
//!
//! A record is `name length (4) | value length (4) | name | value`, in memory as in a run.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

/// Records that were not sorted yet.
#[derive(Debug, Default)]
pub(crate) struct Run {
    bytes: Vec<u8>,
    /// Where each record begins.
    starts: Vec<u32>,
}

/// A name, and what belongs to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Record {
    pub(crate) name: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

const HEADER_BYTES: usize = 8;

impl Run {
    /// No records, and room for so many bytes of them, which is touched as it is used.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), starts: Vec::new() }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len() + self.starts.len() * size_of::<u32>()
    }

    /// Bytes of its records.
    pub(crate) fn record_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn push(&mut self, name: &[u8], value: &[u8]) {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("a record is short");
        let start = length(&self.bytes);
        self.starts.push(start);
        self.bytes.extend_from_slice(&length(name).to_ne_bytes());
        self.bytes.extend_from_slice(&length(value).to_ne_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
    }

    /// The records in the order of their names, one after the other.
    pub(crate) fn sorted(&mut self) -> impl Iterator<Item = Record> + '_ {
        let Self { bytes, starts } = self;
        let name = |start: u32| &bytes[name_at(bytes, start as usize)];
        starts.sort_unstable_by(|one, other| name(*one).cmp(name(*other)));
        starts.iter().map(|start| {
            let (record, _) =
                Record::read(&bytes[*start as usize..]).expect("it was written whole");
            record
        })
    }

    /// Forgets its records, and keeps their room.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }
}

fn number(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes[at..at + 4].try_into().expect("four bytes");
    u32::from_ne_bytes(bytes) as usize
}

fn name_at(bytes: &[u8], start: usize) -> Range<usize> {
    let from = start + HEADER_BYTES;
    from..from + number(bytes, start)
}

impl Record {
    /// Appends it to the bytes of a run.
    pub(crate) fn write(&self, run: &mut Vec<u8>) {
        for part in [&self.name, &self.value] {
            let length = u32::try_from(part.len()).expect("a record is short");
            run.extend_from_slice(&length.to_ne_bytes());
        }
        run.extend_from_slice(&self.name);
        run.extend_from_slice(&self.value);
    }

    /// The record at the start of some bytes, and how many it takes; none if it is cut off.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        if bytes.len() < HEADER_BYTES {
            return None;
        }
        let name = name_at(bytes, 0);
        let end = name.end + number(bytes, 4);
        let value = bytes.get(name.end..end)?.to_vec();
        Some((Self { name: bytes[name].to_vec(), value }, end))
    }
}

/// Merges sorted runs.
#[derive(Debug)]
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// The next record of each run that is not at its end, the first name on top.
    heads: BinaryHeap<Head>,
    /// Runs whose next record is not known.
    missing: Vec<usize>,
}

/// A run, as far as it was read.
#[derive(Debug, Default)]
struct Source {
    bytes: Vec<u8>,
    used: usize,
    is_at_end: bool,
}

#[derive(Debug, Eq, PartialEq)]
struct Head {
    record: Record,
    run: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        // A heap has the largest on top. Names of equal bytes come in the order of their runs.
        (&other.record.name, other.run).cmp(&(&self.record.name, self.run))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a merge needs or has.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Merged {
    /// The next bytes of this run; none at its end.
    Needs(usize),
    /// The next record.
    Record(Record),
    /// There is no more.
    End,
}

impl Merge {
    pub(crate) fn new(runs: usize) -> Self {
        let sources = (0..runs).map(|_| Source::default()).collect();
        Self { sources, heads: BinaryHeap::new(), missing: (0..runs).collect() }
    }

    /// Takes the next bytes of a run; none say that it has ended.
    ///
    /// # Panics
    ///
    /// If a run ends within a record: what was written is not what was read.
    pub(crate) fn feed(&mut self, run: usize, bytes: &[u8]) {
        let source = &mut self.sources[run];
        source.bytes.drain(..source.used);
        source.used = 0;
        source.bytes.extend_from_slice(bytes);
        source.is_at_end = bytes.is_empty();
        assert!(!source.is_at_end || source.bytes.is_empty(), "a run ends with a record");
    }

    /// What is next.
    pub(crate) fn next(&mut self) -> Merged {
        while let Some(run) = self.missing.pop() {
            let source = &mut self.sources[run];
            match Record::read(&source.bytes[source.used..]) {
                Some((record, length)) => {
                    source.used += length;
                    self.heads.push(Head { record, run });
                }
                None if source.is_at_end => {}
                None => {
                    self.missing.push(run);
                    return Merged::Needs(run);
                }
            }
        }
        match self.heads.pop() {
            Some(Head { record, run }) => {
                self.missing.push(run);
                Merged::Record(record)
            }
            None => Merged::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn records_come_in_order_whatever_the_runs_and_the_parts_that_are_read() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut all = Vec::new();
            let mut runs = Vec::new();
            for _ in 0..random.below(6) {
                let mut run = Run::default();
                for _ in 0..random.below(30) {
                    let length = usize::try_from(random.below(40)).unwrap();
                    let name: Vec<u8> =
                        (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
                    run.push(&name, &name[..length / 2]);
                    all.push(Record { value: name[..length / 2].to_vec(), name });
                }
                let mut bytes = Vec::new();
                run.sorted().for_each(|record| record.write(&mut bytes));
                runs.push(bytes);
            }
            all.sort_by(|one, other| one.name.cmp(&other.name));
            let (mut merge, mut got) = (Merge::new(runs.len()), Vec::new());
            loop {
                match merge.next() {
                    Merged::Needs(run) => {
                        let part = usize::try_from(1 + random.below(50)).unwrap();
                        let part = part.min(runs[run].len());
                        let rest = runs[run].split_off(part);
                        merge.feed(run, &std::mem::replace(&mut runs[run], rest));
                    }
                    Merged::Record(record) => got.push(record),
                    Merged::End => break,
                }
            }
            assert_eq!(got, all, "seed {seed}");
        }
    }
}
