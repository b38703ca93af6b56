//! Files in memory: what the operations of a simulation work on.
//!
//! A [`SimulatedWorld`] is shared by its clones, so that a test can build a tree, give it to one
//! processor or several, and look at what has become of it. The calls of the file system proper are
//! in `walk.rs`, `names.rs`, `open.rs`, `data.rs` and `attributes.rs`; each gives the answers that
//! Linux 6.18 gives on ext4.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::libc;

use super::attributes::as_kept;
use super::content::PAGE_BYTES;
use super::inode::{Attributes, Body, Directory, EntryName, Inode, Number};
use super::journal::Journal;
use super::network::Network;
use super::open::OpenFile;
use super::walk::At;
use super::{Fault, content::Content};
use crate::error::Errno;
use crate::operation::{FileKind, FileStatus, FileTimes, Released};
use crate::random::Random;
use crate::units::WallTime;

/// File systems in memory, with everything that is mounted. Clones share them.
#[derive(Clone)]
pub struct SimulatedWorld(Arc<Mutex<World>>);

/// What a simulated file system can do. The default is like ext4.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The magic number that `statfs(2)` tells.
    pub magic: u64,
    /// Room for data, in bytes; directories and names take none.
    pub capacity_bytes: u64,
    /// What memory, and offsets with lengths, of direct I/O must be aligned to; none refuses it.
    pub direct_alignment: Option<(u32, u32)>,
    /// Whether files can share extents (`ioctl_ficlone(2)`).
    pub supports_clone: bool,
    /// Whether a rename can be told not to replace.
    pub supports_no_replace: bool,
    /// Whether room can be reserved, and holes dug.
    pub supports_allocate: bool,
    /// Whether files have extended attributes.
    pub supports_attributes: bool,
    /// Whether data can be moved and leave nothing in the page cache (RWF_DONTCACHE).
    pub supports_uncached: bool,
    /// Whether directory entries tell what they are.
    pub tells_entry_kinds: bool,
    /// Whether nothing can be changed.
    pub is_read_only: bool,
    /// Whether the number of a file that is gone is given to the next one.
    pub reuses_inodes: bool,
}

/// One file of a tree, as [`SimulatedWorld::tree`] describes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TreeEntry {
    /// What it is.
    pub status: FileStatus,
    /// The bytes of a regular file, or of what a symbolic link says.
    pub content: Vec<u8>,
    /// Its extended attributes.
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What is behind a world.
#[derive(Clone)]
pub(super) struct World {
    pub(super) inodes: Vec<Option<Box<Inode>>>,
    pub(super) mounts: Vec<Mount>,
    pub(super) descriptors: BTreeMap<u32, OpenFile>,
    pub(super) next_descriptor: u32,
    pub(super) released: Released,
    pub(super) network: Network,
    pub(super) journal: Journal,
    /// Virtual nanoseconds since the start.
    pub(super) clock: u64,
    pub(super) user: u32,
    pub(super) user_group: u32,
    pub(super) umask: u32,
    pub(super) current_directory: Number,
}

/// A file system.
#[derive(Clone, Debug)]
pub(super) struct Mount {
    pub(super) options: MountOptions,
    pub(super) root: Number,
    /// The directory that it covers; none for the root of all.
    pub(super) covers: Option<Number>,
    /// Free pages.
    pub(super) room: u64,
    /// How often a write-back of any of its files has failed.
    pub(super) losses: u64,
}

/// The root directory of the first mount.
pub(super) const ROOT: Number = 0;
/// The calendar when a simulation starts: 2026-01-01 00:00:00 UTC.
const EPOCH_SECONDS: i64 = 1_767_225_600;

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            magic: 0xef53,
            capacity_bytes: 1 << 40,
            direct_alignment: Some((512, 512)),
            supports_clone: false,
            supports_no_replace: true,
            supports_allocate: true,
            supports_attributes: true,
            supports_uncached: true,
            tells_entry_kinds: true,
            is_read_only: false,
            reuses_inodes: false,
        }
    }
}

impl Default for SimulatedWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedWorld {
    /// One empty file system like ext4, seen by the super-user with a umask of 022.
    #[must_use]
    pub fn new() -> Self {
        Self::with_root(MountOptions::default())
    }

    /// One empty file system of these options.
    #[must_use]
    pub fn with_root(options: MountOptions) -> Self {
        Self::of(World::new(options))
    }

    pub(super) fn of(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, World> {
        let mut world = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        world.close_released();
        world
    }

    /// Mounts an empty file system on a directory, which is made if it is missing.
    ///
    /// # Panics
    ///
    /// If the directory can't be made.
    pub fn mount(&self, path: impl AsRef<Path>, options: MountOptions) {
        let path = path.as_ref();
        if self.status(path).is_none() {
            self.add_directory(path);
        }
        let mut world = self.lock();
        let covers = world.must_find(path);
        let mount = world.mounts.len();
        let room = options.capacity_bytes / PAGE_BYTES;
        let parent = world.directory(covers).parent;
        world.mounts.push(Mount { options, root: 0, covers: Some(covers), room, losses: 0 });
        let root = world.new_directory(mount, parent, 0o755);
        world.mounts[mount].root = root;
        world.node_mut(root).pins += 1;
        world.directory_mut(covers).covered_by = Some(mount);
    }

    /// Changes what the file system at `path` can do: makes it read-only, say.
    ///
    /// # Panics
    ///
    /// If there is no such path.
    pub fn remount(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut MountOptions)) {
        let mut world = self.lock();
        let found = world.must_find(path.as_ref());
        let mount = world.node(found).mount;
        change(&mut world.mounts[mount].options);
    }

    /// Makes a directory of mode 0755, and those above it that are missing.
    ///
    /// What is built with this and the other `add_` functions counts as synced.
    ///
    /// # Panics
    ///
    /// If something else is in the way.
    pub fn add_directory(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        let mut missing: Vec<&Path> =
            path.ancestors().take_while(|path| self.status(path).is_none()).collect();
        missing.retain(|path| path.file_name().is_some());
        while let Some(path) = missing.pop() {
            self.build(path, |world, at| world.make_directory(at, 0o755));
        }
    }

    /// Makes a file of mode 0644 with this content, or replaces the content of one.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    pub fn add_file(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        self.add_sparse_file(path, content.as_ref().len() as u64, &[(0, content.as_ref())]);
    }

    /// Makes a file of this length that has bytes at some offsets and holes elsewhere.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    pub fn add_sparse_file(&self, path: impl AsRef<Path>, length: u64, pieces: &[(u64, &[u8])]) {
        self.build(path.as_ref(), |world, at| {
            world.make_node(at, libc::S_IFREG | 0o644, 0).or_else(|errno| match errno {
                Errno::EEXIST => Ok(0),
                errno => Err(errno),
            })
        });
        self.alter(path.as_ref(), |world, number| {
            let (content, room) = world.content_and_room(number);
            content.truncate(0, room);
            for (offset, bytes) in pieces {
                let written = content.write(*offset, bytes, true, room);
                assert_eq!(written, bytes.len() as u64, "there is no room for the file");
            }
            content.truncate(length, room);
        });
    }

    /// Makes a symbolic link.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    pub fn add_symlink(&self, path: impl AsRef<Path>, content: impl AsRef<Path>) {
        let content = content.as_ref().as_os_str().as_bytes();
        self.build(path.as_ref(), |world, at| world.symbolic_link(content, at));
    }

    /// Makes a FIFO, a socket or a device node of mode 0644.
    ///
    /// # Panics
    ///
    /// If it can't be made.
    pub fn add_node(&self, path: impl AsRef<Path>, kind: FileKind, device: u64) {
        let mode = u32::from(kind.entry()) << 12 | 0o644;
        self.build(path.as_ref(), |world, at| world.make_node(at, mode, device));
    }

    /// Gives a file one more name.
    ///
    /// # Panics
    ///
    /// If it can't be given.
    pub fn add_link(&self, existing: impl AsRef<Path>, path: impl AsRef<Path>) {
        let existing = existing.as_ref().as_os_str().as_bytes();
        self.build(path.as_ref(), |world, at| world.link(At::path(existing), at, false));
    }

    /// Sets the mode of what is at `path`; a symbolic link is not followed.
    ///
    /// # Panics
    ///
    /// If there is nothing.
    pub fn set_mode(&self, path: impl AsRef<Path>, mode: u32) {
        self.alter(path.as_ref(), |world, number| {
            world.node_mut(number).attributes.mode = mode & 0o7777;
        });
    }

    /// Sets owner and group of what is at `path`; a symbolic link is not followed.
    ///
    /// # Panics
    ///
    /// If there is nothing.
    pub fn set_owner(&self, path: impl AsRef<Path>, owner: u32, group: u32) {
        self.alter(path.as_ref(), |world, number| {
            let attributes = &mut world.node_mut(number).attributes;
            (attributes.owner, attributes.group) = (owner, group);
        });
    }

    /// Sets the times of what is at `path`, as far as ext4 can keep them (the years 1901 to 2446); a
    /// symbolic link is not followed.
    ///
    /// # Panics
    ///
    /// If there is nothing.
    pub fn set_times(&self, path: impl AsRef<Path>, times: FileTimes) {
        self.alter(path.as_ref(), |world, number| {
            let attributes = &mut world.node_mut(number).attributes;
            attributes.accessed = as_kept(times.accessed);
            attributes.modified = as_kept(times.modified);
        });
    }

    /// Sets an extended attribute of what is at `path`; a symbolic link is not followed.
    ///
    /// # Panics
    ///
    /// If there is nothing.
    pub fn set_attribute(
        &self,
        path: impl AsRef<Path>,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) {
        self.alter(path.as_ref(), |world, number| {
            let extended = &mut world.node_mut(number).attributes.extended;
            extended.insert(name.as_ref().to_vec(), value.as_ref().to_vec());
        });
    }

    /// Works as another user from now on: permissions are checked unless it is 0.
    pub fn set_user(&self, user: u32, group: u32) {
        let mut world = self.lock();
        (world.user, world.user_group) = (user, group);
    }

    /// Makes new files with another umask from now on.
    pub fn set_umask(&self, umask: u32) {
        self.lock().umask = umask & 0o777;
    }

    /// Makes another directory the current one.
    ///
    /// # Panics
    ///
    /// If there is no such directory.
    pub fn set_current_directory(&self, path: impl AsRef<Path>) {
        let mut world = self.lock();
        world.current_directory = world.must_find(path.as_ref());
    }

    /// The status of what is at `path`; a symbolic link is not followed.
    #[must_use]
    pub fn status(&self, path: impl AsRef<Path>) -> Option<FileStatus> {
        let world = self.lock();
        let number = world.find_as_root(path.as_ref(), false)?;
        Some(world.status_of(number))
    }

    /// The content of a regular file; symbolic links are followed.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let world = self.lock();
        match &world.node(world.find_as_root(path.as_ref(), true)?).body {
            Body::Regular(content) => Some(content.to_vec()),
            _ => None,
        }
    }

    /// The value of an extended attribute.
    #[must_use]
    pub fn attribute(&self, path: impl AsRef<Path>, name: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let world = self.lock();
        let number = world.find_as_root(path.as_ref(), false)?;
        world.node(number).attributes.extended.get(name.as_ref()).cloned()
    }

    /// Everything below a directory, by its whole path; mounts are entered.
    #[must_use]
    pub fn tree(&self, path: impl AsRef<Path>) -> BTreeMap<PathBuf, TreeEntry> {
        let world = self.lock();
        let mut tree = BTreeMap::new();
        let Some(root) = world.find_as_root(path.as_ref(), true) else { return tree };
        let mut directories = vec![(path.as_ref().to_owned(), root)];
        while let Some((path, number)) = directories.pop() {
            let Body::Directory(directory) = &world.node(number).body else { continue };
            for (name, child) in directory.sorted() {
                let child = world.cross(child);
                let path = path.join(std::ffi::OsStr::from_bytes(name));
                tree.insert(path.clone(), world.tree_entry(child));
                directories.push((path, child));
            }
        }
        tree
    }

    /// The tree below a directory as text, a line a file: path, kind, mode, owner, length. For
    /// messages of tests.
    #[must_use]
    pub fn describe(&self, path: impl AsRef<Path>) -> String {
        let tree = self.tree(path);
        tree.iter().map(|(path, entry)| format!("{}: {entry}\n", path.display())).collect()
    }

    /// The regular files at or below a path, by their whole paths.
    #[must_use]
    pub fn files(&self, path: impl AsRef<Path>) -> Vec<PathBuf> {
        let path = path.as_ref();
        match self.status(path).map(|status| status.kind) {
            Some(FileKind::Regular) => vec![path.to_owned()],
            Some(FileKind::Directory) => {
                let tree = self.tree(path).into_iter();
                let files = tree.filter(|(_, entry)| entry.status.kind == FileKind::Regular);
                files.map(|(path, _)| path).collect()
            }
            _ => Vec::new(),
        }
    }

    /// How many descriptors are open.
    #[must_use]
    pub fn open_descriptors(&self) -> usize {
        let world = self.lock();
        world.descriptors.len() + world.network.count()
    }

    /// What is open, by path where it has one: for messages of tests.
    #[must_use]
    pub fn open_files(&self) -> Vec<String> {
        let world = self.lock();
        let open: BTreeSet<Number> = world.descriptors.values().map(|it| it.inode).collect();
        let files = open.into_iter().map(|number| format!("{:?}", world.path_of(number)));
        files.chain(std::iter::repeat_n("a socket".into(), world.network.count())).collect()
    }

    /// Free bytes of the file system at `path`; none if there is no such path.
    #[must_use]
    pub fn available_bytes(&self, path: impl AsRef<Path>) -> Option<u64> {
        let world = self.lock();
        let number = world.find_as_root(path.as_ref(), true)?;
        Some(world.mounts[world.node(number).mount].room * PAGE_BYTES)
    }

    /// The calendar clock.
    #[must_use]
    pub fn now(&self) -> WallTime {
        self.lock().wall_time()
    }

    /// Lets time pass in which nothing happens.
    pub fn pass(&self, duration: Duration) {
        self.lock().clock += u64::try_from(duration.as_nanos()).unwrap_or(0);
    }

    /// Removes a file, a link or an empty directory, as another process would.
    ///
    /// # Panics
    ///
    /// If it can't be removed.
    pub fn remove(&self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        let is_directory =
            self.status(path).is_some_and(|status| status.kind == FileKind::Directory);
        let removed = self.as_root(|world| world.unlink(at(path), is_directory));
        removed.unwrap_or_else(|errno| panic!("can't remove {}: {errno}", path.display()));
    }

    /// Gives a file or a directory another name, as another process would.
    ///
    /// # Panics
    ///
    /// If it can't be given.
    pub fn rename(&self, old: impl AsRef<Path>, new: impl AsRef<Path>) {
        let (old, new) = (old.as_ref(), new.as_ref());
        let renamed = self.as_root(|world| world.rename(at(old), at(new), false));
        renamed.unwrap_or_else(|errno| panic!("can't rename {}: {errno}", old.display()));
    }

    /// Changes a regular file as another process would, in the way that the `Source…` fault says;
    /// false if it can't be changed so.
    pub fn change(&self, path: impl AsRef<Path>, fault: Fault, random: &mut Random) -> bool {
        let path = path.as_ref();
        if fault == Fault::SourceReplacedByLink {
            let replaced = self.as_root(|world| {
                world.unlink(at(path), false)?;
                world.symbolic_link(b"/elsewhere", at(path))
            });
            return replaced.is_ok();
        }
        let mut world = self.lock();
        let Some(number) = world.find_as_root(path, false) else { return false };
        if !world.node(number).is_regular() {
            return false;
        }
        let now = world.tick();
        let (content, room) = world.content_and_room(number);
        let length = content.length();
        match fault {
            Fault::SourceShrunk if length > 0 => content.truncate(random.below(length), room),
            Fault::SourceGrown => {
                let bytes = vec![0xee; usize::try_from(1 + random.below(5000)).unwrap_or(1)];
                if content.write(length, &bytes, false, room) == 0 {
                    return false;
                }
            }
            Fault::SourceRewritten if length > 0 => {
                let offset = random.below(length);
                let bytes = vec![0xee; usize::try_from((length - offset).min(700)).unwrap_or(1)];
                if content.write(offset, &bytes, false, room) == 0 {
                    return false;
                }
            }
            _ => return false,
        }
        let attributes = &mut world.node_mut(number).attributes;
        (attributes.modified, attributes.changed) = (now, now);
        true
    }

    /// The device fails while the kernel writes by itself what is dirty on the file system at `path`:
    /// that is lost, counts as written, and is told once to each description that is open.
    ///
    /// # Panics
    ///
    /// If there is no such path.
    pub fn fail_write_back(&self, path: impl AsRef<Path>) {
        let mut world = self.lock();
        let number = world.must_find(path.as_ref());
        let mount = world.node(number).mount;
        world.lose_dirty_pages(|_, inode| inode.mount == mount);
    }

    /// What a power cut now leaves: what was synced, and of the rest some, as the seed decides.
    ///
    /// Lost or kept are, for each file that was not synced, each sector of 512 bytes, the length
    /// and the attributes. Names come and go in the order in which they were changed, as with a
    /// journal: of the changes that no sync of their directory forced, the last ones are lost. A
    /// rename is lost whole or kept whole. A sync of a file does not keep its name: that takes a
    /// sync of its directory (`fsync(2)`).
    ///
    /// No descriptor is open in the world that is left.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        Self::of(self.lock().after_crash(&mut Random::new(seed)))
    }

    /// What another process finds after this one was killed now: everything that was done.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut world = self.lock().clone();
        world.released = Released::default();
        world.network = Network::default();
        for number in world.descriptors.keys().copied().collect::<Vec<_>>() {
            world.close(number);
        }
        Self::of(world)
    }

    /// Calls a function of the world as the super-user.
    fn as_root<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        let user = (world.user, world.user_group, world.umask);
        (world.user, world.user_group, world.umask) = (0, 0, 0o022);
        let result = act(&mut world);
        (world.user, world.user_group, world.umask) = user;
        result
    }

    /// Makes something durable at `path`, and the directories above it.
    fn build(&self, path: &Path, make: impl FnOnce(&mut World, At<'_>) -> Result<u32, Errno>) {
        if let Some(parent) = path.parent().filter(|parent| self.status(parent).is_none()) {
            self.add_directory(parent);
        }
        let made = self.as_root(|world| make(world, at(path)));
        made.unwrap_or_else(|errno| panic!("can't make {}: {errno}", path.display()));
        self.alter(path, |_, _| ());
    }

    /// Changes what is at `path` and makes it durable.
    fn alter(&self, path: &Path, change: impl FnOnce(&mut World, Number)) {
        let mut world = self.lock();
        let number = world
            .find_as_root(path, false)
            .unwrap_or_else(|| panic!("there is no {}", path.display()));
        change(&mut world, number);
        world.sync_inode(number, true);
        world.force_names(|_| true);
    }
}

impl World {
    pub(super) fn new(options: MountOptions) -> Self {
        let room = options.capacity_bytes / PAGE_BYTES;
        let mut world = Self {
            inodes: Vec::new(),
            mounts: vec![Mount { options, root: ROOT, covers: None, room, losses: 0 }],
            descriptors: BTreeMap::new(),
            next_descriptor: 0,
            released: Released::default(),
            network: Network::default(),
            journal: Journal::default(),
            clock: 0,
            user: 0,
            user_group: 0,
            umask: 0o022,
            current_directory: ROOT,
        };
        let root = world.new_directory(0, ROOT, 0o755);
        assert_eq!(root, ROOT);
        world.node_mut(root).pins += 1;
        world
    }

    /// The calendar clock.
    pub(super) fn wall_time(&self) -> WallTime {
        let seconds = i64::try_from(self.clock / 1_000_000_000).unwrap_or(i64::MAX);
        let nanoseconds = u32::try_from(self.clock % 1_000_000_000).unwrap_or(0);
        WallTime { seconds: EPOCH_SECONDS.saturating_add(seconds), nanoseconds }
    }

    /// Lets a nanosecond pass, so that no two changes happen at the same time.
    pub(super) fn tick(&mut self) -> WallTime {
        self.clock += 1;
        self.wall_time()
    }

    pub(super) fn node(&self, number: Number) -> &Inode {
        self.inodes[number].as_ref().expect("an inode that is referred to exists")
    }

    pub(super) fn node_mut(&mut self, number: Number) -> &mut Inode {
        self.inodes[number].as_mut().expect("an inode that is referred to exists")
    }

    pub(super) fn directory(&self, number: Number) -> &Directory {
        match &self.node(number).body {
            Body::Directory(directory) => directory,
            _ => unreachable!("inode {number} was checked to be a directory"),
        }
    }

    pub(super) fn directory_mut(&mut self, number: Number) -> &mut Directory {
        match &mut self.node_mut(number).body {
            Body::Directory(directory) => directory,
            _ => unreachable!("inode {number} was checked to be a directory"),
        }
    }

    /// A regular file's content, and the free pages of its file system.
    pub(super) fn content_and_room(&mut self, number: Number) -> (&mut Content, &mut u64) {
        let inode = self.inodes[number].as_mut().expect("an inode that is referred to exists");
        let room = &mut self.mounts[inode.mount].room;
        match &mut inode.body {
            Body::Regular(content) => (content, room),
            _ => unreachable!("inode {number} was checked to be a regular file"),
        }
    }

    /// An inode without a name.
    pub(super) fn new_inode(
        &mut self,
        mount: usize,
        kind: FileKind,
        mode: u32,
        body: Body,
    ) -> Number {
        let now = self.tick();
        let attributes = Attributes {
            kind,
            mode,
            owner: self.user,
            group: self.user_group,
            accessed: now,
            modified: now,
            changed: now,
            ..Attributes::default()
        };
        let inode = Inode {
            mount,
            durable: attributes.clone(),
            attributes,
            links: 0,
            opens: 0,
            pins: 0,
            is_gone: false,
            losses: 0,
            lock: None,
            body,
        };
        let free = match self.mounts[mount].options.reuses_inodes {
            true => self.inodes.iter().position(Option::is_none),
            false => None,
        };
        let number = free.unwrap_or(self.inodes.len());
        if free.is_none() {
            self.inodes.push(None);
        }
        self.inodes[number] = Some(Box::new(inode));
        number
    }

    /// A directory that no name refers to yet; it counts its own.
    pub(super) fn new_directory(&mut self, mount: usize, parent: Number, mode: u32) -> Number {
        let body = Body::Directory(Directory::below(parent));
        let number = self.new_inode(mount, FileKind::Directory, mode, body);
        self.node_mut(number).links = 2;
        number
    }

    /// Frees an inode that nothing refers to any more.
    ///
    /// Its room is free once the last name and the last descriptor are gone; what a power cut may
    /// bring back stays in memory for longer.
    pub(super) fn free_if_unused(&mut self, number: Number) {
        let Some(inode) = &mut self.inodes[number] else { return };
        if inode.links > 0 || inode.opens > 0 {
            return;
        }
        if !inode.is_gone {
            inode.is_gone = true;
            if let Body::Regular(content) = &inode.body {
                self.mounts[inode.mount].room += content.page_count();
            }
        }
        if inode.pins > 0 {
            return;
        }
        let inode = self.inodes[number].take().expect("it was there");
        if let Body::Directory(directory) = inode.body {
            for child in directory.durable.into_values() {
                self.unpin(child);
            }
        }
    }

    /// Gives up one reference of what may reach stable storage.
    pub(super) fn unpin(&mut self, number: Number) {
        self.node_mut(number).pins -= 1;
        self.free_if_unused(number);
    }

    fn must_find(&self, path: &Path) -> Number {
        self.find_as_root(path, true).unwrap_or_else(|| panic!("there is no {}", path.display()))
    }

    fn tree_entry(&self, number: Number) -> TreeEntry {
        let inode = self.node(number);
        let content = match &inode.body {
            Body::Regular(content) => content.to_vec(),
            Body::Link(content) => content.to_vec(),
            Body::Directory(_) | Body::Pipe(_) | Body::Node => Vec::new(),
        };
        let attributes = inode.attributes.extended.clone();
        TreeEntry { status: self.status_of(number), content, attributes }
    }

    /// A path of an inode, if it has one.
    fn path_of(&self, wanted: Number) -> Option<PathBuf> {
        let mut directories: Vec<(Vec<u8>, Number)> = vec![(Vec::new(), ROOT)];
        while let Some((path, number)) = directories.pop() {
            if number == wanted {
                return Some(PathBuf::from(std::ffi::OsString::from_vec(path)));
            }
            let Body::Directory(directory) = &self.node(number).body else { continue };
            for (name, child) in directory.sorted() {
                directories.push(([&path[..], b"/", name].concat(), self.cross(child)));
            }
        }
        None
    }
}

fn at(path: &Path) -> At<'_> {
    At::path(path.as_os_str().as_bytes())
}

/// A name of a directory entry.
pub(super) fn entry_name(name: &[u8]) -> EntryName {
    name.into()
}

impl fmt::Display for TreeEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileStatus { kind, mode, links, owner, group, size_bytes, .. } = self.status;
        write!(f, "{kind:?} {mode:04o} {owner}:{group}, {links} links, {size_bytes} bytes")
    }
}

impl fmt::Debug for SimulatedWorld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedWorld")
    }
}
