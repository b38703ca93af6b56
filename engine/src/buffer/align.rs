//! Rounding of offsets and lengths to what direct I/O can move.
//!
//! Direct I/O moves whole, aligned pieces only (`open(2)`, O_DIRECT; the alignment of one file is
//! `stx_dio_offset_align` of `statx(2)`).

/// The largest multiple of `alignment` that is at most `offset`.
///
/// # Panics
///
/// If `alignment` is not a power of two.
#[must_use]
pub const fn down(offset: u64, alignment: u64) -> u64 {
    assert!(alignment.is_power_of_two());
    offset & !(alignment - 1)
}

/// The smallest multiple of `alignment` that is at least `offset`; none above `u64::MAX`.
///
/// # Panics
///
/// If `alignment` is not a power of two.
#[must_use]
pub const fn up(offset: u64, alignment: u64) -> Option<u64> {
    assert!(alignment.is_power_of_two());
    offset.checked_next_multiple_of(alignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_round_to_multiples() {
        let cases = [
            ("zero stays", 0, 512, 0, Some(0)),
            ("aligned stays", 1024, 512, 1024, Some(1024)),
            ("inside rounds both ways", 513, 512, 512, Some(1024)),
            ("alignment of one changes nothing", 7, 1, 7, Some(7)),
            ("the end of the numbers has no next", u64::MAX, 512, u64::MAX - 511, None),
        ];
        for (name, offset, alignment, want_down, want_up) in cases {
            assert_eq!(down(offset, alignment), want_down, "{name}");
            assert_eq!(up(offset, alignment), want_up, "{name}");
        }
    }
}
