//! Holding files against the digests of a list.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Mutex;

use super::account::{Event, Observer, Summary, Verdict};
use super::in_order::InOrder;
use super::worker::{Crew, Job, Worker, inline_proactor};
use super::{Options, crew, lock};
use crate::copy::{Cancellation, Phase, Progress};
use crate::digest::{Algorithm, Digest, ListedDigest};
use crate::error::{Errno, Error, ErrorKind};
use crate::proactor::Proactor;
use crate::processor::Configuration;

/// A file, and what its bytes should come to.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Which; a symbolic link is followed.
    pub path: PathBuf,
    /// The same digest, by each algorithm that could have made it; at least one.
    pub digests: Vec<Digest>,
}

impl From<ListedDigest> for Expected {
    fn from(listed: ListedDigest) -> Self {
        Self { path: OsString::from_vec(listed.name).into(), digests: listed.digests }
    }
}

/// Holds files against digests, many at a time, and tells of each in order.
///
/// What is expected is taken as it is needed: a list of any length takes little memory. Where several
/// algorithms could have made a digest, one that has met a file before is tried first, and the others
/// before the file is said to differ.
///
/// # Errors
///
/// If nothing could be begun: the options make no sense.
///
/// # Examples
///
/// ```
/// use ucp_engine::copy::{Cancellation, Progress};
/// use ucp_engine::digest::ListedDigest;
/// use ucp_engine::sum::{self, Expected, Options};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// let path = scratch.path().join("a");
/// std::fs::write(&path, "123456789")?;
/// let line = format!("CRC32 ({}) = cbf43926", path.display());
/// let expected = ListedDigest::parse(line.as_bytes(), &[]).map(Expected::from);
/// let (progress, cancellation) = (Progress::default(), Cancellation::default());
/// let options = Options::default();
/// let engine = Default::default();
/// let summary = sum::check(expected.into_iter(), (&options, &engine), &(), &progress, &cancellation)?;
/// assert_eq!((summary.files, summary.differing, summary.missing, summary.failed), (1, 0, 0, 0));
/// # Ok(())
/// # }
/// ```
pub fn check(
    expected: impl Iterator<Item = Expected> + Send,
    (options, engine): (&Options, &Configuration),
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let proactor = inline_proactor();
    let job = Job::new(options, progress, cancellation, Crew::Threads(engine));
    proactor.block_on(check_with(expected, &job, observer, &proactor))
}

/// Holds files against digests on one proactor, as [`super::sum_on`] makes them.
///
/// # Errors
///
/// As [`check`].
pub fn check_on(
    proactor: &Proactor,
    expected: impl Iterator<Item = Expected> + Send,
    options: &Options,
    observer: &dyn Observer,
    progress: &Progress,
    cancellation: &Cancellation,
) -> Result<Summary, Error> {
    let job = Job::new(options, progress, cancellation, Crew::Tasks);
    proactor.block_on(check_with(expected, &job, observer, proactor))
}

async fn check_with(
    expected: impl Iterator<Item = Expected> + Send,
    job: &Job<'_>,
    observer: &dyn Observer,
    proactor: &Proactor,
) -> Result<Summary, Error> {
    job.options.check()?;
    let tasks = proactor.initiator();
    let started = tasks.now();
    job.progress.set_phase(Phase::Reading);
    let items = InOrder::new(expected);
    let met = Mutex::new(Vec::new());
    let tell = |(path, verdict): (PathBuf, Option<Verdict>)| {
        if let Some(verdict) = &verdict {
            observer.on_event(&Event::Checked { path: &path, verdict });
        }
        true
    };
    let work = async |worker: &Worker<'_>| {
        while let Some((number, expected)) = items.take().await {
            let verdict = worker.check(&expected, &met).await;
            worker.count_checked(&verdict);
            items.complete(number, (expected.path, verdict.ok()), tell);
            if worker.io.check().is_err() {
                break;
            }
        }
    };
    let is_waiting = || items.is_waiting();
    let mut summary = crew::run(job, &tasks, usize::MAX, is_waiting, work).await;
    summary.was_cancelled |= !items.is_at_end();
    job.progress.set_phase(Phase::Ending);
    summary.elapsed = tasks.now().since(started);
    Ok(summary)
}

impl Worker<'_> {
    /// Holds one file against a digest. Fails only if all was cancelled.
    async fn check(
        &self,
        expected: &Expected,
        met: &Mutex<Vec<Algorithm>>,
    ) -> Result<Verdict, Error> {
        let label = |error: Error| error.on(&expected.path);
        let mut digests = expected.digests.clone();
        // A list is mostly by one algorithm.
        let known = lock(met).clone();
        digests.sort_by_key(|digest| !known.contains(&digest.algorithm()));
        let is_known = digests.first().is_some_and(|first| known.contains(&first.algorithm()));
        let (first, others) = digests.split_at(if is_known { 1 } else { digests.len() });
        let mut found = Vec::new();
        for tried in [first, others].into_iter().filter(|tried| !tried.is_empty()) {
            match self.try_digests(expected, tried).await.map_err(label) {
                Ok(digests) => found.extend(digests),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) if is_missing(&error) => return Ok(Verdict::Missing(error)),
                Err(error) => return Ok(Verdict::Failed(error)),
            }
            let same = found.iter().find(|digest| expected.digests.contains(digest));
            if let Some(same) = same {
                let mut met = lock(met);
                if !met.contains(&same.algorithm()) {
                    met.push(same.algorithm());
                }
                return Ok(Verdict::Same(*same));
            }
        }
        let (expected, found) = (digests[0], found[0]);
        Ok(Verdict::Differs { expected, found })
    }

    async fn try_digests(
        &self,
        expected: &Expected,
        tried: &[Digest],
    ) -> Result<Vec<Digest>, Error> {
        let algorithms: Vec<_> = tried.iter().map(Digest::algorithm).collect();
        let opened = self.open_operand(&expected.path).await?;
        self.job.progress.find_file(opened.1.size_bytes);
        let digested = self.digest(&opened, None, &algorithms).await?;
        self.summary.borrow_mut().bytes += digested.bytes;
        Ok(digested.digests)
    }

    fn count_checked(&self, verdict: &Result<Verdict, Error>) {
        let mut summary = self.summary.borrow_mut();
        self.job.progress.add_file();
        match verdict {
            Ok(Verdict::Same(_)) => summary.files += 1,
            Ok(Verdict::Differs { .. }) => {
                summary.files += 1;
                summary.differing += 1;
            }
            Ok(Verdict::Missing(_)) => summary.missing += 1,
            Ok(Verdict::Failed(error)) | Err(error) => drop(summary.fail(error)),
        }
    }
}

fn is_missing(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::ENOTDIR))
}
