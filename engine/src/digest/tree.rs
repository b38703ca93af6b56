//! BLAKE3 of a file whose pieces are hashed apart, on any core, and put together in order.
//!
//! BLAKE3 is a tree: a piece whose length is a power of two, at a multiple of that length, is a
//! subtree of it, and comes to 32 bytes whatever stands beside it. Only these are merged in order.
//!
//! Source: "BLAKE3: one function, fast everywhere", section 2.1; the crate's `hazmat` module.

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

use super::{Algorithm, Digest};

/// What a piece comes to.
#[derive(Clone, Copy, Debug)]
pub struct Subtree(ChainingValue);

/// Puts subtrees together: all of one length but the last, which may be shorter.
#[derive(Debug, Default)]
pub struct Tree {
    /// Complete subtrees, the largest first; each holds as many pieces as a bit of `count` says.
    stack: Vec<ChainingValue>,
    /// Pieces in the stack.
    count: u64,
    /// The newest piece. It is merged once another follows: the root is merged in another way.
    newest: Option<ChainingValue>,
}

impl Subtree {
    /// The subtree of the bytes at an offset of the input.
    ///
    /// # Panics
    ///
    /// If there are no bytes, or the offset is not a multiple of their length rounded up to a power
    /// of two.
    #[must_use]
    pub fn of(offset_bytes: u64, bytes: &[u8]) -> Self {
        assert!(!bytes.is_empty(), "a subtree has bytes");
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset_bytes);
        hasher.update(bytes);
        Self(hasher.finalize_non_root())
    }
}

impl Tree {
    /// Takes the next subtree.
    pub fn push(&mut self, subtree: Subtree) {
        let Some(mut complete) = self.newest.replace(subtree.0) else { return };
        self.count += 1;
        // As many merges as bits carry: equal subtrees become one of twice the length.
        for _ in 0..self.count.trailing_zeros() {
            let left = self.stack.pop().expect("a bit of the count is an entry of the stack");
            complete = merge_subtrees_non_root(&left, &complete, Mode::Hash);
        }
        self.stack.push(complete);
    }

    /// The digest of all that was taken.
    ///
    /// # Panics
    ///
    /// If fewer than two subtrees were: one alone is no subtree, it is the whole.
    #[must_use]
    pub fn finish(mut self) -> Digest {
        let mut right = self.newest.take().expect("a tree has subtrees");
        let root = self.stack.first().copied().expect("a tree has two subtrees");
        for left in self.stack.drain(1..).rev() {
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        let hash = merge_subtrees_root(&root, &right, Mode::Hash);
        Digest::new(Algorithm::Blake3, hash.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_number_and_a_last_one_of_any_length_come_to_the_whole() {
        let bytes: Vec<u8> = (0..70_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        for piece in [1024, 2048, 4096, 16_384] {
            for pieces in 2..=17 {
                for last in [1, 63, 64, 65, piece - 1, piece] {
                    let length = (pieces - 1) * piece + last;
                    let Some(whole) = bytes.get(..length) else { continue };
                    let mut tree = Tree::default();
                    for (number, part) in whole.chunks(piece).enumerate() {
                        tree.push(Subtree::of((number * piece) as u64, part));
                    }
                    let want = Algorithm::Blake3.digest(whole);
                    assert_eq!(tree.finish(), want, "{pieces} pieces of {piece}, {last} last");
                }
            }
        }
    }
}
