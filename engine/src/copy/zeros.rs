//! Leaving out what is only zeros: the target has a hole there, which reads the same.

use std::cell::Cell;

use super::pipeline::{Pipeline, PipelineError, Step};

/// Bytes that are looked at together: more than a line of cache, and short enough to stop early.
const PIECE_BYTES: usize = 256;

/// A run of bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Run {
    Zeros(u32),
    Data(u32),
}

/// What is left out of one target.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Zeros count in whole units of this, a multiple of what writes are aligned to.
    pub(super) unit_bytes: u32,
    /// How many bytes it was so far.
    pub(super) bytes: Cell<u64>,
}

/// Leaves out all writes of `step` that begin with zeros: each counts as written. What is left to
/// do ends where the next zeros begin. Also returns how many bytes were left out.
///
/// `buffer` is what the block has read, and `left_out_of` what is left out of a target. Zeros count
/// in whole units, and at the end of the piece.
pub(super) fn leave_out<'a>(
    pipeline: &mut Pipeline,
    mut step: Step,
    buffer: &[u8],
    left_out_of: impl Fn(u32) -> &'a LeftOut,
) -> Result<(Step, u64), PipelineError> {
    let mut left_out = 0;
    while let Step::Write { mut transfer, zero_from, target } = step {
        let end = zero_from.min(transfer.buffer_start + transfer.length);
        let bytes = &buffer[transfer.buffer_start as usize..end as usize];
        let of_target = left_out_of(target);
        match first_run(bytes, of_target.unit_bytes) {
            Run::Zeros(bytes) => {
                left_out += u64::from(bytes);
                of_target.bytes.set(of_target.bytes.get() + u64::from(bytes));
                step = pipeline.on_write_complete(transfer.block, bytes)?;
            }
            Run::Data(data) => {
                if (data as usize) < bytes.len() {
                    transfer.length = data;
                }
                return Ok((Step::Write { transfer, zero_from, target }, left_out));
            }
        }
    }
    Ok((step, left_out))
}

/// How far the first units are alike.
fn first_run(bytes: &[u8], unit_bytes: u32) -> Run {
    let mut units = bytes.chunks(unit_bytes as usize);
    let begins_with_zeros = units.next().is_none_or(is_zero);
    let mut length = bytes.len().min(unit_bytes as usize);
    for unit in units {
        if is_zero(unit) != begins_with_zeros {
            break;
        }
        length += unit.len();
    }
    let length = u32::try_from(length).expect("a buffer has a length of 32 bits");
    if begins_with_zeros { Run::Zeros(length) } else { Run::Data(length) }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(PIECE_BYTES).all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::super::PipelineMode;
    use super::super::pipeline::Geometry;
    use super::*;
    use crate::random::Random;

    #[test]
    fn runs_are_of_whole_units_and_of_what_is_left() {
        let cases: [(&str, &[u8], Run); 8] = [
            ("zeros", &[0; 8], Run::Zeros(8)),
            ("data", &[1; 8], Run::Data(8)),
            ("zeros, then data", &[0, 0, 0, 0, 0, 0, 0, 1], Run::Zeros(4)),
            ("data, then zeros", &[0, 0, 0, 1, 0, 0, 0, 0], Run::Data(4)),
            ("less than a unit of zeros", &[1, 0, 0, 0, 0, 0, 0, 1], Run::Data(8)),
            ("a short end of zeros", &[1, 1, 1, 1, 0, 0], Run::Data(4)),
            ("a short end of data", &[0, 0, 0, 0, 0, 1], Run::Zeros(4)),
            ("only a short end", &[0, 0], Run::Zeros(2)),
        ];
        for (name, bytes, want) in cases {
            assert_eq!(first_run(bytes, 4), want, "{name}");
        }
    }

    #[test]
    fn what_is_left_out_and_what_is_written_make_the_file() {
        for seed in 0..500 {
            let mut random = Random::new(seed);
            let size = usize::try_from(1 + random.below(40_000)).unwrap();
            let mut source = vec![0; size];
            for unit in source.chunks_mut(512) {
                unit.fill(u8::from(random.once_in(2)));
            }
            let alignment = [1, 512][usize::try_from(random.below(2)).unwrap()];
            let mut pipeline = Pipeline::new(Geometry {
                size_bytes: size as u64,
                block_bytes: 4096,
                depth: 1,
                read_alignment: 1,
                write_alignment: alignment,
                mode: PipelineMode::Unlinked,
            });
            let mut target = vec![0; size.next_multiple_of(512)];
            let mut buffer = vec![0xdb; 4096];
            let left_out = LeftOut { unit_bytes: 512, ..LeftOut::default() };
            let mut step = pipeline.start(0);
            loop {
                step = match step {
                    Step::Read(transfer) => {
                        let from = usize::try_from(transfer.file_offset).unwrap();
                        let start = transfer.buffer_start as usize;
                        let part = &source[from..from + transfer.length as usize];
                        buffer[start..start + part.len()].copy_from_slice(part);
                        pipeline.on_read_complete(0, transfer.length).unwrap()
                    }
                    Step::Write { transfer, zero_from, .. } => {
                        buffer[zero_from as usize..].fill(0);
                        let from = usize::try_from(transfer.file_offset).unwrap();
                        let start = transfer.buffer_start as usize;
                        let part = &buffer[start..start + transfer.length as usize];
                        assert!(part[0] != 0 && from.is_multiple_of(512), "seed {seed}");
                        assert!(transfer.length.is_multiple_of(alignment), "seed {seed}");
                        target[from..from + part.len()].copy_from_slice(part);
                        pipeline.on_write_complete(0, transfer.length).unwrap()
                    }
                    Step::Rest => break,
                    Step::ReadThenWrite(_) => unreachable!("nothing is linked"),
                };
                (step, _) = leave_out(&mut pipeline, step, &buffer, |_| &left_out).unwrap();
            }
            assert!(pipeline.is_finished() && target[..size] == source, "seed {seed}");
            let zeros = source.chunks(512).filter(|unit| is_zero(unit)).map(<[u8]>::len);
            assert_eq!(left_out.bytes.get(), zeros.sum::<usize>() as u64, "seed {seed}");
        }
    }
}
