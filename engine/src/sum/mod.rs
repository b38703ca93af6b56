//! Digests of files and trees, and holding files against digests.
//!
//! ```text
//! operands ─► in order, many at a time ─► a small file: read in turn, and hashed by whoever reads it
//!          └► a tree: in any order, then sorted      └─► a large one: many hands, hashed in order
//! ```
//!
//! What decides does no I/O: which piece is read next (`plan`), what becomes of pieces that come out of
//! order (`folding`), which way bytes are read (`way`), what order names come in (`sorting`).

mod account;
mod check;
pub(crate) mod crew;
mod file;
mod folding;
pub(crate) mod hands;
mod in_order;
mod options;
pub(crate) mod plan;
pub(crate) mod shelf;
mod sorting;
pub(crate) mod spill;
mod tree;
pub(crate) mod walk;
pub(crate) mod way;
pub(crate) mod worker;

pub use account::*;
pub use check::{Expected, check, check_on};
pub use options::*;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use file::Digested;
pub(crate) use file::is_refusal;
use in_order::InOrder;
use worker::{Crew, Job, Worker, inline_proactor};

use crate::copy::{Cancellation, Phase, Progress};
use crate::digest::Algorithm;
use crate::error::{Error, ErrorKind};
use crate::operation::{CURRENT_POSITION, File, FileKind};
use crate::proactor::Proactor;

/// Makes digests of files and trees, and tells of each.
///
/// Operands are told of in their order, and the files of a directory in the order of their names, byte
/// by byte. Small files are read by one thread a core, or more while these wait for the disk; a large
/// one by many hands, past the page cache if it is not there. Failures of single files are told, and
/// counted; the others go on. A file that is changed while it is read, so that its digest would be of
/// no single moment, is a failure.
///
/// # Errors
///
/// If nothing could be begun: the options make no sense, io_uring was demanded and is missing.
///
/// # Examples
///
/// ```
/// use std::sync::Mutex;
///
/// use ucp_engine::copy::{Cancellation, Progress};
/// use ucp_engine::digest::Algorithm;
/// use ucp_engine::sum::{self, Event, Observer, Request};
///
/// #[derive(Default)]
/// struct Lines(Mutex<Vec<String>>);
///
/// impl Observer for Lines {
///     fn on_event(&self, event: &Event<'_>) {
///         if let Event::Summed(summed) = event {
///             let name = summed.path.file_name().unwrap().display();
///             self.0.lock().unwrap().push(format!("{}  {name}", summed.digests[0]));
///         }
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// std::fs::write(scratch.path().join("b"), "")?;
/// std::fs::write(scratch.path().join("a"), "123456789")?;
/// let request = Request::new(Algorithm::Crc32, [scratch.path()]);
/// let lines = Lines::default();
/// let summary = sum::sum(&request, &lines, &Progress::default(), &Cancellation::default())?;
/// assert_eq!((summary.files, summary.bytes, summary.failed), (2, 9, 0));
/// assert_eq!(lines.0.into_inner()?, ["cbf43926  a", "00000000  b"]);
/// # Ok(())
/// # }
/// ```
pub fn sum(
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let proactor = inline_proactor();
    let crew = Crew::Threads(&request.engine);
    proactor.block_on(sum_with(request, observer, progress, cancellation, &proactor, crew))
}

/// Makes digests on one proactor, several files side by side.
///
/// For programs that have a proactor, and for simulations: everything that is read goes through it.
///
/// # Errors
///
/// As [`sum`].
pub fn sum_on(
    proactor: &Proactor,
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let crew = Crew::Tasks;
    proactor.block_on(sum_with(request, observer, progress, cancellation, proactor, crew))
}

/// What came of an operand.
enum Outcome<'a> {
    Summed(&'a Path, Result<Digested, Error>),
    /// It is to be walked.
    Directory(&'a Path, File),
}

async fn sum_with(
    request: &Request,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
    proactor: &Proactor,
    crew: Crew<'_>,
) -> Result<Summary, Error> {
    request.options.check()?;
    let tasks = proactor.initiator();
    let started = tasks.now();
    let job = Job::new(&request.options, progress, cancellation, crew);
    progress.set_phase(Phase::Reading);
    let mut summary = Summary::default();
    let operands = InOrder::new(request.operands.iter());
    let directory = Mutex::new(None);
    let tell = |outcome| match outcome {
        Outcome::Summed(path, digested) => {
            tell_summed(path, digested, observer);
            true
        }
        Outcome::Directory(path, file) => {
            *lock(&directory) = Some((path, file));
            false
        }
    };
    let work = async |worker: &Worker<'_>| {
        while let Some((number, operand)) = operands.take().await {
            let outcome = worker.sum_operand(operand, &request.algorithms).await;
            operands.complete(number, outcome, tell);
        }
    };
    loop {
        let met = lock(&directory).take();
        match met {
            Some((path, file)) => {
                let tree = (path, file, request.algorithms.as_slice());
                summary.add(&tree::sum(&job, &tasks, tree, observer).await);
                // Behind it may be files that were summed meanwhile, and another directory.
                operands.resume(tell);
            }
            None if operands.is_at_end() || cancellation.is_cancelled() => break,
            None => {
                let pieces = request.operands.len();
                let is_waiting = || operands.is_waiting();
                summary.add(&crew::run(&job, &tasks, pieces, is_waiting, work).await);
            }
        }
    }
    summary.was_cancelled |= !operands.is_at_end();
    progress.set_phase(Phase::Ending);
    summary.elapsed = tasks.now().since(started);
    Ok(summary)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of a file that was summed, or why it was not.
fn tell_summed(path: &Path, digested: Result<Digested, Error>, observer: &dyn Observer) {
    match digested {
        Ok(Digested { bytes, digests }) => {
            observer.on_event(&Event::Summed(&Summed { path, bytes, digests: &digests }));
        }
        // That all was stopped is told once, in the end.
        Err(error) if error.kind() == ErrorKind::Cancelled => {}
        Err(error) => observer.on_event(&Event::Failed(&error)),
    }
}

impl Worker<'_> {
    async fn sum_operand<'o>(&self, operand: &'o Operand, algorithms: &[Algorithm]) -> Outcome<'o> {
        let (path, opened, position) = match operand {
            Operand::Path(path) => (path, self.open_operand(path).await, None),
            Operand::Open { name, file } => {
                let status = self.io.status_of(file).await;
                let opened = status.map(|status| (file.clone(), status));
                (name, opened, Some(CURRENT_POSITION))
            }
        };
        let digested = match opened {
            Ok((file, status)) if status.kind == FileKind::Directory && position.is_none() => {
                return Outcome::Directory(path, file);
            }
            Ok(opened) => {
                self.job.progress.find_file(opened.1.size_bytes);
                self.digest(&opened, position, algorithms).await
            }
            Err(error) => Err(error),
        };
        let digested = digested.map_err(|error| error.on(path));
        self.count(digested.as_ref());
        Outcome::Summed(path, digested)
    }

    /// Counts a file that was read, or why it was not.
    fn count(&self, digested: Result<&Digested, &Error>) {
        let mut summary = self.summary.borrow_mut();
        match digested {
            Ok(digested) => {
                summary.files += 1;
                summary.bytes += digested.bytes;
                self.job.progress.add_file();
            }
            Err(error) => drop(summary.fail(error)),
        }
    }
}
