//! What a sum tells while it works, and what it tells at its end.

use std::path::Path;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind};

/// Is told what happens, from any thread.
pub trait Observer: Sync {
    /// Something is known of one file. Of the files of one tree in the order of their names, but for
    /// failures, which are told as they happen.
    fn on_event(&self, event: &Event<'_>);
}

impl Observer for () {
    fn on_event(&self, _event: &Event<'_>) {}
}

/// What is known of one file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// It was summed.
    Summed(&'a Summed<'a>),
    /// It was held against a digest.
    Checked {
        /// Which.
        path: &'a Path,
        /// What came of it.
        verdict: &'a Verdict,
    },
    /// It is left out: a FIFO, a socket or a device in a tree.
    Skipped {
        /// Which.
        path: &'a Path,
        /// Why.
        reason: &'a str,
    },
    /// It could not be summed. The others go on.
    Failed(&'a Error),
}

/// A file that was summed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Summed<'a> {
    /// Which.
    pub path: &'a Path,
    /// How many of its bytes were read.
    pub bytes: u64,
    /// Its digests, in the order of the algorithms that were asked for.
    pub digests: &'a [Digest],
}

/// What came of holding a file against a digest.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It has the digest.
    Same(Digest),
    /// It has another.
    Differs {
        /// What the list says.
        expected: Digest,
        /// What the file's bytes come to.
        found: Digest,
    },
    /// There is no such file.
    Missing(Error),
    /// It could not be read.
    Failed(Error),
}

/// What a whole sum came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Files that were summed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that do not have the digest that was expected.
    pub differing: u64,
    /// Files that were expected and are not there.
    pub missing: u64,
    /// Files that were left out.
    pub skipped: u64,
    /// Files that could not be read.
    pub failed: u64,
    /// Whether it was asked to stop.
    pub was_cancelled: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// What read large files, and why: "using io_uring", or why not; empty if none was.
    pub engine: String,
}

impl Summary {
    /// Takes what another run came to: the counts and the times together.
    pub fn merge(&mut self, other: &Self) {
        self.add(other);
        self.elapsed += other.elapsed;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let Self { files, bytes, differing, missing, skipped, failed, .. } = other;
        self.files += files;
        self.bytes += bytes;
        self.differing += differing;
        self.missing += missing;
        self.skipped += skipped;
        self.failed += failed;
        self.was_cancelled |= other.was_cancelled;
        if self.engine.is_empty() {
            self.engine.clone_from(&other.engine);
        }
    }

    /// Takes note of a failure. True if somebody is to be told: that all was cancelled is told once.
    pub(crate) fn fail(&mut self, error: &Error) -> bool {
        if error.kind() == ErrorKind::Cancelled {
            self.was_cancelled = true;
            return false;
        }
        self.failed += 1;
        true
    }
}
