//! The bytes of two files, read side by side up to the first that differs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffer::Buffer;
use crate::error::Error;
use crate::operation::{File, FileStatus, Handle};
use crate::sum::hands::{Delivered, Hands, Receiver};
use crate::sum::is_refusal;
use crate::sum::plan::{Piece, Plan};
use crate::sum::shelf::Shelf;
use crate::sum::way::Way;
use crate::sum::worker::Worker;

/// The first byte that differs, as far as it is known.
struct FirstDifference(AtomicU64);

impl<'a> Receiver<'a> for FirstDifference {
    fn begin(&self, _piece: Piece) {}

    fn deliver(&self, piece: Piece, bytes: Delivered<'a>) -> bool {
        let (a, b) = (bytes.of(0), bytes.of(1));
        if a == b {
            return true;
        }
        let at = a.iter().zip(b).position(|(a, b)| a != b).unwrap_or(0) as u64;
        self.0.fetch_min(piece.offset + at, Ordering::Relaxed);
        // Pieces before this one are on their way, or were the same.
        false
    }
}

impl FirstDifference {
    fn into_offset(self) -> Option<u64> {
        let offset = self.0.into_inner();
        (offset != u64::MAX).then_some(offset)
    }
}

/// An open file, and what it was when it was opened.
type Opened = (File, FileStatus);

/// A failure, and on which of the two files.
pub(super) type Blamed = (usize, Error);

/// Where the bytes of two files differ first; where the shorter one ends, if that is all. None if they
/// are the same.
pub(super) async fn first_difference(
    worker: &Worker<'_>,
    files: &[Opened; 2],
) -> Result<Option<u64>, Blamed> {
    let [(_, a), (_, b)] = files;
    if a.is_same_file(b) {
        return Ok(None);
    }
    let common = a.size_bytes.min(b.size_bytes);
    let way = common_way(worker, files).await;
    let found = match compare_by(worker, files, common, way).await {
        Err((_, error)) if is_refusal(&error, way) => {
            let way = leave_direct(worker, files).await;
            compare_by(worker, files, common, way).await
        }
        found => found,
    };
    if let Way::Cached { drops: true, .. } = way {
        for (file, _) in files {
            worker.drop_pages(file).await;
        }
    }
    let found = found?;
    for (number, (file, status)) in files.iter().enumerate() {
        worker.check_unchanged(file, status).await.map_err(|error| (number, error))?;
    }
    Ok(found.or((a.size_bytes != b.size_bytes).then_some(common)))
}

/// One way for both files: past the page cache only if both are read so.
async fn common_way(worker: &Worker<'_>, [a, b]: &[Opened; 2]) -> Way {
    let one = worker.choose_way(&a.0, &a.1, 0).await;
    let other = worker.choose_way(&b.0, &b.1, 0).await;
    match (one, other) {
        (Way::Direct(one), Way::Direct(other)) => Way::Direct(one.max(other)),
        (Way::Direct(_), cached) => {
            worker.set_direct(&a.0, false).await;
            cached
        }
        (cached, Way::Direct(_)) => {
            worker.set_direct(&b.0, false).await;
            cached
        }
        (
            Way::Cached { is_resident: one, drops: drop_one },
            Way::Cached { is_resident: other, drops: drop_other },
        ) => Way::Cached { is_resident: one && other, drops: drop_one && drop_other },
    }
}

async fn leave_direct(worker: &Worker<'_>, files: &[Opened; 2]) -> Way {
    for (file, _) in files {
        worker.set_direct(file, false).await;
    }
    Way::Cached { is_resident: false, drops: false }
}

async fn compare_by(
    worker: &Worker<'_>,
    files: &[Opened; 2],
    common: u64,
    way: Way,
) -> Result<Option<u64>, Blamed> {
    if common >= worker.job.options.large_bytes_min {
        let Some(mut pool) = worker.job.pools.take().await else { unreachable!("it stays open") };
        let buffers = worker.buffers(way, 2, &mut pool).map_err(|error| (0, error))?;
        let plan = Plan::new(0..common, worker.piece_bytes(way));
        let first = FirstDifference(AtomicU64::new(u64::MAX));
        hands(worker, files, plan, way, (&buffers, &first)).run(worker, way).await?;
        return Ok(first.into_offset());
    }
    let buffers = Shelf::new(vec![vec![worker.take_buffer().0, worker.take_buffer().0]]);
    let plan = Plan::new(0..common, worker.small_piece_bytes(way));
    let first = FirstDifference(AtomicU64::new(u64::MAX));
    let read = hands(worker, files, plan, way, (&buffers, &first)).run_alone(worker).await;
    buffers.into_items().into_iter().flatten().for_each(|buffer| worker.give_back(buffer));
    read?;
    Ok(first.into_offset())
}

fn hands<'h, 'a>(
    worker: &'h Worker<'h>,
    files: &[Opened; 2],
    plan: Plan,
    way: Way,
    (buffers, first): (&'a Shelf<Vec<Buffer>>, &'h FirstDifference),
) -> Hands<'h, 'a> {
    Hands {
        job: worker.job,
        handles: files.iter().map(|(file, _)| Handle::from(file)).collect(),
        alignment: way.alignment(),
        plan: Mutex::new(plan),
        buffers,
        receiver: first,
        failure: Mutex::default(),
    }
}
