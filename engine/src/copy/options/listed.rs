//! Names below a directory that are to be copied, and no others: a tree of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Names below the source directory that are to be copied.
///
/// The directories on the way to a name are made as they are in the source. A directory that is
/// named is made without what is in it, unless its name ends in '/'.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    below: BTreeMap<Vec<u8>, Arc<Listed>>,
    is_wanted: bool,
    is_whole: bool,
}

impl Listed {
    /// Adds a name, relative to the source directory.
    ///
    /// # Errors
    ///
    /// Why it is none, in words: it is absolute, leads upwards, or has a NUL in it.
    pub fn add(&mut self, name: &[u8]) -> Result<(), &'static str> {
        let parts = || name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        if name.is_empty() {
            return Err("it is empty");
        }
        if name.starts_with(b"/") {
            return Err("it is absolute, and names are relative to the source");
        }
        if name.contains(&0) {
            return Err("there is a NUL in it");
        }
        if parts().any(|part| part == b"..") {
            return Err("it leads upwards");
        }
        let mut node = self;
        for part in parts() {
            node = Arc::make_mut(node.below.entry(part.to_vec()).or_default());
        }
        node.is_wanted = true;
        node.is_whole |= name.ends_with(b"/") || name.ends_with(b"/.");
        Ok(())
    }

    /// Whether everything in it is to be copied.
    pub(in crate::copy) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether it is to be copied itself, and not only on the way to what is below it.
    pub(in crate::copy) fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// The names in it, behind the name `after` if there is one.
    pub(in crate::copy) fn names_after<'a>(
        &'a self,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = &'a [u8]> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.below.range::<[u8], _>((start, Bound::Unbounded)).map(|(name, _)| name.as_slice())
    }

    /// What is listed below one of its names.
    pub(in crate::copy) fn below(&self, name: &[u8]) -> Option<&Arc<Self>> {
        self.below.get(name)
    }

    /// All names below this one that are wanted, as paths.
    pub(in crate::copy) fn wanted_below(&self) -> Vec<Vec<u8>> {
        let mut wanted = Vec::new();
        let mut nodes = vec![(Vec::new(), self)];
        while let Some((path, node)) = nodes.pop() {
            for (name, below) in node.below.iter().rev() {
                let separator: &[u8] = if path.is_empty() { b"" } else { b"/" };
                nodes.push(([path.as_slice(), separator, name].concat(), below));
            }
            if node.is_wanted && !path.is_empty() {
                wanted.push(path);
            }
        }
        wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&[u8]]) -> Listed {
        let mut listed = Listed::default();
        names.iter().for_each(|name| listed.add(name).unwrap());
        listed
    }

    #[test]
    fn names_become_a_tree() {
        let listed = listed(&[b"b/c", b"a", b"b//./d", b"\xff\n", b"b/c/e/", b"./b"]);
        let names: Vec<&[u8]> = listed.names_after(None).collect();
        assert_eq!(names, [&b"a"[..], b"b", b"\xff\n"]);
        let names: Vec<&[u8]> = listed.names_after(Some(b"a")).collect();
        assert_eq!(names, [&b"b"[..], b"\xff\n"]);
        let wanted = listed.wanted_below();
        assert_eq!(wanted, [&b"a"[..], b"b", b"b/c", b"b/c/e", b"b/d", b"\xff\n"]);
        let whole = |path: &[&[u8]]| {
            path.iter().fold(&listed, |node, name| node.below(name).unwrap()).is_whole()
        };
        assert!(whole(&[b"b", b"c", b"e"]));
        assert!(!whole(&[b"b", b"c"]) && !whole(&[b"b"]) && !listed.is_whole());
    }

    #[test]
    fn the_source_itself_can_be_named() {
        assert!(!listed(&[b"."]).is_whole());
        assert!(listed(&[b"./"]).is_whole());
        assert_eq!(listed(&[b"."]).names_after(None).count(), 0);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [&b""[..], b"/", b"/a", b"..", b"../a", b"a/..", b"a/../b", b"./..", b"a\0"] {
            assert!(Listed::default().add(name).is_err(), "{}", name.escape_ascii());
        }
        for name in [&b"..."[..], b"a..", b"..a/b", b".a"] {
            assert!(Listed::default().add(name).is_ok(), "{}", name.escape_ascii());
        }
    }
}
