//! What makes, moves and removes names.
//!
//! The order of the checks is the kernel's (`fs/namei.c`, Linux 6.18): with two things wrong, a
//! caller sees the same one of them.

use std::collections::VecDeque;
use std::sync::Arc;

use nix::libc;

use super::content::Content;
use super::inode::{Body, Number};
use super::journal::NameChange;
use super::walk::{At, Found, Last};
use super::world::{World, entry_name};
use crate::error::Errno;
use crate::operation::FileKind;

/// Names that a file of ext4 can have.
const LINKS_MAX: u32 = 65_000;
/// Bytes that a symbolic link of ext4 can hold.
const LINK_BYTES_MAX: usize = 4095;

impl World {
    pub(super) fn make_directory(&mut self, at: At<'_>, mode: u32) -> Result<u32, Errno> {
        let found = self.new_name(at, true)?;
        let mount = self.node(found.directory).mount;
        let parent = &self.node(found.directory).attributes;
        let inherited = parent.mode & libc::S_ISGID;
        let mode = mode & 0o1777 & !self.umask | inherited;
        let number = self.new_directory(mount, found.directory, mode);
        self.inherit_group(found.directory, number);
        self.node_mut(found.directory).links += 1;
        self.add_name(&found, number);
        Ok(0)
    }

    pub(super) fn symbolic_link(&mut self, content: &[u8], at: At<'_>) -> Result<u32, Errno> {
        if content.is_empty() {
            return Err(Errno::ENOENT);
        }
        if content.len() > LINK_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let body = Body::Link(content.into());
        self.make(at, FileKind::SymbolicLink, 0o777, body).map(|_| 0)
    }

    pub(super) fn make_node(&mut self, at: At<'_>, mode: u32, device: u64) -> Result<u32, Errno> {
        let kind = match FileKind::from_mode(mode) {
            FileKind::Unknown if mode & libc::S_IFMT == 0 => FileKind::Regular,
            FileKind::Directory => return Err(Errno::EPERM),
            FileKind::Unknown | FileKind::SymbolicLink => return Err(Errno::EINVAL),
            kind => kind,
        };
        let is_device = matches!(kind, FileKind::CharacterDevice | FileKind::BlockDevice);
        let body = match kind {
            FileKind::Regular => Body::Regular(Content::default()),
            FileKind::Fifo => Body::Pipe(VecDeque::new()),
            _ => Body::Node,
        };
        if is_device && self.user != 0 {
            self.new_name(at, false)?;
            return Err(Errno::EPERM);
        }
        let number = self.make(at, kind, mode & 0o7777 & !self.umask, body)?;
        if is_device {
            self.node_mut(number).attributes.device = device;
            self.node_mut(number).durable.device = device;
        }
        Ok(0)
    }

    pub(super) fn link(
        &mut self,
        source: At<'_>,
        target: At<'_>,
        follow: bool,
    ) -> Result<u32, Errno> {
        let number = self.resolve(source, follow)?;
        let found = self.new_name(target, false)?;
        let inode = self.node(number);
        if inode.mount != self.node(found.directory).mount {
            return Err(Errno::EXDEV);
        }
        if inode.is_directory() {
            return Err(Errno::EPERM);
        }
        match inode.links {
            0 => return Err(Errno::ENOENT),
            LINKS_MAX.. => return Err(Errno::EMLINK),
            _ => {}
        }
        let now = self.tick();
        self.node_mut(number).attributes.changed = now;
        self.add_name(&found, number);
        Ok(0)
    }

    pub(super) fn unlink(&mut self, at: At<'_>, is_directory: bool) -> Result<u32, Errno> {
        let found = self.place(at)?;
        match (found.last, is_directory) {
            (Last::Normal, _) => {}
            (_, false) => return Err(Errno::EISDIR),
            (Last::Dot, true) => return Err(Errno::EINVAL),
            (Last::DotDot, true) => return Err(Errno::ENOTEMPTY),
            (Last::Root, true) => return Err(Errno::EBUSY),
        }
        self.may_change(found.directory)?;
        let victim = found.child.ok_or(Errno::ENOENT)?;
        let victim_is_directory = self.node(victim).is_directory();
        if !is_directory && found.has_slash {
            let errno = if victim_is_directory { Errno::EISDIR } else { Errno::ENOTDIR };
            return Err(errno);
        }
        self.may_remove(found.directory, victim, is_directory)?;
        if victim_is_directory {
            if self.directory(victim).covered_by.is_some() {
                return Err(Errno::EBUSY);
            }
            if !self.directory(victim).is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
        }
        let name = entry_name(&found.name);
        let change = NameChange { directory: found.directory, name, inode: None };
        self.change_names([Some(change), None]);
        self.touch_directory(found.directory);
        self.drop_name(found.directory, victim);
        Ok(0)
    }

    pub(super) fn rename(
        &mut self,
        source: At<'_>,
        target: At<'_>,
        replace: bool,
    ) -> Result<u32, Errno> {
        let (old, new) = (self.place(source)?, self.place(target)?);
        if self.node(old.directory).mount != self.node(new.directory).mount {
            return Err(Errno::EXDEV);
        }
        if old.last != Last::Normal {
            return Err(Errno::EBUSY);
        }
        if new.last != Last::Normal {
            return Err(if replace { Errno::EBUSY } else { Errno::EEXIST });
        }
        self.may_change(old.directory)?;
        let moved = old.child.ok_or(Errno::ENOENT)?;
        if !replace && new.child.is_some() {
            return Err(Errno::EEXIST);
        }
        let is_directory = self.node(moved).is_directory();
        if !is_directory && (old.has_slash || new.has_slash) {
            return Err(Errno::ENOTDIR);
        }
        if self.is_above(moved, new.directory) {
            return Err(Errno::EINVAL);
        }
        if new.child.is_some_and(|victim| self.is_above(victim, old.directory)) {
            return Err(Errno::ENOTEMPTY);
        }
        // Two names of one file: nothing happens, and both stay (rename(2)).
        if new.child == Some(moved) {
            return Ok(0);
        }
        self.may_remove(old.directory, moved, is_directory)?;
        match new.child {
            Some(victim) => self.may_remove(new.directory, victim, is_directory)?,
            None => self.may_add(new.directory)?,
        }
        if is_directory && old.directory != new.directory {
            self.may(moved, 2)?;
        }
        if [Some(moved), new.child].into_iter().flatten().any(|it| self.is_mount_point(it)) {
            return Err(Errno::EBUSY);
        }
        let mount = self.node(old.directory).mount;
        if !replace && !self.mounts[mount].options.supports_no_replace {
            return Err(Errno::EINVAL);
        }
        if let Some(victim) = new.child
            && is_directory
            && !self.directory(victim).is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.move_name(&old, &new, moved);
        Ok(0)
    }

    fn move_name(&mut self, old: &Found<'_>, new: &Found<'_>, moved: Number) {
        let gone =
            NameChange { directory: old.directory, name: entry_name(&old.name), inode: None };
        let come = NameChange {
            directory: new.directory,
            name: entry_name(&new.name),
            inode: Some(moved),
        };
        self.change_names([Some(gone), Some(come)]);
        if let Some(victim) = new.child {
            self.drop_name(new.directory, victim);
        }
        if self.node(moved).is_directory() && old.directory != new.directory {
            self.node_mut(old.directory).links -= 1;
            self.node_mut(new.directory).links += 1;
            self.directory_mut(moved).parent = new.directory;
        }
        self.touch_directory(old.directory);
        self.touch_directory(new.directory);
        let now = self.tick();
        self.node_mut(moved).attributes.changed = now;
    }

    /// Makes an inode with a name.
    pub(super) fn make(
        &mut self,
        at: At<'_>,
        kind: FileKind,
        mode: u32,
        body: Body,
    ) -> Result<Number, Errno> {
        let found = self.new_name(at, false)?;
        Ok(self.make_in(&found, kind, mode, body))
    }

    /// Makes an inode in a place that was found to be free.
    pub(super) fn make_in(
        &mut self,
        found: &Found<'_>,
        kind: FileKind,
        mode: u32,
        body: Body,
    ) -> Number {
        let mount = self.node(found.directory).mount;
        let number = self.new_inode(mount, kind, mode, body);
        self.inherit_group(found.directory, number);
        self.add_name(found, number);
        number
    }

    /// A place where a name can be made.
    fn new_name<'a>(&self, at: At<'a>, is_directory: bool) -> Result<Found<'a>, Errno> {
        let found = self.place(at)?;
        if found.last != Last::Normal || found.child.is_some() {
            return Err(Errno::EEXIST);
        }
        if found.has_slash && !is_directory {
            return Err(Errno::ENOENT);
        }
        self.may_change(found.directory)?;
        self.may_add(found.directory)?;
        Ok(found)
    }

    fn add_name(&mut self, found: &Found<'_>, number: Number) {
        if !self.node(number).is_directory() {
            self.node_mut(number).links += 1;
        }
        let name = entry_name(&found.name);
        let change = NameChange { directory: found.directory, name, inode: Some(number) };
        self.change_names([Some(change), None]);
        self.touch_directory(found.directory);
    }

    /// An inode loses a name.
    fn drop_name(&mut self, directory: Number, victim: Number) {
        let now = self.tick();
        let inode = self.node_mut(victim);
        inode.attributes.changed = now;
        if inode.is_directory() {
            inode.links = 0;
            self.node_mut(directory).links -= 1;
        } else {
            inode.links -= 1;
        }
        self.free_if_unused(victim);
    }

    /// A new file in a set-group-id directory belongs to the directory's group.
    pub(super) fn inherit_group(&mut self, directory: Number, number: Number) {
        let parent = &self.node(directory).attributes;
        if parent.mode & libc::S_ISGID != 0 {
            let group = parent.group;
            self.node_mut(number).attributes.group = group;
            self.node_mut(number).durable.group = group;
        }
    }

    fn touch_directory(&mut self, directory: Number) {
        let now = self.tick();
        let attributes = &mut self.node_mut(directory).attributes;
        (attributes.modified, attributes.changed) = (now, now);
    }

    /// `EROFS` where nothing can be changed.
    pub(super) fn may_change(&self, number: Number) -> Result<(), Errno> {
        let mount = &self.mounts[self.node(number).mount];
        if mount.options.is_read_only { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Whether a name can be added to a directory, which may have been removed.
    pub(super) fn may_add(&self, directory: Number) -> Result<(), Errno> {
        if self.node(directory).links == 0 {
            return Err(Errno::ENOENT);
        }
        self.may(directory, 3)
    }

    fn may_remove(
        &self,
        directory: Number,
        victim: Number,
        is_directory: bool,
    ) -> Result<(), Errno> {
        self.may(directory, 3)?;
        let parent = &self.node(directory).attributes;
        let inode = self.node(victim);
        let is_owner = [parent.owner, inode.attributes.owner].contains(&self.user);
        if parent.mode & libc::S_ISVTX != 0 && self.user != 0 && !is_owner {
            return Err(Errno::EPERM);
        }
        match (is_directory, inode.is_directory()) {
            (true, false) => Err(Errno::ENOTDIR),
            (false, true) => Err(Errno::EISDIR),
            _ => Ok(()),
        }
    }

    fn is_mount_point(&self, number: Number) -> bool {
        match &self.node(number).body {
            Body::Directory(directory) => directory.covered_by.is_some(),
            _ => false,
        }
    }

    /// Whether a directory is another, or above it.
    fn is_above(&self, number: Number, mut below: Number) -> bool {
        let root = self.mounts[self.node(below).mount].root;
        loop {
            if below == number {
                return true;
            }
            if below == root || self.inodes[below].is_none() {
                return false;
            }
            below = self.directory(below).parent;
        }
    }

    pub(super) fn read_link(&self, at: At<'_>) -> Result<Arc<[u8]>, Errno> {
        let number = match (at.path.is_empty(), at.directory) {
            (true, Some(descriptor)) => self.named_by(descriptor)?,
            (true, None) => self.current_directory,
            (false, _) => self.resolve(at, false)?,
        };
        match &self.node(number).body {
            Body::Link(content) => Ok(Arc::clone(content)),
            _ if at.path.is_empty() => Err(Errno::ENOENT),
            _ => Err(Errno::EINVAL),
        }
    }
}
