//! From names to inodes: how the kernel walks a path (`path_resolution(7)`, `openat2(2)`).

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

use super::inode::{Body, Number};
use super::world::{ROOT, World};
use crate::error::Errno;
use crate::limits::NAME_BYTES_MAX;

/// A path, and the descriptor of the directory that it is relative to; none is the current one.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) directory: Option<u32>,
    pub(super) path: &'a [u8],
}

/// What the last part of a path is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Last {
    /// A name.
    Normal,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There is none: the path is all slashes.
    Root,
}

/// Where a path leads: to a place in a directory, and to what is there.
#[derive(Clone, Debug)]
pub(super) struct Found<'a> {
    pub(super) directory: Number,
    pub(super) name: Cow<'a, [u8]>,
    pub(super) last: Last,
    /// Whether slashes follow the name, so that it must be a directory's.
    pub(super) has_slash: bool,
    /// What is there, before mounts are entered.
    pub(super) child: Option<Number>,
}

/// What restricts a walk, and how far it has come.
#[derive(Debug)]
struct Walk {
    resolve: u64,
    /// Where it started, which it may not leave if it is confined.
    start: Number,
    links: u32,
    /// Whether a file is to be made where nothing is: then no slash may follow a name, nor one
    /// that a symbolic link gives.
    creates: bool,
    /// Whether permissions are left alone: a test looks at the world.
    is_unchecked: bool,
}

pub(super) const BENEATH: u64 = 0x08;
pub(super) const NO_SYMLINKS: u64 = 0x04;
pub(super) const NO_CROSS_DEVICE: u64 = 0x01;

/// Symbolic links that one walk follows (`path_resolution(7)`).
const LINKS_MAX: u32 = 40;

impl<'a> At<'a> {
    /// A path relative to the current directory.
    pub(super) fn path(path: &'a [u8]) -> Self {
        Self { directory: None, path }
    }
}

impl World {
    /// Walks to the place that a path names, without following a symbolic link there. For what
    /// makes, moves and removes names.
    pub(super) fn place<'a>(&self, at: At<'a>) -> Result<Found<'a>, Errno> {
        let (mut walk, start) = self.begin(at, 0)?;
        let mut found = self.walk_parents(&mut walk, start, at.path)?;
        if found.last == Last::Normal {
            found.child = self.look_up(&walk, found.directory, &found.name)?;
        }
        Ok(found)
    }

    /// Walks to what a path names; a symbolic link there is followed if asked to, or if slashes
    /// follow its name.
    pub(super) fn walk<'a>(
        &self,
        at: At<'a>,
        follow: bool,
        resolve: u64,
    ) -> Result<Found<'a>, Errno> {
        let (mut walk, start) = self.begin(at, resolve)?;
        self.walk_on(&mut walk, start, at.path, follow)
    }

    /// Walks as [`World::walk`] does, to open what is there or to make it.
    pub(super) fn walk_to_create<'a>(
        &self,
        at: At<'a>,
        follow: bool,
        resolve: u64,
    ) -> Result<Found<'a>, Errno> {
        let (mut walk, start) = self.begin(at, resolve)?;
        walk.creates = true;
        self.walk_on(&mut walk, start, at.path, follow)
    }

    /// The inode that a path names; `ENOENT` if there is none.
    pub(super) fn resolve(&self, at: At<'_>, follow: bool) -> Result<Number, Errno> {
        let found = self.walk(at, follow, 0)?;
        self.reached(&found)
    }

    /// The inode that a walk led to, with mounts entered.
    pub(super) fn reached(&self, found: &Found<'_>) -> Result<Number, Errno> {
        let number = self.cross(found.child.ok_or(Errno::ENOENT)?);
        if found.has_slash && !self.node(number).is_directory() {
            return Err(Errno::ENOTDIR);
        }
        Ok(number)
    }

    /// Enters what is mounted on a directory.
    pub(super) fn cross(&self, mut number: Number) -> Number {
        while let Body::Directory(directory) = &self.node(number).body {
            let Some(mount) = directory.covered_by else { break };
            number = self.mounts[mount].root;
        }
        number
    }

    /// A path from the root, walked without checks of permission.
    pub(super) fn find_as_root(&self, path: &Path, follow: bool) -> Option<Number> {
        let at = At::path(path.as_os_str().as_bytes());
        let (mut walk, start) = self.begin(at, 0).ok()?;
        walk.is_unchecked = true;
        let found = self.walk_on(&mut walk, start, at.path, follow).ok()?;
        self.reached(&found).ok()
    }

    /// Permission to read (4), write (2) or search (1), as the mode gives it.
    pub(super) fn may(&self, number: Number, wanted: u32) -> Result<(), Errno> {
        let attributes = &self.node(number).attributes;
        let shift = match () {
            () if self.user == 0 => return Ok(()),
            () if self.user == attributes.owner => 6,
            () if self.user_group == attributes.group => 3,
            () => 0,
        };
        let is_allowed = attributes.mode >> shift & wanted == wanted;
        if is_allowed { Ok(()) } else { Err(Errno::EACCES) }
    }

    fn begin(&self, at: At<'_>, resolve: u64) -> Result<(Walk, Number), Errno> {
        if at.path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if at.path.len() >= usize::try_from(libc::PATH_MAX).unwrap_or(0) {
            return Err(Errno::ENAMETOOLONG);
        }
        let start = match at.directory {
            _ if at.path[0] == b'/' => {
                if resolve & BENEATH != 0 {
                    return Err(Errno::EXDEV);
                }
                ROOT
            }
            None => self.current_directory,
            Some(descriptor) => {
                let number = self.descriptors.get(&descriptor).ok_or(Errno::EBADF)?.inode;
                if !self.node(number).is_directory() {
                    return Err(Errno::ENOTDIR);
                }
                number
            }
        };
        let start = self.cross(start);
        Ok((Walk { resolve, start, links: 0, creates: false, is_unchecked: false }, start))
    }

    fn walk_on<'a>(
        &self,
        walk: &mut Walk,
        start: Number,
        path: &'a [u8],
        follow: bool,
    ) -> Result<Found<'a>, Errno> {
        let mut found = self.walk_parents(walk, start, path)?;
        if walk.creates && found.has_slash && found.last == Last::Normal {
            return Err(Errno::EISDIR);
        }
        if found.last != Last::Normal {
            found.child = Some(self.step(walk, found.directory, found.last)?);
            return Ok(found);
        }
        found.child = self.look_up(walk, found.directory, &found.name)?;
        let Some(child) = found.child else { return Ok(found) };
        match &self.node(child).body {
            Body::Link(content) if follow || found.has_slash => {
                let next = self.follow(walk, found.directory, content)?;
                let target = self.walk_on(walk, next, content, true)?;
                Ok(Found {
                    name: Cow::Owned(target.name.into_owned()),
                    has_slash: target.has_slash || found.has_slash,
                    ..target
                })
            }
            Body::Directory(_) => {
                self.check_crossing(walk, found.directory, child)?;
                Ok(found)
            }
            _ => Ok(found),
        }
    }

    /// Walks to the directory that the last part of a path is in.
    fn walk_parents<'a>(
        &self,
        walk: &mut Walk,
        start: Number,
        path: &'a [u8],
    ) -> Result<Found<'a>, Errno> {
        let mut directory = start;
        let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
        let found = |directory, last, name| Found {
            directory,
            name: Cow::Borrowed(name),
            last,
            has_slash: path.ends_with(b"/"),
            child: None,
        };
        while let Some(part) = parts.next() {
            let last = match part {
                b"." => Last::Dot,
                b".." => Last::DotDot,
                _ => Last::Normal,
            };
            if !self.node(directory).is_directory() {
                return Err(Errno::ENOTDIR);
            }
            self.may_search(walk, directory)?;
            if parts.peek().is_none() {
                return Ok(found(directory, last, part));
            }
            directory = match last {
                Last::Normal => self.descend(walk, directory, part)?,
                last => self.step(walk, directory, last)?,
            };
        }
        Ok(found(directory, Last::Root, b"/"))
    }

    /// Goes through a name in the middle of a path.
    fn descend(&self, walk: &mut Walk, directory: Number, name: &[u8]) -> Result<Number, Errno> {
        let child = self.look_up(walk, directory, name)?.ok_or(Errno::ENOENT)?;
        match &self.node(child).body {
            Body::Link(content) => {
                let next = self.follow(walk, directory, content)?;
                let creates = std::mem::replace(&mut walk.creates, false);
                let target = self.walk_on(walk, next, content, true)?;
                walk.creates = creates;
                self.reached(&target)
            }
            _ => self.check_crossing(walk, directory, child),
        }
    }

    fn look_up(
        &self,
        walk: &Walk,
        directory: Number,
        name: &[u8],
    ) -> Result<Option<Number>, Errno> {
        let Body::Directory(entries) = &self.node(directory).body else {
            return Err(Errno::ENOTDIR);
        };
        self.may_search(walk, directory)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(entries.find(name))
    }

    fn may_search(&self, walk: &Walk, directory: Number) -> Result<(), Errno> {
        if walk.is_unchecked { Ok(()) } else { self.may(directory, 1) }
    }

    /// Where the content of a symbolic link is to be walked from.
    fn follow(&self, walk: &mut Walk, directory: Number, content: &[u8]) -> Result<Number, Errno> {
        walk.links += 1;
        if walk.links > LINKS_MAX || walk.resolve & NO_SYMLINKS != 0 {
            return Err(Errno::ELOOP);
        }
        if !content.starts_with(b"/") {
            return Ok(directory);
        }
        if walk.resolve & BENEATH != 0 {
            return Err(Errno::EXDEV);
        }
        self.check_device(walk, directory, self.cross(ROOT))
    }

    /// `.`, `..` or nothing.
    fn step(&self, walk: &Walk, directory: Number, last: Last) -> Result<Number, Errno> {
        if last != Last::DotDot {
            return Ok(directory);
        }
        if walk.resolve & BENEATH != 0 && directory == walk.start {
            return Err(Errno::EXDEV);
        }
        let mut here = directory;
        // Leaves what is mounted here before it goes up.
        while let Some(covers) = self.mounts[self.node(here).mount].covers {
            if self.mounts[self.node(here).mount].root != here {
                break;
            }
            here = covers;
        }
        let parent = self.directory(here).parent;
        if self.inodes[parent].is_none() {
            return Err(Errno::ENOENT);
        }
        self.check_device(walk, directory, self.cross(parent))
    }

    fn check_crossing(&self, walk: &Walk, from: Number, child: Number) -> Result<Number, Errno> {
        self.check_device(walk, from, self.cross(child))
    }

    fn check_device(&self, walk: &Walk, from: Number, to: Number) -> Result<Number, Errno> {
        if walk.resolve & NO_CROSS_DEVICE != 0 && self.node(from).mount != self.node(to).mount {
            return Err(Errno::EXDEV);
        }
        Ok(to)
    }
}
