//! What is at the other end: keeps what arrives, and holds the rules against it.

use std::collections::{BTreeMap, BTreeSet};

use ucp_engine::tail::{Batch, Ledger, Part, SourceId, Verdict};

/// What has arrived. A clone is what it was at a moment.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    ledger: Ledger,
    streams: BTreeMap<SourceId, Stream>,
    pub(crate) duplicates: u64,
    pub(crate) overlaps: u64,
    pub(crate) long_lines: u64,
}

#[derive(Clone, Default)]
struct Stream {
    bytes: Vec<u8>,
    /// Offset to sequence number and length of the batches that came in this life of the tail.
    batches: BTreeMap<u64, (u64, u64)>,
    /// Offsets at which a batch began or ended in any life, with its number or the next one's.
    bounds: BTreeSet<(u64, u64)>,
}

impl Receiver {
    pub(crate) fn receive(&mut self, batch: &Batch) {
        let (source, offset, bytes) = (batch.source(), batch.offset_bytes(), batch.as_bytes());
        let length = bytes.len() as u64;
        assert!(length > 0, "{batch:?} is empty");
        let ends_line = bytes.ends_with(b"\n");
        let is_whole = matches!(batch.part(), Part::Lines | Part::LineEnd);
        assert_eq!(ends_line, is_whole, "{batch:?} says what it is not");
        self.long_lines += u64::from(batch.part() == Part::LinePart);
        let stream = self.streams.entry(source).or_default();
        let sequence = batch.sequence();
        if stream.batches.is_empty() {
            let is_bound = stream.bounds.contains(&(offset, sequence));
            let is_first = stream.bounds.is_empty() && (offset, sequence) == (0, 0);
            assert!(is_bound || is_first, "{batch:?} begins where no batch did or ended");
        }
        let before = stream.batches.insert(offset, (sequence, length));
        let is_same = before.is_none_or(|before| before == (sequence, length));
        assert!(is_same, "{batch:?} was another batch: {before:?}");
        stream.bounds.extend([(offset, sequence), (offset + length, sequence + 1)]);
        let known = usize::try_from(offset).unwrap().min(stream.bytes.len());
        let common = bytes.len().min(stream.bytes.len() - known);
        let is_same = stream.bytes[known..known + common] == bytes[..common];
        assert!(is_same, "{batch:?}: a source and an offset are two bytes");
        let new = match self.ledger.judge(source, offset, length) {
            Verdict::New => {
                assert_eq!(offset, stream.bytes.len() as u64, "{batch:?} begins in the middle");
                bytes
            }
            Verdict::Duplicate => {
                self.duplicates += 1;
                &[]
            }
            Verdict::Overlap { known_bytes } => {
                self.overlaps += 1;
                let is_bound =
                    stream.bounds.iter().any(|(bound, _)| *bound == offset + known_bytes);
                assert!(is_bound, "{batch:?}: what is known of it is no whole batch");
                &bytes[usize::try_from(known_bytes).unwrap()..]
            }
            Verdict::Gap { missing_bytes } => {
                panic!("{missing_bytes} bytes before {batch:?} are lost")
            }
        };
        stream.bytes.extend(new);
        self.ledger.record(source, offset + length);
    }

    /// The tail begins again.
    pub(crate) fn begin_life(&mut self) {
        self.streams.values_mut().for_each(|stream| stream.batches.clear());
    }

    /// Each line, those without a newline included, and whence it came.
    pub(crate) fn lines(&self) -> BTreeMap<Vec<u8>, Vec<SourceId>> {
        let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (source, stream) in &self.streams {
            for line in stream.bytes.split_inclusive(|byte| *byte == b'\n') {
                lines.entry(line.to_vec()).or_default().push(*source);
            }
        }
        lines
    }

    pub(crate) fn has(&self, line: &[u8]) -> bool {
        self.streams.values().any(|stream| {
            stream.bytes.split_inclusive(|byte| *byte == b'\n').any(|other| other == line)
        })
    }
}
