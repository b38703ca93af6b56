//! Quantities whose unit is in their type.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// One KiB, in bytes.
pub const KIB: u64 = 1 << 10;
/// One MiB, in bytes.
pub const MIB: u64 = 1 << 20;
/// One GiB, in bytes.
pub const GIB: u64 = 1 << 30;

/// A point on a processor's monotonic clock, in nanoseconds.
///
/// Time belongs to the processor: in a simulation it is virtual. Two moments are comparable if they
/// come from one simulated world, or if neither comes from a simulation.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Moment(pub u64);

impl Moment {
    /// The time from `earlier` to `self`, or zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A point in calendar time: seconds since 1970 in UTC, which may be negative, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WallTime {
    /// Whole seconds since 1970-01-01 00:00:00 UTC, rounded down.
    pub seconds: i64,
    /// Nanoseconds on top, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Shows a number of bytes for people: `17 B`, `1.5 KiB`, `2.0 GiB`.
#[derive(Clone, Copy, Debug)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut whole = self.0;
        let mut unit = "B";
        let mut tenths = 0;
        for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
            if whole < 1024 {
                break;
            }
            tenths = whole % 1024 * 10 / 1024;
            whole /= 1024;
            unit = next;
        }
        if unit == "B" { write!(f, "{whole} B") } else { write!(f, "{whole}.{tenths} {unit}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_with_one_digit_after_the_point() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (2 * GIB, "2.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, want) in cases {
            assert_eq!(Bytes(bytes).to_string(), want, "{bytes}");
        }
    }

    #[test]
    fn moments_saturate_instead_of_wrapping() {
        assert_eq!(Moment(5).since(Moment(9)), Duration::ZERO);
        assert_eq!(Moment(u64::MAX) + Duration::from_secs(1), Moment(u64::MAX));
    }
}
