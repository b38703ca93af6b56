//! What becomes of the holes of a file: decided from what is known about it.
//!
//! | asked for | source looks dense | it has holes, and its map is trusted | its map is not trusted |
//! |---|---|---|---|
//! | auto | all is written | only its data is read | all is read |
//! | always | all is read | only its data is read | all is read |
//! | never | all is written | all is written | all is written |
//!
//! Of what is read, blocks of zeros become holes. So does GNU cp 9.1, but for the last column: cp
//! trusts every map.

use super::{HoleSearch, Holes};

/// How the holes of one file are found, and so which are made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct HolePlan {
    /// Only what the source's map says is data is read.
    pub(super) follows_map: bool,
    /// What was read and is only zeros is not written.
    pub(super) finds_zeros: bool,
    /// Where the target gets no hole, zeros are put there: it is a device, with old bytes.
    pub(super) writes_zeros: bool,
}

/// A file whose map says that all of it is a hole is read anyway up to this size: a file system
/// that says so of every file was met (Docker's virtiofs, August 2026).
pub(super) const ALL_HOLE_READ_BYTES_MAX: u64 = 64 << 20;

impl HolePlan {
    /// Everything is written.
    pub(super) const DENSE: Self =
        Self { follows_map: false, finds_zeros: false, writes_zeros: false };

    /// What is done about a file. `is_trusted` is asked for only where it matters.
    pub(super) fn choose(holes: Holes, is_sparse: bool, is_trusted: bool) -> Self {
        let follows_map = is_sparse && is_trusted;
        match holes {
            Holes::Never => Self::DENSE,
            Holes::Always => Self { follows_map, finds_zeros: true, writes_zeros: false },
            Holes::Auto => Self { follows_map, finds_zeros: is_sparse, writes_zeros: false },
        }
    }

    /// The same, as it is told.
    pub(super) fn search(self) -> HoleSearch {
        match (self.follows_map, self.finds_zeros) {
            (false, false) => HoleSearch::None,
            (true, false) => HoleSearch::Map,
            (false, true) => HoleSearch::Zeros,
            (true, true) => HoleSearch::MapAndZeros,
        }
    }

    /// Whether the target may get holes.
    pub(super) fn makes_holes(self) -> bool {
        self.follows_map || self.finds_zeros
    }
}

/// Whether a file takes less room than its length, as cp judges it.
pub(super) fn is_sparse(size_bytes: u64, blocks_512: u64) -> bool {
    blocks_512 < size_bytes / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found_as_asked_for_and_as_far_as_the_map_is_trusted() {
        use Holes::{Always, Auto, Never};

        let cases = [
            (Auto, false, true, false, false),
            (Auto, true, true, true, true),
            (Auto, true, false, false, true),
            (Always, false, true, false, true),
            (Always, true, true, true, true),
            (Always, true, false, false, true),
            (Never, false, true, false, false),
            (Never, true, true, false, false),
            (Never, true, false, false, false),
        ];
        for (holes, is_sparse, is_trusted, follows_map, finds_zeros) in cases {
            let plan = HolePlan::choose(holes, is_sparse, is_trusted);
            let want = HolePlan { follows_map, finds_zeros, writes_zeros: false };
            assert_eq!(plan, want, "{holes:?}, sparse {is_sparse}, trusted {is_trusted}");
            assert_eq!(plan.makes_holes(), plan != HolePlan::DENSE);
        }
    }

    #[test]
    fn only_a_file_with_less_room_than_length_is_sparse() {
        let cases = [
            ("empty", 0, 0, false),
            ("too small to tell", 511, 0, false),
            ("a hole only", 512, 0, true),
            ("a block for a byte", 1, 8, false),
            ("its last block is whole", 4097, 16, false),
            ("as much as needed", 8192, 16, false),
            ("one block is missing", 8192, 8, true),
        ];
        for (name, size, blocks, want) in cases {
            assert_eq!(is_sparse(size, blocks), want, "{name}");
        }
    }
}
