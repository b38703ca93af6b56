//! What the bytes of a file came to, so that they can be compared with what a disk gives back.
//!
//! ```text
//! bytes in their order ──► digests of 1 MiB each: which of them differs?
//!                     └──► one digest of all: for lists and accounts
//! ```
//!
//! What is left out between two pieces is a hole, and counts as zeros. It decides, and does no I/O.

use crate::digest::{Algorithm, Digest, Hasher};
use crate::limits::FINGERPRINT_UNIT_BYTES;

/// What a file's bytes are to be turned into.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Wanted {
    /// Digests of each unit, to compare by.
    pub(super) units: Option<Algorithm>,
    /// One digest of the whole file.
    pub(super) whole: Option<Algorithm>,
}

/// What a file's bytes came to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Fingerprint {
    pub(super) size_bytes: u64,
    pub(super) whole: Option<Digest>,
    /// The digests of the units, one after the other.
    units: Vec<u8>,
    /// What they are made by, if there are any.
    algorithm: Option<Algorithm>,
}

/// Takes the bytes of a file, in order, and makes its fingerprint.
#[derive(Debug)]
pub(super) struct Fingerprinter {
    wanted: Wanted,
    whole: Option<Hasher>,
    /// The unit that has come in part.
    unit: Option<Hasher>,
    units: Vec<u8>,
    /// The digest of a unit of zeros, once one was needed: large holes have many.
    zeros: Option<Digest>,
    position: u64,
}

impl Wanted {
    /// Whether nobody wants anything, so that nothing need be read or hashed.
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl Fingerprinter {
    pub(super) fn new(wanted: Wanted) -> Self {
        let whole = wanted.whole.map(Algorithm::hasher);
        Self { wanted, whole, unit: None, units: Vec::new(), zeros: None, position: 0 }
    }

    /// Takes the bytes at `offset`. Those before it that were not seen are a hole's.
    ///
    /// # Panics
    ///
    /// If they come before bytes that were seen.
    pub(super) fn on_data(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset >= self.position, "bytes are hashed in order");
        self.on_zeros_up_to(offset);
        if let Some(hasher) = &mut self.whole {
            hasher.update(bytes);
        }
        let Some(algorithm) = self.wanted.units else {
            self.position += bytes.len() as u64;
            return;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let part;
            (part, rest) = rest.split_at(self.left_of_unit(rest.len() as u64));
            self.position += part.len() as u64;
            if part.len() as u64 == FINGERPRINT_UNIT_BYTES {
                self.units.extend_from_slice(algorithm.digest(part).as_bytes());
            } else {
                self.unit.get_or_insert_with(|| algorithm.hasher()).update(part);
                self.end_unit_if_full();
            }
        }
    }

    /// What a file of `size_bytes` came to. What was not seen is a hole.
    pub(super) fn finish(mut self, size_bytes: u64) -> Fingerprint {
        assert!(size_bytes >= self.position, "no file ends before its bytes");
        self.on_zeros_up_to(size_bytes);
        if let Some(unit) = self.unit.take() {
            self.units.extend_from_slice(unit.finish().as_bytes());
        }
        Fingerprint {
            size_bytes,
            whole: self.whole.map(Hasher::finish),
            units: self.units,
            algorithm: self.wanted.units,
        }
    }

    fn on_zeros_up_to(&mut self, offset: u64) {
        if let Some(hasher) = &mut self.whole {
            hasher.update_zeros(offset - self.position);
        }
        let Some(algorithm) = self.wanted.units else {
            self.position = offset;
            return;
        };
        while self.position < offset {
            let part = self.left_of_unit(offset - self.position) as u64;
            self.position += part;
            if part == FINGERPRINT_UNIT_BYTES {
                let zeros = self.zeros.get_or_insert_with(|| {
                    let mut hasher = algorithm.hasher();
                    hasher.update_zeros(part);
                    hasher.finish()
                });
                self.units.extend_from_slice(zeros.as_bytes());
            } else {
                self.unit.get_or_insert_with(|| algorithm.hasher()).update_zeros(part);
                self.end_unit_if_full();
            }
        }
    }

    /// How many of `bytes` belong to the unit that the position is in.
    fn left_of_unit(&self, bytes: u64) -> usize {
        let left = FINGERPRINT_UNIT_BYTES - self.position % FINGERPRINT_UNIT_BYTES;
        usize::try_from(left.min(bytes)).expect("a unit fits into memory")
    }

    fn end_unit_if_full(&mut self) {
        if self.position.is_multiple_of(FINGERPRINT_UNIT_BYTES)
            && let Some(unit) = self.unit.take()
        {
            self.units.extend_from_slice(unit.finish().as_bytes());
        }
    }
}

impl Fingerprint {
    /// The first byte of the first unit in which two files differ; none if they are the same. Of
    /// two lengths, the bytes that only one has differ.
    pub(super) fn first_difference(&self, other: &Self) -> Option<u64> {
        assert!(self.algorithm.is_some() && self.algorithm == other.algorithm, "comparable");
        let (mine, theirs) = (self.each_unit(), other.each_unit());
        let differing = mine.zip(theirs).position(|(mine, theirs)| mine != theirs);
        match differing {
            Some(unit) => Some(unit as u64 * FINGERPRINT_UNIT_BYTES),
            None if self.size_bytes != other.size_bytes => {
                Some(self.size_bytes.min(other.size_bytes))
            }
            None => None,
        }
    }

    /// What the digests of its units are made by, if it has them.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    fn each_unit(&self) -> impl Iterator<Item = &[u8]> {
        self.units.chunks(self.algorithm.map_or(1, Algorithm::digest_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const WANTED: Wanted =
        Wanted { units: Some(Algorithm::Xxh3_128), whole: Some(Algorithm::Sha256) };

    fn whole(bytes: &[u8]) -> Fingerprint {
        let mut fingerprinter = Fingerprinter::new(WANTED);
        fingerprinter.on_data(0, bytes);
        fingerprinter.finish(bytes.len() as u64)
    }

    fn index(number: u64) -> usize {
        usize::try_from(number).unwrap()
    }

    #[test]
    fn pieces_and_holes_of_any_size_come_to_the_same() {
        let unit = FINGERPRINT_UNIT_BYTES;
        for seed in 0..40 {
            let mut random = Random::new(seed);
            let size = [0, 1, unit - 1, unit, unit + 1, 3 * unit, 3 * unit + 77][index(seed % 7)];
            let mut bytes: Vec<u8> =
                (0..size).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
            let mut pieces = Fingerprinter::new(WANTED);
            let mut at = 0;
            while at < bytes.len() {
                let limit = [64, 4096, 2 * unit][index(random.below(3))];
                let end = (at + 1 + index(random.below(limit))).min(bytes.len());
                if random.once_in(3) {
                    bytes[at..end].fill(0);
                } else {
                    pieces.on_data(at as u64, &bytes[at..end]);
                }
                at = end;
            }
            let pieces = pieces.finish(size);
            assert_eq!(pieces, whole(&bytes), "seed {seed}, {size} bytes");
            assert_eq!(pieces.whole, Some(Algorithm::Sha256.digest(&bytes)), "seed {seed}");
        }
    }

    #[test]
    fn the_first_unit_that_differs_is_named() {
        let unit = index(FINGERPRINT_UNIT_BYTES);
        let bytes = vec![7; 3 * unit + 5];
        let flipped = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            whole(&bytes)
        };
        let unit_bytes = FINGERPRINT_UNIT_BYTES;
        let cases = [
            ("the same", whole(&bytes), None),
            ("the first byte", flipped(0), Some(0)),
            ("the end of the first unit", flipped(unit - 1), Some(0)),
            ("the start of the second", flipped(unit), Some(unit_bytes)),
            ("the last byte", flipped(3 * unit + 4), Some(3 * unit_bytes)),
            ("shorter by whole units", whole(&bytes[..unit]), Some(unit_bytes)),
            ("nothing", whole(&[]), Some(0)),
        ];
        for (name, other, want) in cases {
            assert_eq!(whole(&bytes).first_difference(&other), want, "{name}");
            assert_eq!(other.first_difference(&whole(&bytes)), want, "{name}, the other way");
        }
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn bytes_that_come_twice_are_a_mistake() {
        let mut fingerprinter = Fingerprinter::new(WANTED);
        fingerprinter.on_data(0, b"abc");
        fingerprinter.on_data(2, b"c");
    }
}
