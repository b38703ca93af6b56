//! Reads a block of a file, and makes a batch of it.

use super::Tail;
use super::batch::Batch;
use super::io::{fill, recall};
use super::source::SourceId;
use crate::error::Error;

impl Tail {
    /// Reads for the source whose turn it is, then the next; none if nobody has anything to send,
    /// or there is no block, or something is to be told or looked at first.
    pub(super) async fn read_next(&mut self) -> Option<Batch> {
        self.lacks_block = false;
        while let Some(id) = self.sources.next_turn() {
            let read = self.read(id).await;
            if let Err(error) = read {
                self.sources.on_failed(id);
                self.complain(error);
                return None;
            }
            self.sources.end_turn(id);
            let is_over = self.lacks_block || self.sources.is_look_urgent();
            match read {
                Ok(Some(batch)) => return Some(batch),
                _ if is_over => return None,
                _ => {}
            }
        }
        None
    }

    /// Reads for one source. None: there is nothing to send, or its file was truncated.
    async fn read(&mut self, id: SourceId) -> Result<Option<Batch>, Error> {
        let Some(lease) = self.pool.lease() else {
            self.lacks_block = true;
            return Ok(None);
        };
        let (file, path) = (self.files[&id].clone(), self.sources.get(id).path.clone());
        let marker = self.sources.get(id).position();
        let repeat_bytes = self.sources.get(id).repeat_bytes();
        let start = marker.offset_bytes;
        let capacity_bytes = lease.len() as u64;
        let range = start..start + repeat_bytes.unwrap_or(capacity_bytes);
        let has_line = |bytes: &[u8]| repeat_bytes.is_none() && bytes.contains(&b'\n');
        let (result, buffer) = fill(&self.tasks, &file, lease, range, has_line).await;
        let length =
            result.map_err(|errno| Error::from_errno("read", errno).on(&path).at(start))?;
        // Only now: what was read before is of the file that the marker is of.
        let Some(trail) = recall(&self.tasks, &file, &marker, &path).await? else {
            self.sources.on_truncated(id);
            self.files.remove(&id);
            return Ok(None);
        };
        if self.sources.get(id).trail().is_none() {
            self.sources.set_trail(id, trail);
        }
        let is_full = length as u64 == capacity_bytes;
        let planned = self.sources.on_read(id, &buffer.as_slice()[..length], is_full);
        Ok(planned.map(|planned| Batch::new(id, planned, buffer)))
    }
}
