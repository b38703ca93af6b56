//! How fast a copy may be (`--limit-rate`): a bucket of time that all who move bytes share.
//!
//! Whoever wants to move bytes books the time that they take at the wanted rate, and waits until
//! that time begins. The time is the processors': here is no clock.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::limits::{THROTTLE_CHUNK_BYTES_MAX, THROTTLE_CHUNK_BYTES_MIN, THROTTLE_SLACK};
use crate::units::Moment;

/// A rate that all shards and blocks of a copy keep together.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: NonZero<u64>,
    /// When all bytes that were booked will have moved.
    booked_until: Mutex<Moment>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: NonZero<u64>) -> Self {
        Self { bytes_per_second, booked_until: Mutex::default() }
    }

    /// Books the time for some bytes, and returns when it begins.
    pub(crate) fn book(&self, bytes: u64, now: Moment) -> Moment {
        let mut booked_until = self.booked_until.lock().unwrap_or_else(PoisonError::into_inner);
        // Time that nobody used is lost, but for a little: waits end late, and reads take time.
        let slack = u64::try_from(THROTTLE_SLACK.as_nanos()).unwrap_or(u64::MAX);
        let begins = (*booked_until).max(Moment(now.0.saturating_sub(slack)));
        *booked_until = begins + self.duration_of(bytes);
        begins
    }

    /// How many bytes may be moved in one go: a tenth of a second's, so that progress is smooth.
    pub(crate) fn chunk_bytes(&self) -> u32 {
        let chunk = (self.bytes_per_second.get() / 10)
            .clamp(THROTTLE_CHUNK_BYTES_MIN, THROTTLE_CHUNK_BYTES_MAX);
        u32::try_from(chunk - chunk % THROTTLE_CHUNK_BYTES_MIN).unwrap_or(u32::MAX)
    }

    fn duration_of(&self, bytes: u64) -> Duration {
        let nanoseconds =
            u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: u64 = 1_000_000;

    fn throttle(bytes_per_second: u64) -> Throttle {
        Throttle::new(NonZero::new(bytes_per_second).unwrap())
    }

    #[test]
    fn what_is_booked_at_once_begins_one_after_the_other() {
        let throttle = throttle(1000);
        let now = Moment(5_000 * MILLISECOND);
        let slack = u64::try_from(THROTTLE_SLACK.as_nanos()).unwrap();
        let first = throttle.book(100, now);
        assert_eq!(first, Moment(now.0 - slack), "what was not used is lost but for the slack");
        for (bytes, begins_ms) in [(0, 100), (500, 100), (1, 600), (10, 601), (0, 611)] {
            let want = Moment(first.0 + begins_ms * MILLISECOND);
            assert_eq!(throttle.book(bytes, now), want, "{bytes} bytes");
        }
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept_to_the_nanosecond() {
        let throttle = throttle(10_000_000);
        let mut now = Moment(0);
        for _ in 0..1000 {
            now = now.max(throttle.book(12_345, now));
        }
        assert_eq!(now, Moment(999 * 1_234_500));
    }

    #[test]
    fn numbers_of_any_size_end_somewhere() {
        assert_eq!(throttle(1).book(u64::MAX, Moment(7)), Moment(0));
        let throttle = throttle(1);
        throttle.book(u64::MAX, Moment(0));
        assert_eq!(throttle.book(u64::MAX, Moment(0)), Moment(u64::MAX));
    }

    #[test]
    fn pieces_are_small_enough_to_see_progress() {
        let cases = [(1, 4096), (100_000, 8192), (10 << 20, 1 << 20), (u64::MAX, 1 << 30)];
        for (rate, want) in cases {
            let chunk = throttle(rate).chunk_bytes();
            assert!(chunk <= want && chunk.is_multiple_of(4096), "{chunk} at {rate}");
            assert!(chunk > 0);
        }
    }
}
