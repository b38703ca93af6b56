//! Waiting, where the user limits how fast bytes may be moved.

use super::io::Io;
use super::throttle::Throttle;
use super::worker::Worker;
use crate::error::Error;
use crate::limits::THROTTLE_WAIT_MAX;

/// Waits until so many bytes may be moved. Stops waiting when the work is cancelled.
pub(crate) async fn pace(throttle: Option<&Throttle>, bytes: u32, io: &Io) -> Result<(), Error> {
    let Some(throttle) = throttle else { return Ok(()) };
    let begins = throttle.book(u64::from(bytes), io.tasks.now());
    loop {
        io.check()?;
        let left = begins.since(io.tasks.now());
        if left.is_zero() {
            return Ok(());
        }
        io.tasks.sleep(left.min(THROTTLE_WAIT_MAX)).await;
    }
}

impl Worker<'_> {
    /// Waits until so many bytes may be moved. Stops waiting when the copy is cancelled.
    pub(super) async fn pace(&self, bytes: u32) -> Result<(), Error> {
        pace(self.job.throttle.as_deref(), bytes, &self.io).await
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
