//! Where a batch ends: behind the last newline of what was read.
//!
//! A line that is longer than a block is sent in parts, each as long as the block, the last one to its
//! newline; nothing of it is lost, and each part says that it is one.
//!
//! ```text
//! between lines --last newline--> Lines --> between lines
//!       | no newline in a full block
//!       v
//! in a line --no newline, full--> LinePart --> in a line
//!       | first newline
//!       +--> LineEnd --> between lines
//! ```

use crate::limits::TAIL_BATCH_BYTES_MIN;

/// What a batch is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Whole lines, each with its newline.
    Lines,
    /// A piece of a line that is longer than a batch; more of it follows.
    LinePart,
    /// The rest of such a line, or of one that was sent unterminated, with its newline.
    LineEnd,
    /// What stands behind the last newline of a file that is rotated away and did not grow any more.
    Unterminated,
}

/// What of the bytes that were read becomes a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Cut {
    pub(super) length: usize,
    pub(super) part: Part,
}

impl Part {
    /// Whether what follows goes on with the same line.
    pub(super) const fn ends_in_line(self) -> bool {
        matches!(self, Self::LinePart | Self::Unterminated)
    }
}

/// Cuts a batch off the bytes that were read; none if the rest of a line is to be waited for.
///
/// `is_full`: a block has no room for more. `is_final`: the file does not grow any more.
pub(super) fn cut(bytes: &[u8], is_in_line: bool, is_full: bool, is_final: bool) -> Option<Cut> {
    let newline = match is_in_line {
        true => bytes.iter().position(|byte| *byte == b'\n'),
        false => bytes.iter().rposition(|byte| *byte == b'\n'),
    };
    let whole = |part| (!bytes.is_empty()).then_some(Cut { length: bytes.len(), part });
    match newline {
        Some(at) if is_in_line => Some(Cut { length: at + 1, part: Part::LineEnd }),
        Some(at) => Some(Cut { length: at + 1, part: Part::Lines }),
        None if is_full => whole(Part::LinePart),
        None if is_final => whole(Part::Unterminated),
        None => None,
    }
}

const _: () = assert!(TAIL_BATCH_BYTES_MIN > 0, "an empty block is full of nothing");

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, bytes, in a line, full, final, and the cut.
    type Case = (&'static str, &'static [u8], bool, bool, bool, Option<(usize, Part)>);

    #[test]
    fn a_batch_ends_at_a_newline_or_says_that_it_does_not() {
        use Part::{LineEnd, LinePart, Lines, Unterminated};
        let cases: [Case; 14] = [
            ("nothing", b"", false, false, false, None),
            ("nothing, ever", b"", false, false, true, None),
            ("one line", b"a\n", false, false, false, Some((2, Lines))),
            ("an empty line", b"\n", false, false, false, Some((1, Lines))),
            ("lines and a beginning", b"a\nb\nc", false, false, false, Some((4, Lines))),
            ("the same in a full block", b"a\nb\nc", false, true, false, Some((4, Lines))),
            ("the same at the end", b"a\nb\nc", false, false, true, Some((4, Lines))),
            ("a beginning", b"c", false, false, false, None),
            ("a beginning that fills the block", b"ccc", false, true, false, Some((3, LinePart))),
            ("a beginning at the end", b"c", false, false, true, Some((1, Unterminated))),
            ("more of a long line", b"ccc", true, true, false, Some((3, LinePart))),
            ("its end, and others", b"c\nd\ne\n", true, true, false, Some((2, LineEnd))),
            ("not yet its end", b"c", true, false, false, None),
            ("its end without a newline", b"c", true, false, true, Some((1, Unterminated))),
        ];
        for (name, bytes, is_in_line, is_full, is_final, want) in cases {
            let want = want.map(|(length, part)| Cut { length, part });
            assert_eq!(cut(bytes, is_in_line, is_full, is_final), want, "{name}");
        }
    }

    #[test]
    fn pieces_put_together_are_the_file_however_it_is_read() {
        let mut random = crate::random::Random::new(3);
        for seed in 0..500 {
            let length = random.below(300);
            let file: Vec<u8> =
                (0..length).map(|_| if random.once_in(9) { b'\n' } else { b'x' }).collect();
            let block = usize::try_from(1 + random.below(12)).unwrap();
            let (mut at, mut is_in_line, mut there) = (0, false, 0);
            while at < file.len() {
                there = (there + usize::try_from(random.below(20)).unwrap()).min(file.len());
                let end = (at + block).min(there.max(at));
                let is_final = there == file.len();
                let read = &file[at..end];
                let Some(cut) = cut(read, is_in_line, read.len() == block, is_final) else {
                    assert!(!is_final, "seed {seed}: stuck at {at}");
                    continue;
                };
                let piece = &read[..cut.length];
                let ends_line = piece.last() == Some(&b'\n');
                assert_eq!(ends_line, !cut.part.ends_in_line(), "seed {seed} at {at}");
                let starts_line = at == 0 || file[at - 1] == b'\n';
                assert_eq!(starts_line, !is_in_line, "seed {seed} at {at}");
                is_in_line = cut.part.ends_in_line();
                at += cut.length;
            }
        }
    }
}
