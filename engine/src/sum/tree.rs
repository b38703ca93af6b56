//! The digests of all files of a tree: made in any order, and told of in the order of the names.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::account::{Event, Observer, Summary};
use super::crew;
use super::file::Digested;
use super::spill::Sorter;
use super::tell_summed;
use super::walk::{Folder, Piece, Visitor};
use super::worker::{Job, Worker};
use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::limits::TREE_QUEUE_MAX;
use crate::operation::{File, FileStatus};
use crate::proactor::{TaskInitiator, WorkQueue};

/// What is done with the files of a tree.
struct Summing<'a> {
    algorithms: &'a [Algorithm],
    sorter: &'a Sorter<'a>,
    observer: &'a dyn Observer,
}

/// Sums a tree, and tells of it.
pub(super) async fn sum(
    job: &Job<'_>,
    tasks: &TaskInitiator,
    (path, file, algorithms): (&Path, File, &[Algorithm]),
    observer: &dyn Observer,
) -> Summary {
    let pieces = WorkQueue::new(TREE_QUEUE_MAX);
    let root = Piece::List(Arc::new(Folder { file, path: path.to_owned() }));
    assert!(pieces.push(root).is_ok(), "an empty queue has room");
    let sorter = Sorter::new(job.options.sort_bytes_max, &job.options.spill_directory);
    let summing = Summing { algorithms, sorter: &sorter, observer };
    let work = async |worker: &Worker<'_>| worker.walk(&pieces, &summing).await;
    let is_waiting = || pieces.is_waiting();
    let mut summary = crew::run(job, tasks, usize::MAX, is_waiting, work).await;
    let tell = |name: &[u8], value: &[u8]| {
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        tell_summed(path, Ok(read_value(value, algorithms)), observer);
    };
    let io = job.io(tasks.clone());
    if let Err(error) = sorter.drain(&io, |record| tell(&record.name, &record.value)).await
        && summary.fail(&error)
    {
        observer.on_event(&Event::Failed(&error));
    }
    summary
}

impl Visitor for Summing<'_> {
    async fn visit(&self, worker: &Worker<'_>, path: &Path, opened: (File, FileStatus)) {
        worker.job.progress.find_file(opened.1.size_bytes);
        let digested = match worker.digest(&opened, None, self.algorithms).await {
            Ok(digested) => {
                let name = path.as_os_str().as_bytes();
                let kept = self.sorter.push(name, &write_value(&digested), &worker.io).await;
                kept.map(|()| digested)
            }
            Err(error) => Err(error.on(path)),
        };
        worker.count(digested.as_ref());
        if let Err(error) = digested {
            tell_summed(path, Err(error), self.observer);
        }
    }

    fn skip(&self, worker: &Worker<'_>, path: &Path, reason: &'static str) {
        worker.summary.borrow_mut().skipped += 1;
        self.observer.on_event(&Event::Skipped { path, reason });
    }

    fn fail(&self, worker: &Worker<'_>, error: Error) {
        if worker.summary.borrow_mut().fail(&error) {
            self.observer.on_event(&Event::Failed(&error));
        }
    }
}

/// What is kept of a file until its turn has come: its bytes, and its digests one after the other.
fn write_value(digested: &Digested) -> Vec<u8> {
    let mut value = digested.bytes.to_ne_bytes().to_vec();
    digested.digests.iter().for_each(|digest| value.extend_from_slice(digest.as_bytes()));
    value
}

fn read_value(value: &[u8], algorithms: &[Algorithm]) -> Digested {
    let (bytes, mut rest) = value.split_at(size_of::<u64>());
    let bytes = u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    let digest = |algorithm: &Algorithm| {
        let digest;
        (digest, rest) = rest.split_at(algorithm.digest_bytes());
        Digest::new(*algorithm, digest)
    };
    Digested { bytes, digests: algorithms.iter().map(digest).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_file_is_read_as_it_was() {
        let digests: Vec<_> = Algorithm::ALL.map(|algorithm| algorithm.digest(b"abc")).to_vec();
        let value = write_value(&Digested { bytes: 17, digests: digests.clone() });
        let read = read_value(&value, &Algorithm::ALL);
        assert_eq!((read.bytes, read.digests), (17, digests));
    }
}
