//! What a simulated file system is made of: inodes, directories and mounts.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::content::Content;
use crate::operation::FileKind;
use crate::units::WallTime;

/// Which inode, in the table of all. Used again for another only where the mount says so, and then not
/// before nothing refers to it any more.
pub(super) type Number = usize;
/// A name in a directory.
pub(super) type EntryName = Arc<[u8]>;

/// A file of any kind.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    /// Which mount it is on.
    pub(super) mount: usize,
    pub(super) attributes: Attributes,
    /// What of the attributes is on stable storage.
    pub(super) durable: Attributes,
    /// How many names it has; directories count as in `st_nlink`.
    pub(super) links: u32,
    /// How many descriptors refer to it.
    pub(super) opens: u32,
    /// How often stable storage, or what may reach it, refers to it.
    pub(super) pins: u32,
    /// Whether no name and no descriptor is left, and only stable storage may bring it back.
    pub(super) is_gone: bool,
    /// How often a write-back of it has failed.
    pub(super) losses: u64,
    /// The descriptor that holds the lock.
    pub(super) lock: Option<u32>,
    pub(super) body: Body,
}

/// What a file consists of.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Regular(Content),
    Directory(Directory),
    Link(EntryName),
    /// A FIFO, with what was written and not yet read.
    Pipe(VecDeque<u8>),
    Node,
}

/// What is known about a file beside its content.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Attributes {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) device: u64,
    pub(super) accessed: WallTime,
    pub(super) modified: WallTime,
    pub(super) changed: WallTime,
    pub(super) extended: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The names of a directory.
///
/// Each has a position that never changes while the name exists, so that a listing goes on where
/// it stopped although names come and go. Positions follow a hash, as on ext4: a new name may land
/// before or behind where a listing is.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    positions: BTreeMap<EntryName, u64>,
    entries: BTreeMap<u64, (EntryName, Number)>,
    /// The names on stable storage.
    pub(super) durable: BTreeMap<EntryName, Number>,
    pub(super) parent: Number,
    /// The mount that covers it.
    pub(super) covered_by: Option<usize>,
}

/// The first position behind `.` and `..`.
pub(super) const FIRST_POSITION: u64 = 3;
/// Where a listing that has ended stays.
pub(super) const LAST_POSITION: u64 = 1 << 63;

impl Inode {
    pub(super) fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(super) fn is_regular(&self) -> bool {
        matches!(self.body, Body::Regular(_))
    }
}

impl Directory {
    /// An empty directory.
    pub(super) fn below(parent: Number) -> Self {
        Self { parent, ..Self::default() }
    }

    pub(super) fn find(&self, name: &[u8]) -> Option<Number> {
        let position = self.positions.get(name)?;
        self.entries.get(position).map(|(_, inode)| *inode)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Makes a name refer to an inode, or to nothing.
    pub(super) fn set(&mut self, name: &EntryName, inode: Option<Number>) {
        match (inode, self.positions.get(name)) {
            (None, Some(position)) => {
                self.entries.remove(position);
                self.positions.remove(name);
            }
            (None, None) => {}
            (Some(inode), Some(position)) => {
                self.entries.insert(*position, (Arc::clone(name), inode));
            }
            (Some(inode), None) => {
                let mut position = hash(name).max(FIRST_POSITION);
                while self.entries.contains_key(&position) {
                    position += 1;
                }
                self.entries.insert(position, (Arc::clone(name), inode));
                self.positions.insert(Arc::clone(name), position);
            }
        }
    }

    /// The names at or behind a position, in the order of a listing.
    pub(super) fn listed_from(
        &self,
        position: u64,
    ) -> impl Iterator<Item = (u64, &EntryName, Number)> {
        self.entries.range(position..).map(|(position, (name, inode))| (*position, name, *inode))
    }

    /// All names, in the order of their bytes.
    pub(super) fn sorted(&self) -> impl Iterator<Item = (&EntryName, Number)> {
        self.positions.iter().map(|(name, position)| (name, self.entries[position].1))
    }
}

/// FNV-1a, cut to what a directory's position can be.
fn hash(name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_goes_on_where_it_stopped_although_names_go() {
        let mut directory = Directory::default();
        let names: Vec<EntryName> =
            (0..100).map(|number: u32| number.to_string().into_bytes().into()).collect();
        for (inode, name) in names.iter().enumerate() {
            directory.set(name, Some(inode));
        }
        let mut seen = Vec::new();
        let mut position = 0;
        loop {
            let next = directory.listed_from(position).next();
            let Some((at, name, inode)) = next.map(|(at, name, inode)| (at, name.clone(), inode))
            else {
                break;
            };
            seen.push(inode);
            directory.set(&name, None);
            position = at + 1;
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert!(directory.is_empty());
    }
}
