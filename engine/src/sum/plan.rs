//! Which piece of a file is read next: as a state machine that does no I/O.
//!
//! Pieces are given out in the order of the file, each to whoever asks; what comes of them may come
//! back in any order. All are of one length but the last.

use std::ops::Range;

/// A file's bytes that are given out piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    start: u64,
    next: u64,
    end: u64,
    piece_bytes: u32,
}

/// A piece of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    /// Where it stands in the file.
    pub(crate) offset: u64,
    /// Where it stands in what is read of the file.
    pub(crate) position: u64,
    pub(crate) length: u32,
}

impl Plan {
    pub(crate) fn new(range: Range<u64>, piece_bytes: u32) -> Self {
        assert!(piece_bytes > 0 && range.start <= range.end);
        Self { start: range.start, next: range.start, end: range.end, piece_bytes }
    }

    /// How many pieces there are in all.
    pub(crate) fn pieces(&self) -> u64 {
        (self.end - self.start).div_ceil(u64::from(self.piece_bytes))
    }

    /// Gives out the next piece; none when all were, or it was stopped.
    pub(crate) fn claim(&mut self) -> Option<Piece> {
        let left = u32::try_from(self.end - self.next).unwrap_or(u32::MAX);
        let length = left.min(self.piece_bytes);
        let piece = Piece { offset: self.next, position: self.next - self.start, length };
        self.next += u64::from(length);
        (length > 0).then_some(piece)
    }

    /// Gives out nothing more: something failed, or is known already.
    pub(crate) fn stop(&mut self) {
        self.end = self.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range_once_and_in_order() {
        for (range, piece_bytes) in
            [(0..0, 4), (0..1, 4), (0..8, 4), (3..17, 4), (5..6, 1), (7..7, 1)]
        {
            let mut plan = Plan::new(range.clone(), piece_bytes);
            let (mut at, mut count) = (range.start, 0);
            while let Some(piece) = plan.claim() {
                assert_eq!((piece.offset, piece.position), (at, at - range.start), "{range:?}");
                assert!(
                    piece.length == piece_bytes
                        || piece.offset + u64::from(piece.length) == range.end
                );
                at += u64::from(piece.length);
                count += 1;
            }
            assert_eq!((at, count), (range.end, plan.pieces()), "{range:?}");
        }
    }

    #[test]
    fn a_plan_that_was_stopped_gives_out_nothing() {
        let mut plan = Plan::new(0..100, 10);
        plan.claim();
        plan.stop();
        assert_eq!(plan.claim(), None);
    }
}
