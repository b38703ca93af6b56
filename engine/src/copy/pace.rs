//! Waiting, where the user limits how fast a copy may be.

use super::worker::Worker;
use crate::error::Error;
use crate::limits::THROTTLE_WAIT_MAX;

impl Worker<'_> {
    /// Waits until so many bytes may be moved. Stops waiting when the copy is cancelled.
    pub(super) async fn pace(&self, bytes: u32) -> Result<(), Error> {
        let Some(throttle) = &self.job.throttle else { return Ok(()) };
        let begins = throttle.book(u64::from(bytes), self.io.tasks.now());
        loop {
            self.io.check()?;
            let left = begins.since(self.io.tasks.now());
            if left.is_zero() {
                return Ok(());
            }
            self.io.tasks.sleep(left.min(THROTTLE_WAIT_MAX)).await;
        }
    }

    /// How many bytes one block of a large file holds: some pieces of `alignment`.
    pub(super) fn paced_block_bytes(&self, alignment: u32) -> u32 {
        let block_bytes = self.job.options.block_bytes;
        self.paced_bytes(block_bytes).next_multiple_of(alignment).min(block_bytes)
    }

    /// How many bytes are moved in one go, of those that could be.
    pub(super) fn paced_bytes(&self, bytes: u32) -> u32 {
        self.job.throttle.as_ref().map_or(bytes, |throttle| bytes.min(throttle.chunk_bytes()))
    }
}
