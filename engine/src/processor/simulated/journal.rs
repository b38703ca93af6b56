//! Which names are on stable storage, which may be, and what a power cut leaves.
//!
//! Every change of names is one entry of a journal: a rename is one, with both of its names. A sync
//! of a directory forces the entries that touch it, and what those rest on. The others reach stable
//! storage by themselves in their order, so that a power cut keeps some first part of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::inode::{Body, Directory, EntryName, Inode, Number};
use super::world::World;
use crate::random::Random;

/// Changes of names that nothing has forced to stable storage, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal(VecDeque<[Option<NameChange>; 2]>);

/// A name that was made to refer to an inode, or to nothing.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) directory: Number,
    pub(super) name: EntryName,
    pub(super) inode: Option<Number>,
}

/// More unforced changes than this reach stable storage by themselves, as a journal commits now and
/// then.
const JOURNAL_MAX: usize = 1 << 14;

impl World {
    /// Makes names refer to other inodes, in one step that a power cut can't divide.
    pub(super) fn change_names(&mut self, changes: [Option<NameChange>; 2]) {
        for change in changes.iter().flatten() {
            self.directory_mut(change.directory).set(&change.name, change.inode);
            self.node_mut(change.directory).pins += 1;
            if let Some(inode) = change.inode {
                self.node_mut(inode).pins += 1;
            }
        }
        self.journal.0.push_back(changes);
        if self.journal.0.len() > JOURNAL_MAX {
            for _ in 0..JOURNAL_MAX / 2 {
                let oldest = self.journal.0.pop_front().expect("it is long");
                self.make_durable(oldest);
            }
        }
    }

    /// Forces the changes that touch certain directories to stable storage, and those before them
    /// that touch the same names.
    pub(super) fn force_names(&mut self, is_meant: impl Fn(Number) -> bool) {
        if self.journal.0.is_empty() {
            return;
        }
        let journal = std::mem::take(&mut self.journal.0);
        let mut names: std::collections::BTreeSet<(Number, EntryName)> = Default::default();
        let mut forced = vec![false; journal.len()];
        for (is_forced, changes) in forced.iter_mut().zip(&journal).rev() {
            let touches = |change: &NameChange| {
                is_meant(change.directory)
                    || names.contains(&(change.directory, Arc::clone(&change.name)))
            };
            *is_forced = changes.iter().flatten().any(touches);
            if *is_forced {
                let key = |it: &NameChange| (it.directory, Arc::clone(&it.name));
                names.extend(changes.iter().flatten().map(key));
            }
        }
        for (is_forced, changes) in forced.into_iter().zip(journal) {
            if is_forced {
                self.make_durable(changes);
            } else {
                self.journal.0.push_back(changes);
            }
        }
    }

    fn make_durable(&mut self, changes: [Option<NameChange>; 2]) {
        for NameChange { directory, name, inode } in changes.into_iter().flatten() {
            let durable = &mut self.directory_mut(directory).durable;
            // The pin of the change becomes the pin of the name.
            let before = match inode {
                Some(inode) => durable.insert(name, inode),
                None => durable.remove(&name),
            };
            if let Some(before) = before {
                self.unpin(before);
            }
            self.unpin(directory);
        }
    }

    /// Puts a file's content, or a directory's names, on stable storage; and its attributes if
    /// asked to.
    pub(super) fn sync_inode(&mut self, number: Number, with_attributes: bool) {
        let inode = self.node_mut(number);
        match &mut inode.body {
            Body::Regular(content) => content.sync(),
            Body::Directory(_) => {
                self.force_names(|directory| directory == number);
            }
            Body::Link(_) | Body::Pipe(_) | Body::Node => {}
        }
        if with_attributes {
            let inode = self.node_mut(number);
            if inode.durable != inode.attributes {
                inode.durable = inode.attributes.clone();
            }
        }
    }

    /// Puts everything of a mount on stable storage.
    pub(super) fn sync_mount(&mut self, mount: usize) {
        for number in 0..self.inodes.len() {
            let is_there = |inode: &Option<Box<Inode>>| {
                inode.as_ref().is_some_and(|inode| inode.mount == mount && !inode.is_directory())
            };
            if is_there(&self.inodes[number]) {
                self.sync_inode(number, true);
            }
        }
        let mounts: Vec<Option<usize>> =
            self.inodes.iter().map(|inode| inode.as_ref().map(|inode| inode.mount)).collect();
        self.force_names(|directory| mounts[directory] == Some(mount));
        for inode in self.inodes.iter_mut().flatten() {
            if inode.mount == mount && inode.is_directory() {
                inode.durable = inode.attributes.clone();
            }
        }
    }

    /// The world after a power cut.
    pub(super) fn after_crash(&self, random: &mut Random) -> Self {
        let mut left = Self::new(self.mounts[0].options.clone());
        (left.clock, left.umask) = (self.clock + 60_000_000_000, self.umask);
        (left.user, left.user_group) = (self.user, self.user_group);
        left.mounts.clone_from(&self.mounts);
        left.inodes = vec![None; self.inodes.len()];
        let names = self.names_after_crash(random);
        for mount in 0..left.mounts.len() {
            let pages = self.mounts[mount].options.capacity_bytes / super::content::PAGE_BYTES;
            left.mounts[mount].room = pages;
            let root = self.mounts[mount].root;
            left.bring_back(self, root, root, &names, random);
            left.node_mut(root).pins += 1;
            if let Some(covers) = self.mounts[mount].covers {
                // A mount point that was lost takes its mount with it.
                let is_there = left.inodes[covers].as_ref().is_some_and(|it| it.is_directory());
                if is_there {
                    let parent = left.directory(covers).parent;
                    left.directory_mut(covers).covered_by = Some(mount);
                    left.directory_mut(root).parent = parent;
                }
            }
        }
        let is_there = left.inodes[self.current_directory].is_some();
        left.current_directory = if is_there { self.current_directory } else { super::world::ROOT };
        left
    }

    /// The names that are left: those that were forced, and some first part of the rest.
    fn names_after_crash(
        &self,
        random: &mut Random,
    ) -> BTreeMap<Number, BTreeMap<EntryName, Number>> {
        let directory = |(number, inode): (Number, &Option<Box<Inode>>)| match &inode.as_ref()?.body
        {
            Body::Directory(directory) => Some((number, directory.durable.clone())),
            _ => None,
        };
        let mut names: BTreeMap<_, _> =
            self.inodes.iter().enumerate().filter_map(directory).collect();
        let count = self.journal.0.len() as u64;
        let kept = match random.below(4) {
            0 => 0,
            1 => count,
            _ => random.below(count + 1),
        };
        let kept = usize::try_from(kept).expect("at most the journal's length");
        for change in self.journal.0.iter().take(kept).flatten().flatten() {
            let Some(entries) = names.get_mut(&change.directory) else { continue };
            match change.inode {
                Some(inode) => entries.insert(Arc::clone(&change.name), inode),
                None => entries.remove(&change.name),
            };
        }
        names
    }

    /// Brings an inode back, with all below it.
    fn bring_back(
        &mut self,
        before: &Self,
        number: Number,
        parent: Number,
        names: &BTreeMap<Number, BTreeMap<EntryName, Number>>,
        random: &mut Random,
    ) {
        if let Some(inode) = &mut self.inodes[number] {
            inode.links += 1;
            inode.pins += 1;
            return;
        }
        let old = before.node(number);
        let attributes =
            if random.once_in(2) { old.attributes.clone() } else { old.durable.clone() };
        let room = &mut self.mounts[old.mount].room;
        let (body, links) = match &old.body {
            Body::Regular(content) => (Body::Regular(content.after_crash(random, room)), 1),
            Body::Directory(_) => (Body::Directory(Directory::below(parent)), 2),
            Body::Pipe(_) => (Body::Pipe(Default::default()), 1),
            body => (body.clone(), 1),
        };
        let durable = attributes.clone();
        let (mount, pins) = (old.mount, u32::from(number != parent));
        let inode = Inode {
            mount,
            attributes,
            durable,
            links,
            opens: 0,
            pins,
            is_gone: false,
            losses: 0,
            lock: None,
            body,
        };
        self.inodes[number] = Some(Box::new(inode));
        let Some(entries) = names.get(&number) else { return };
        for (name, child) in entries {
            // A directory that a lost rename left under two names keeps the first.
            let is_back = self.inodes[*child].is_some();
            if is_back && before.node(*child).is_directory() {
                continue;
            }
            self.bring_back(before, *child, number, names, random);
            let is_directory = self.node(*child).is_directory();
            let directory = self.directory_mut(number);
            directory.set(name, Some(*child));
            directory.durable.insert(Arc::clone(name), *child);
            self.node_mut(number).links += u32::from(is_directory);
        }
    }
}
