//! A file system that lies: in memory, served by this process (FUSE), and wrong in the way that a
//! test asks for.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, umount2};

/// Nothing is remembered by the kernel, so that each question is answered anew.
const KEPT: Duration = Duration::ZERO;

/// What is wrong with every regular file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lies {
    /// What is added to the size that is told; and whether it is told to be 0.
    pub(crate) size_added: i64,
    pub(crate) says_empty: bool,
    /// No room is said to be taken, as of a file that is one hole.
    pub(crate) says_no_blocks: bool,
    pub(crate) map: Map,
    /// Reads and writes are not remembered by the kernel either, and go no further than this.
    pub(crate) is_direct: bool,
    pub(crate) transfer_bytes_max: Option<usize>,
    /// A read that comes to this byte fails.
    pub(crate) read_fails_at: Option<u64>,
    pub(crate) write_fails_at: Option<(u64, Errno)>,
    /// Closing fails (`close(2)`: what could not be written earlier).
    pub(crate) flush_fails: Option<Errno>,
    pub(crate) fsync_fails: Option<Errno>,
    pub(crate) rename_fails: Option<Errno>,
}

/// What SEEK_DATA and SEEK_HOLE are answered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Map {
    /// All is data.
    #[default]
    True,
    /// All is a hole.
    AllHole,
    /// Only the first 4096 bytes are data.
    FirstBlock,
    /// Data and holes are where the first question was about, whatever is asked.
    Stuck,
    /// Holes start before the byte that was asked about.
    Backward,
    /// Neither is ever found, wherever one looks.
    Nowhere,
}

/// The file system; it is taken away when dropped.
pub(crate) struct LyingFileSystem {
    path: PathBuf,
    nodes: Arc<Mutex<Nodes>>,
    session: Option<BackgroundSession>,
}

impl LyingFileSystem {
    /// Mounts it, with these files: for a thread in a mount namespace of its own.
    pub(crate) fn mount(path: &Path, lies: Lies, files: &[(&str, &[u8])]) -> Self {
        let mut nodes = Nodes::new();
        for (name, content) in files {
            let number = nodes.make(1, OsStr::new(name), FileType::RegularFile, 0o644);
            nodes.get_mut(number).unwrap().content = content.to_vec();
        }
        let nodes = Arc::new(Mutex::new(nodes));
        let mut config = Config::default();
        config.mount_options.push(MountOption::FSName("lying".into()));
        let server = Server { nodes: Arc::clone(&nodes), lies };
        let session = fuser::spawn_mount(server, path, &config).unwrap();
        Self { path: path.to_owned(), nodes, session: Some(session) }
    }

    /// What a file really holds, by its path below.
    pub(crate) fn content(&self, path: &str) -> Option<Vec<u8>> {
        let nodes = self.nodes.lock().unwrap();
        let number = path
            .split('/')
            .try_fold(1, |number, name| nodes.get(number)?.entries.get(OsStr::new(name)).copied());
        nodes.get(number?).map(|node| node.content.clone())
    }

    /// All names that are there, in any directory.
    pub(crate) fn names(&self) -> Vec<OsString> {
        let nodes = self.nodes.lock().unwrap();
        nodes.all.values().flat_map(|node| node.entries.keys().cloned()).collect()
    }
}

impl Drop for LyingFileSystem {
    fn drop(&mut self) {
        // Also if somebody still has a file open there: then the server ends with them.
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        drop(self.session.take());
    }
}

struct Node {
    kind: FileType,
    content: Vec<u8>,
    entries: BTreeMap<OsString, u64>,
    mode: u16,
    owner: (u32, u32),
    links: u32,
    accessed: SystemTime,
    modified: SystemTime,
    changed: SystemTime,
    /// Where the first question for data was about.
    asked: Option<i64>,
}

struct Nodes {
    all: BTreeMap<u64, Node>,
    next: u64,
}

impl Nodes {
    fn new() -> Self {
        let mut nodes = Self { all: BTreeMap::new(), next: 1 };
        nodes.insert(FileType::Directory, 0o755);
        nodes
    }

    fn insert(&mut self, kind: FileType, mode: u16) -> u64 {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000 + self.next);
        let node = Node {
            kind,
            content: Vec::new(),
            entries: BTreeMap::new(),
            mode,
            owner: (0, 0),
            links: 1,
            accessed: now,
            modified: now,
            changed: now,
            asked: None,
        };
        let number = self.next;
        self.all.insert(number, node);
        self.next += 1;
        number
    }

    fn make(&mut self, parent: u64, name: &OsStr, kind: FileType, mode: u16) -> u64 {
        let number = self.insert(kind, mode);
        self.all.get_mut(&parent).unwrap().entries.insert(name.to_owned(), number);
        number
    }

    fn get(&self, number: u64) -> Option<&Node> {
        self.all.get(&number)
    }

    fn get_mut(&mut self, number: u64) -> Result<&mut Node, Errno> {
        self.all.get_mut(&number).ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        let found = self.get(parent).and_then(|node| node.entries.get(name).copied());
        found.ok_or(Errno::ENOENT)
    }

    /// A new one, or EEXIST.
    fn create(
        &mut self,
        parent: u64,
        name: &OsStr,
        kind: FileType,
        mode: u32,
    ) -> Result<u64, Errno> {
        if self.child(parent, name).is_ok() {
            return Err(Errno::EEXIST);
        }
        let mode = u16::try_from(mode & 0o7777).unwrap();
        Ok(self.make(parent, name, kind, mode))
    }

    fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let number = self.child(parent, name)?;
        if !self.get_mut(number)?.entries.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.get_mut(number)?.links -= 1;
        self.get_mut(parent)?.entries.remove(name);
        Ok(())
    }

    fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        let number = self.child(from.0, from.1)?;
        if self.child(to.0, to.1).is_ok() {
            if flags.contains(RenameFlags::RENAME_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            self.remove(to.0, to.1)?;
        }
        self.get_mut(from.0)?.entries.remove(from.1);
        self.get_mut(to.0)?.entries.insert(to.1.to_owned(), number);
        Ok(())
    }
}

struct Server {
    nodes: Arc<Mutex<Nodes>>,
    lies: Lies,
}

impl Server {
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap()
    }

    /// What is told of a file.
    fn told(&self, nodes: &Nodes, number: u64) -> Result<FileAttr, Errno> {
        let node = nodes.get(number).ok_or(Errno::ENOENT)?;
        let is_file = node.kind == FileType::RegularFile;
        let length = node.content.len() as u64;
        let size = match is_file {
            true if self.lies.says_empty => 0,
            true => length.saturating_add_signed(self.lies.size_added),
            false => 4096,
        };
        let has_blocks = !(is_file && self.lies.says_no_blocks);
        let perm = node.mode;
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: if has_blocks { length.div_ceil(512) } else { 0 },
            atime: node.accessed,
            mtime: node.modified,
            ctime: node.changed,
            crtime: UNIX_EPOCH,
            kind: node.kind,
            perm,
            nlink: node.links,
            uid: node.owner.0,
            gid: node.owner.1,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn open_flags(&self) -> FopenFlags {
        match self.lies.is_direct {
            true => FopenFlags::FOPEN_DIRECT_IO,
            false => FopenFlags::empty(),
        }
    }

    /// How much is moved when so much is asked for.
    fn moved(&self, bytes: usize) -> usize {
        self.lies.transfer_bytes_max.map_or(bytes, |max| max.min(bytes))
    }

    fn seek(&self, number: u64, offset: i64, whence: i32) -> Result<i64, Errno> {
        let mut nodes = self.nodes();
        let size = i64::try_from(self.told(&nodes, number)?.size).unwrap();
        let node = nodes.get_mut(number)?;
        let asked = *node.asked.get_or_insert(offset);
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let is_data = whence == libc::SEEK_DATA;
        match self.lies.map {
            Map::True => Ok(if is_data { offset } else { size }),
            Map::AllHole if is_data => Err(Errno::ENXIO),
            Map::AllHole => Ok(offset),
            Map::FirstBlock if is_data && offset >= 4096 => Err(Errno::ENXIO),
            Map::FirstBlock if is_data => Ok(offset),
            Map::FirstBlock => Ok(offset.max(4096)),
            Map::Stuck => Ok(asked),
            Map::Backward if is_data => Ok(offset),
            Map::Backward => Ok(offset / 2),
            Map::Nowhere => Err(Errno::ENXIO),
        }
    }
}

fn fuse(errno: Errno) -> fuser::Errno {
    fuser::Errno::from(io::Error::from(errno))
}

fn fails(error: Option<Errno>, reply: ReplyEmpty) {
    match error {
        Some(errno) => reply.error(fuse(errno)),
        None => reply.ok(),
    }
}

fn ends(result: Result<(), Errno>, reply: ReplyEmpty) {
    fails(result.err(), reply);
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let nodes = self.nodes();
        let told = nodes.child(parent.0, name).and_then(|number| self.told(&nodes, number));
        match told {
            Ok(told) => reply.entry(&KEPT, &told, Generation(0)),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.told(&self.nodes(), number.0) {
            Ok(told) => reply.attr(&KEPT, &told),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _: Option<FileHandle>,
        _created: Option<SystemTime>,
        _changed_backup: Option<SystemTime>,
        _backed_up: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut nodes = self.nodes();
        let time = |time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        };
        let Ok(node) = nodes.get_mut(number.0) else { return reply.error(fuse(Errno::ENOENT)) };
        if let Some(mode) = mode {
            node.mode = u16::try_from(mode & 0o7777).unwrap();
        }
        node.owner = (user.unwrap_or(node.owner.0), group.unwrap_or(node.owner.1));
        if let Some(size) = size {
            node.content.resize(usize::try_from(size).unwrap(), 0);
        }
        node.accessed = accessed.map_or(node.accessed, time);
        node.modified = modified.map_or(node.modified, time);
        node.changed = SystemTime::now();
        match self.told(&nodes, number.0) {
            Ok(told) => reply.attr(&KEPT, &told),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        mask: u32,
        reply: ReplyEntry,
    ) {
        let mut nodes = self.nodes();
        let made = nodes.create(parent.0, name, FileType::Directory, mode & !mask);
        match made.and_then(|number| self.told(&nodes, number)) {
            Ok(told) => reply.entry(&KEPT, &told, Generation(0)),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ends(self.nodes().remove(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        ends(self.nodes().remove(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if let Some(errno) = self.lies.rename_fails {
            return reply.error(fuse(errno));
        }
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        ends(self.nodes().rename(from, to, flags), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        mask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let mut nodes = self.nodes();
        let made = nodes.create(parent.0, name, FileType::RegularFile, mode & !mask);
        match made.and_then(|number| self.told(&nodes, number)) {
            Ok(told) => {
                reply.created(&KEPT, &told, Generation(0), FileHandle(0), self.open_flags());
            }
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), self.open_flags());
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let nodes = self.nodes();
        let Some(node) = nodes.get(number.0) else { return reply.error(fuse(Errno::ENOENT)) };
        let content = &node.content;
        let start = usize::try_from(offset).unwrap().min(content.len());
        let end = start + self.moved((content.len() - start).min(size as usize));
        if self.lies.read_fails_at.is_some_and(|at| offset <= at && at < end as u64) {
            return reply.error(fuse(Errno::EIO));
        }
        reply.data(&content[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = &data[..self.moved(data.len())];
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        if let Some((at, errno)) = self.lies.write_fails_at
            && end as u64 > at
        {
            return reply.error(fuse(errno));
        }
        let mut nodes = self.nodes();
        let Ok(node) = nodes.get_mut(number.0) else { return reply.error(fuse(Errno::ENOENT)) };
        let length = node.content.len().max(end);
        node.content.resize(length, 0);
        node.content[start..end].copy_from_slice(data);
        node.modified = SystemTime::now();
        reply.written(u32::try_from(data.len()).unwrap());
    }

    fn lseek(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.seek(number.0, offset, whence) {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(fuse(errno)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        fails(self.lies.flush_fails, reply);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        fails(self.lies.fsync_fails, reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let nodes = self.nodes();
        let Some(node) = nodes.get(number.0) else { return reply.error(fuse(Errno::ENOENT)) };
        let own = [(OsString::from("."), number.0), (OsString::from(".."), 1)];
        let below = node.entries.iter().map(|(name, number)| (name.clone(), *number));
        for (next, (name, number)) in (1..).zip(own.into_iter().chain(below)) {
            let kind = nodes.get(number).map_or(FileType::RegularFile, |node| node.kind);
            if next > offset && reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
