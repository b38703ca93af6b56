//! Which names in a target directory are to be deleted when it mirrors a source: decided from what
//! is known of both sides.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::temporary::PREFIX;

/// All names of a directory, by their hashes: a million take 8 MB. Two names of one hash make one
/// of them stay that could go, which is the harmless mistake.
#[derive(Debug, Default)]
pub(super) struct NameSet(Vec<u64>);

/// What becomes of a name in the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// It stays.
    Stay,
    /// It is a directory on both sides: what is in it is looked through.
    Enter,
    /// It looks like what a run has left behind, or is working on.
    Leftover,
    /// It goes, if all that is asked before still holds.
    Go,
}

impl NameSet {
    pub(super) fn extend<'a>(&mut self, names: impl IntoIterator<Item = &'a [u8]>) {
        self.0.extend(names.into_iter().map(hash));
    }

    /// To be called between adding names and looking for them.
    pub(super) fn sort(&mut self) {
        self.0.sort_unstable();
    }

    pub(super) fn may_hold(&self, name: &[u8]) -> bool {
        self.0.binary_search(&hash(name)).is_ok()
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Decides about a name in a directory of the target. `in_source` are the names of the directory
/// that it mirrors; there are none below a directory that is to go as a whole. A backup of this run
/// or of an earlier one has no source by its nature, and stays.
pub(super) fn fate(
    name: &[u8],
    is_directory: bool,
    is_excluded: bool,
    is_backup: bool,
    in_source: Option<&NameSet>,
) -> Fate {
    let has_source = in_source.is_some_and(|names| names.may_hold(name));
    match (is_excluded, has_source) {
        (true, _) => Fate::Stay,
        (false, true) if is_directory => Fate::Enter,
        (false, true) => Fate::Stay,
        (false, false) if name.starts_with(PREFIX) => Fate::Leftover,
        (false, false) if is_backup => Fate::Stay,
        (false, false) => Fate::Go,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_source_has_and_nobody_keeps_goes() {
        let mut source = NameSet::default();
        source.extend([&b"both"[..], b"\xff\n"]);
        source.sort();
        let cases = [
            ("a file on both sides", &b"both"[..], false, false, true, Fate::Stay),
            ("a directory on both sides", b"both", true, false, true, Fate::Enter),
            ("an excluded directory on both sides", b"both", true, true, true, Fate::Stay),
            ("a name of any bytes", b"\xff\n", false, false, true, Fate::Stay),
            ("a file of the target", b"more", false, false, true, Fate::Go),
            ("a directory of the target", b"more", true, false, true, Fate::Go),
            ("an excluded file of the target", b"more", false, true, true, Fate::Stay),
            ("a temporary", b".ucp-0123.part", false, false, true, Fate::Leftover),
            ("below what goes, a name of the source", b"both", false, false, false, Fate::Go),
            ("below what goes, excluded", b"both", false, true, false, Fate::Stay),
        ];
        for (what, name, is_directory, is_excluded, has_source, want) in cases {
            let source = has_source.then_some(&source);
            assert_eq!(fate(name, is_directory, is_excluded, false, source), want, "{what}");
        }
    }

    #[test]
    fn backups_stay_where_nothing_else_decides() {
        let mut source = NameSet::default();
        source.extend([&b"both~"[..]]);
        source.sort();
        let cases = [
            ("a backup", &b"a~"[..], false, Some(&source), Fate::Stay),
            ("a backup below what goes", b"a~", false, None, Fate::Stay),
            ("a directory on both sides", b"both~", true, Some(&source), Fate::Enter),
            ("a temporary", b".ucp-0123.part", false, Some(&source), Fate::Leftover),
        ];
        for (what, name, is_directory, source, want) in cases {
            assert_eq!(fate(name, is_directory, false, true, source), want, "{what}");
        }
    }
}
