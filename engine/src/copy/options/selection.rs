//! What of the sources is copied, and what becomes of the rest.

use std::fmt;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use super::Listed;

/// Decides about names below operands. Operands themselves are always copied: the user named them.
///
/// The engine asks, and knows nothing of patterns: which words people write them in, and the crate
/// that matches them, belong to whoever reads those words. It is asked once for each name and from
/// several threads, and never about what is below a directory that it excluded.
pub trait Filter: fmt::Debug + Send + Sync {
    /// Whether the name at `path`, relative to its operand, is copied.
    fn decide(&self, path: &Path, is_directory: bool) -> Verdict;
}

/// What is decided about a name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It is copied.
    Copied,
    /// It is left out, a directory with all below it; on the target's side it is left alone.
    Excluded,
}

/// What of the sources is copied, and what becomes of the rest.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Who decides about each name; nobody: all are copied.
    pub filter: Option<Arc<dyn Filter>>,
    /// The names below the source that are copied, if not all are: then there is one source, and it is
    /// a directory.
    pub listed: Option<Arc<Listed>>,
    /// Whether what is in a target directory and not in its source is deleted, once everything was
    /// copied: never without a complete listing of the source, never what the filter excludes.
    pub delete: bool,
    /// Whether a source that is a regular file is removed once its copy is verified, durable and under
    /// its name. Implies [`super::Verification::verify`], [`super::Durability::Full`] and
    /// [`super::Stage::Never`]; contradicts `delete`.
    pub remove_source_files: bool,
    /// Whether it is only told what would be done, and nothing is touched.
    pub dry_run: bool,
    /// How many bytes may be moved in a second, on the whole; none: as many as can.
    pub bytes_per_second_max: Option<NonZero<u64>>,
}

impl Selection {
    /// Decides about a name. Its path is put together only if somebody wants to know.
    pub(in crate::copy) fn excludes<P: AsRef<Path>>(
        &self,
        path: impl FnOnce() -> P,
        is_directory: bool,
    ) -> bool {
        let Some(filter) = &self.filter else { return false };
        filter.decide(path().as_ref(), is_directory) == Verdict::Excluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct NoDirectories;

    impl Filter for NoDirectories {
        fn decide(&self, _path: &Path, is_directory: bool) -> Verdict {
            if is_directory { Verdict::Excluded } else { Verdict::Copied }
        }
    }

    #[test]
    fn without_a_filter_nothing_is_excluded_and_no_path_is_made() {
        let none = Selection::default();
        assert!(!none.excludes(|| -> &str { panic!("nobody wants it") }, true));
        let selection = Selection { filter: Some(Arc::new(NoDirectories)), ..Selection::default() };
        assert!(selection.excludes(|| "a", true));
        assert!(!selection.excludes(|| "a", false));
    }
}
