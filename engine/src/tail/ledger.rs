//! The receiver's side: what is new in a batch, and what was there before.

use std::collections::BTreeMap;

use super::SourceId;

/// What a receiver has of each source. What is sent again after a kill of either side is told from
/// what is new, so that at least once becomes exactly once.
///
/// To be kept with what was received: written and synced together, or told anew from it.
///
/// # Examples
///
/// ```
/// use ucp_engine::tail::{Ledger, SourceId, Verdict};
///
/// let mut ledger = Ledger::default();
/// let source = SourceId(7);
/// assert_eq!(ledger.judge(source, 0, 100), Verdict::New);
/// ledger.record(source, 100);
/// assert_eq!(ledger.judge(source, 0, 100), Verdict::Duplicate);
/// // The shipper was killed, and what it reads again is in one batch with what came meanwhile.
/// assert_eq!(ledger.judge(source, 0, 150), Verdict::Overlap { known_bytes: 100 });
/// assert_eq!(ledger.judge(source, 120, 30), Verdict::Gap { missing_bytes: 20 });
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<SourceId, u64>);

/// What a batch is to a receiver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// All of it is new.
    New,
    /// All of it is there.
    Duplicate,
    /// So many bytes at its start are there: whole earlier batches, so whole lines.
    Overlap {
        /// How many.
        known_bytes: u64,
    },
    /// Something before it never came.
    Gap {
        /// How many bytes.
        missing_bytes: u64,
    },
}

impl Ledger {
    /// What a batch of `length_bytes` at an offset of a source is. A source that is not known may
    /// begin anywhere.
    #[must_use]
    pub fn judge(&self, source: SourceId, offset_bytes: u64, length_bytes: u64) -> Verdict {
        let Some(known_end) = self.0.get(&source) else { return Verdict::New };
        if offset_bytes > *known_end {
            return Verdict::Gap { missing_bytes: offset_bytes - known_end };
        }
        match known_end - offset_bytes {
            0 => Verdict::New,
            known if known >= length_bytes => Verdict::Duplicate,
            known_bytes => Verdict::Overlap { known_bytes },
        }
    }

    /// Notes that a source is there up to an offset.
    pub fn record(&mut self, source: SourceId, end_bytes: u64) {
        let known = self.0.entry(source).or_default();
        *known = end_bytes.max(*known);
    }

    /// What is there, source by source: up to which offset.
    pub fn ends(&self) -> impl Iterator<Item = (SourceId, u64)> {
        self.0.iter().map(|(source, end)| (*source, *end))
    }
}
