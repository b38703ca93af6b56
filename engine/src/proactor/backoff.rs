//! How long to wait before something is tried again. Decides, and waits for nothing.

use std::time::Duration;

use crate::random::Random;

/// The waits between attempts: each up to twice as long as the one before, then as long as the
/// longest, so many of them.
///
/// Each wait is cut by up to a half, as the seed decides: those who failed together do not come back
/// together (see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ucp_engine::proactor::Backoff;
///
/// let waits: Vec<_> = Backoff::new(Duration::from_millis(100), 4, 7).collect();
/// assert_eq!(waits.len(), 4);
/// assert!(waits[3] >= Duration::from_millis(400) && waits[3] <= Duration::from_millis(800));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
    left: u32,
    random: Random,
}

impl Backoff {
    /// Waits that begin with `first`, for up to `retries` attempts after the first, with none longer
    /// than a minute.
    #[must_use]
    pub fn new(first: Duration, retries: u32, seed: u64) -> Self {
        let longest = Duration::from_secs(60);
        Self { next: first, longest, left: retries, random: Random::new(seed) }
    }

    /// The same, with another bound for a wait.
    #[must_use]
    pub fn with_longest(self, longest: Duration) -> Self {
        Self { longest, ..self }
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let wait = self.next.min(self.longest);
        self.next = wait.saturating_mul(2);
        let half_ns = u64::try_from(wait.as_nanos() / 2).unwrap_or(u64::MAX - 1);
        let cut = Duration::from_nanos(self.random.below(half_ns + 1));
        Some(wait - cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_cut_by_half_at_most() {
        let second = Duration::from_secs(1);
        let cases = [
            ("no retry", second, 0, 60 * second, vec![]),
            ("doubling", second, 4, 60 * second, vec![1, 2, 4, 8]),
            ("up to the longest", second, 5, 3 * second, vec![1, 2, 3, 3, 3]),
            ("longer than the longest", 9 * second, 2, 3 * second, vec![3, 3]),
            ("nothing at all", Duration::ZERO, 2, second, vec![0, 0]),
            ("for ever", Duration::MAX, 1, Duration::MAX, vec![u64::MAX]),
        ];
        for (name, first, retries, longest, want) in cases {
            for seed in 0..50 {
                let got = Backoff::new(first, retries, seed).with_longest(longest);
                let got: Vec<_> = got.collect();
                assert_eq!(got.len(), want.len(), "{name}");
                for (got, want) in got.into_iter().zip(&want) {
                    let want = Duration::from_secs(*want);
                    assert!(got <= want.max(longest.min(want)), "{name}: {got:?} for {want:?}");
                    let is_long_enough = got >= want / 2 || want == Duration::from_secs(u64::MAX);
                    assert!(is_long_enough, "{name}: {got:?} for {want:?}");
                }
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        let waits = |seed| Backoff::new(Duration::from_secs(1), 8, seed).collect::<Vec<_>>();
        assert_eq!(waits(3), waits(3));
        assert_ne!(waits(3), waits(4));
    }
}
