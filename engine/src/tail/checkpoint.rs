//! What is written down: how far each source is acknowledged.
//!
//! ```text
//! header: magic 8 | number 8 | next source 8 | count 4
//! source: id 8 | device 8 | inode 8 | acknowledged 28 | way 28 | sequence 8 | in line 1
//!         | path 2 + n | path it was found by 2 + n
//! marker: offset 8 | head's bytes 4 | head's digest 8 | window's digest 8
//! end:    CRC-32 of all before 4
//! ```
//!
//! All numbers are little-endian. The number grows with each checkpoint; of those that are whole the
//! one with the highest number counts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::source::{Acknowledged, FileKey, Source, SourceId};
use super::trail::Marker;

/// The number in it is the version of the format.
const MAGIC: [u8; 8] = *b"ucptail1";

/// A checkpoint.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Checkpoint {
    /// How many were written before.
    pub(super) number: u64,
    /// The id that the next source gets.
    pub(super) next_source: u64,
    pub(super) records: Vec<Record>,
}

/// What a checkpoint says of one source.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) key: FileKey,
    pub(super) acknowledged: Acknowledged,
    pub(super) way: Marker,
    pub(super) path: PathBuf,
    pub(super) first_path: PathBuf,
}

/// Why bytes are no checkpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Damage {
    /// They are not what was written.
    Torn,
    /// Another version of this program wrote them.
    OtherVersion,
}

/// Takes bytes from the front.
struct Reader<'a>(&'a [u8]);

impl Checkpoint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + 160 * self.records.len());
        bytes.extend(MAGIC);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.next_source.to_le_bytes());
        let count = u32::try_from(self.records.len()).expect("sources are limited");
        bytes.extend(count.to_le_bytes());
        self.records.iter().for_each(|record| record.encode(&mut bytes));
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let (bytes, sum) = bytes.split_last_chunk().ok_or(Damage::Torn)?;
        if crc32fast::hash(bytes) != u32::from_le_bytes(*sum) {
            return Err(Damage::Torn);
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(Damage::OtherVersion);
        }
        let mut reader = Reader(&bytes[MAGIC.len()..]);
        let mut read = || {
            let (number, next_source) = (reader.u64()?, reader.u64()?);
            let count = reader.u32()?;
            let records = (0..count).map(|_| Record::decode(&mut reader)).collect::<Option<_>>()?;
            reader.0.is_empty().then_some(Self { number, next_source, records })
        };
        read().ok_or(Damage::Torn)
    }
}

impl Record {
    pub(super) fn of(id: SourceId, source: &Source) -> Self {
        Self {
            id: id.0,
            key: source.key,
            acknowledged: *source.acknowledged(),
            way: *source.way(),
            path: source.path.clone(),
            first_path: source.first_path.clone(),
        }
    }

    pub(super) fn into_source(self) -> (SourceId, Source) {
        let Self { id, key, acknowledged, way, path, first_path } = self;
        (SourceId(id), Source::recorded(key, path, first_path, acknowledged, way))
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        for number in [self.id, self.key.device, self.key.inode] {
            bytes.extend(number.to_le_bytes());
        }
        encode_marker(&self.acknowledged.marker, bytes);
        encode_marker(&self.way, bytes);
        bytes.extend(self.acknowledged.sequence.to_le_bytes());
        bytes.push(self.acknowledged.is_in_line.into());
        for path in [&self.path, &self.first_path] {
            let path = path.as_os_str().as_bytes();
            let length = u16::try_from(path.len()).expect("the kernel took the path");
            bytes.extend(length.to_le_bytes());
            bytes.extend(path);
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let id = reader.u64()?;
        let key = FileKey { device: reader.u64()?, inode: reader.u64()? };
        let (marker, way) = (reader.marker()?, reader.marker()?);
        let sequence = reader.u64()?;
        let is_in_line = reader.take::<1>()?[0] != 0;
        let acknowledged = Acknowledged { marker, sequence, is_in_line };
        let (path, first_path) = (reader.path()?, reader.path()?);
        Some(Self { id, key, acknowledged, way, path, first_path })
    }
}

fn encode_marker(marker: &Marker, bytes: &mut Vec<u8>) {
    bytes.extend(marker.offset_bytes.to_le_bytes());
    bytes.extend(marker.head_bytes.to_le_bytes());
    bytes.extend(marker.head.to_le_bytes());
    bytes.extend(marker.window.to_le_bytes());
}

impl Reader<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Option<[u8; LENGTH]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn marker(&mut self) -> Option<Marker> {
        let (offset_bytes, head_bytes) = (self.u64()?, self.u32()?);
        Some(Marker { offset_bytes, head_bytes, head: self.u64()?, window: self.u64()? })
    }

    fn path(&mut self) -> Option<PathBuf> {
        let length = self.take().map(u16::from_le_bytes)?;
        let (path, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(Path::new(OsStr::from_bytes(path)).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn some() -> Checkpoint {
        let marker = |offset_bytes| Marker { offset_bytes, head_bytes: 3, head: 4, window: 5 };
        let record = |id| Record {
            id,
            key: FileKey { device: 8, inode: 9 + id },
            acknowledged: Acknowledged { marker: marker(100), sequence: 7, is_in_line: id == 2 },
            way: marker(50),
            path: PathBuf::from(OsStr::from_bytes(b"/log/\xff\n")),
            first_path: "/log/a".into(),
        };
        Checkpoint { number: 12, next_source: 99, records: vec![record(1), record(2)] }
    }

    #[test]
    fn what_was_written_is_read() {
        for checkpoint in [Checkpoint::default(), some()] {
            assert_eq!(Checkpoint::decode(&checkpoint.encode()), Ok(checkpoint));
        }
    }

    #[test]
    fn what_is_cut_or_flipped_is_told() {
        let whole = some().encode();
        for length in 0..whole.len() {
            assert_eq!(Checkpoint::decode(&whole[..length]), Err(Damage::Torn), "cut to {length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::decode(&flipped), Err(Damage::Torn), "bit {bit}");
        }
        assert_eq!(Checkpoint::decode(&[whole, vec![0]].concat()), Err(Damage::Torn), "longer");
    }

    #[test]
    fn garbage_with_a_right_sum_is_no_checkpoint() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            let length = random.below(200);
            let mut bytes = MAGIC.to_vec();
            bytes.extend((0..length).map(|_| random.next().to_le_bytes()[0] & 3));
            bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
            if let Ok(checkpoint) = Checkpoint::decode(&bytes) {
                assert_eq!(checkpoint.encode(), bytes);
            }
        }
        let mut other = some().encode();
        let end = other.len() - 4;
        other[7] = b'2';
        let sum = crc32fast::hash(&other[..end]);
        other[end..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(Checkpoint::decode(&other), Err(Damage::OtherVersion));
    }
}
