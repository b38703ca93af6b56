//! Open files: how they come to be, and what they are open for.

use nix::libc;

use super::content::Content;
use super::inode::{Body, Number};
use super::walk::{At, Found};
use super::world::World;
use crate::error::Errno;
use crate::operation::FileKind;

/// What a descriptor refers to: an open file description (`open(2)`).
#[derive(Clone, Debug)]
pub(super) struct OpenFile {
    pub(super) inode: Number,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    pub(super) is_append: bool,
    pub(super) is_direct: bool,
    pub(super) is_nonblocking: bool,
    /// Opened with O_PATH: it names a file and moves no data.
    pub(super) is_path: bool,
    pub(super) keeps_access_time: bool,
    /// Where the next listing or the next read at the current position starts.
    pub(super) position: u64,
    /// How many failed write-backs of the file, and of its file system, it has been told of: each
    /// failure is told once to each description that was open before (`errseq_t`).
    pub(super) losses_told: u64,
    pub(super) mount_losses_told: u64,
}

/// What a device node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Device {
    Null,
    Zero,
    Full,
}

impl World {
    /// Opens a file; returns its descriptor, which is never used again for another file.
    pub(super) fn open(
        &mut self,
        at: At<'_>,
        flags: i32,
        mode: u32,
        resolve: u64,
    ) -> Result<u32, Errno> {
        let has = |flag: i32| flags & flag == flag;
        if has(libc::O_PATH) {
            let found = self.walk(at, !has(libc::O_NOFOLLOW), resolve)?;
            let number = self.reached(&found)?;
            if has(libc::O_DIRECTORY) && !self.node(number).is_directory() {
                return Err(Errno::ENOTDIR);
            }
            return Ok(self.new_descriptor(number, flags));
        }
        if has(libc::O_CREAT | libc::O_DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        if has(libc::O_TMPFILE) {
            return self.open_unnamed(at, flags, mode, resolve);
        }
        let makes_new = has(libc::O_CREAT | libc::O_EXCL);
        let follow = !has(libc::O_NOFOLLOW) && !makes_new;
        let found = match has(libc::O_CREAT) {
            true => self.walk_to_create(at, follow, resolve)?,
            false => self.walk(at, follow, resolve)?,
        };
        let (number, is_new) = match found.child {
            None if has(libc::O_CREAT) => (self.create(&found, mode)?, true),
            Some(_) if makes_new => return Err(Errno::EEXIST),
            _ => (self.reached(&found)?, false),
        };
        if !is_new {
            self.may_open(number, flags)?;
        }
        let mount = self.node(number).mount;
        let supports_direct = self.mounts[mount].options.direct_alignment.is_some();
        if has(libc::O_DIRECT) && !(supports_direct && self.node(number).is_regular()) {
            return Err(Errno::EINVAL);
        }
        if has(libc::O_TRUNC) && !is_new && self.node(number).is_regular() {
            self.set_length(number, 0);
        }
        Ok(self.new_descriptor(number, flags))
    }

    /// Whether opening would wait for someone to open the other end of a FIFO.
    pub(super) fn open_would_wait(&self, at: At<'_>, flags: i32, resolve: u64) -> bool {
        let access = flags & libc::O_ACCMODE;
        if flags & (libc::O_PATH | libc::O_NONBLOCK) != 0 || access == libc::O_RDWR {
            return false;
        }
        let found = self.walk(at, flags & libc::O_NOFOLLOW == 0, resolve);
        let number = found.and_then(|found| self.reached(&found));
        number.is_ok_and(|number| {
            self.node(number).attributes.kind == FileKind::Fifo
                && self.may_open(number, flags).is_ok()
                && !self.has_other_end(number, access)
        })
    }

    /// Whether someone has a FIFO open for the other direction.
    pub(super) fn has_other_end(&self, number: Number, access: i32) -> bool {
        let is_other = |file: &OpenFile| {
            if access == libc::O_WRONLY { file.is_readable } else { file.is_writable }
        };
        self.descriptors.values().any(|file| file.inode == number && is_other(file))
    }

    fn open_unnamed(
        &mut self,
        at: At<'_>,
        flags: i32,
        mode: u32,
        resolve: u64,
    ) -> Result<u32, Errno> {
        if flags & libc::O_ACCMODE == libc::O_RDONLY {
            return Err(Errno::EINVAL);
        }
        let found = self.walk(at, true, resolve)?;
        let directory = self.reached(&found)?;
        if !self.node(directory).is_directory() {
            return Err(Errno::ENOTDIR);
        }
        self.may_change(directory)?;
        self.may_add(directory)?;
        let mount = self.node(directory).mount;
        let body = Body::Regular(Content::default());
        let mode = mode & 0o7777 & !self.umask;
        let number = self.new_inode(mount, FileKind::Regular, mode, body);
        self.inherit_group(directory, number);
        Ok(self.new_descriptor(number, flags))
    }

    fn create(&mut self, found: &Found<'_>, mode: u32) -> Result<Number, Errno> {
        self.may_change(found.directory)?;
        self.may_add(found.directory)?;
        let body = Body::Regular(Content::default());
        Ok(self.make_in(found, FileKind::Regular, mode & 0o7777 & !self.umask, body))
    }

    /// Whether an existing file can be opened so; in the order of the kernel's `do_open`.
    fn may_open(&self, number: Number, flags: i32) -> Result<(), Errno> {
        let has = |flag: i32| flags & flag == flag;
        let inode = self.node(number);
        let is_directory = inode.is_directory();
        let access = flags & libc::O_ACCMODE;
        let writes = access != libc::O_RDONLY || has(libc::O_TRUNC);
        if has(libc::O_CREAT) && is_directory {
            return Err(Errno::EISDIR);
        }
        if has(libc::O_DIRECTORY) && !is_directory {
            return Err(Errno::ENOTDIR);
        }
        match inode.attributes.kind {
            FileKind::SymbolicLink => return Err(Errno::ELOOP),
            FileKind::Directory if writes => return Err(Errno::EISDIR),
            _ => {}
        }
        if writes && (is_directory || inode.is_regular()) {
            self.may_change(number)?;
        }
        let reads = access != libc::O_WRONLY;
        self.may(number, u32::from(reads) << 2 | u32::from(writes) << 1)?;
        match inode.attributes.kind {
            FileKind::Socket => Err(Errno::ENXIO),
            FileKind::Fifo
                if access == libc::O_WRONLY
                    && has(libc::O_NONBLOCK)
                    && !self.has_other_end(number, access) =>
            {
                Err(Errno::ENXIO)
            }
            FileKind::CharacterDevice | FileKind::BlockDevice => {
                self.device(number).map(|_| ()).ok_or(Errno::ENXIO)
            }
            _ => Ok(()),
        }
    }

    /// The device that a node stands for, if there is one here.
    pub(super) fn device(&self, number: Number) -> Option<Device> {
        let attributes = &self.node(number).attributes;
        let is = |minor| attributes.device == libc::makedev(1, minor);
        match attributes.kind {
            FileKind::CharacterDevice if is(3) => Some(Device::Null),
            FileKind::CharacterDevice if is(5) => Some(Device::Zero),
            FileKind::CharacterDevice if is(7) => Some(Device::Full),
            _ => None,
        }
    }

    fn new_descriptor(&mut self, inode: Number, flags: i32) -> u32 {
        let access = flags & libc::O_ACCMODE;
        let is_path = flags & libc::O_PATH != 0;
        let file = OpenFile {
            inode,
            is_readable: !is_path && access != libc::O_WRONLY,
            is_writable: !is_path && access != libc::O_RDONLY,
            is_append: flags & libc::O_APPEND != 0,
            is_direct: flags & libc::O_DIRECT != 0,
            is_nonblocking: flags & libc::O_NONBLOCK != 0,
            is_path,
            keeps_access_time: flags & libc::O_NOATIME != 0,
            position: 0,
            losses_told: self.node(inode).losses,
            mount_losses_told: self.mounts[self.node(inode).mount].losses,
        };
        let number = self.next_descriptor;
        self.next_descriptor += 1;
        self.descriptors.insert(number, file);
        self.node_mut(inode).opens += 1;
        number
    }

    /// The inode that a descriptor of any sort names.
    pub(super) fn named_by(&self, descriptor: u32) -> Result<Number, Errno> {
        Ok(self.descriptors.get(&descriptor).ok_or(Errno::EBADF)?.inode)
    }

    /// An open file that moves data: not one opened with O_PATH.
    pub(super) fn file(&self, descriptor: u32) -> Result<&OpenFile, Errno> {
        self.descriptors.get(&descriptor).filter(|file| !file.is_path).ok_or(Errno::EBADF)
    }

    pub(super) fn file_mut(&mut self, descriptor: u32) -> Result<&mut OpenFile, Errno> {
        self.descriptors.get_mut(&descriptor).filter(|file| !file.is_path).ok_or(Errno::EBADF)
    }

    /// Closes a descriptor: its lock goes with it, and its file if it has no name.
    pub(super) fn close(&mut self, descriptor: u32) {
        if self.network.has(descriptor) {
            return self.network.close(descriptor, self.clock);
        }
        let Some(file) = self.descriptors.remove(&descriptor) else { return };
        let is_pipe = matches!(self.node(file.inode).body, Body::Pipe(_));
        let is_its_user = |other: &OpenFile| other.inode == file.inode && !other.is_path;
        let is_in_use = is_pipe && self.descriptors.values().any(is_its_user);
        let inode = self.node_mut(file.inode);
        inode.opens -= 1;
        if inode.lock == Some(descriptor) {
            inode.lock = None;
        }
        // What nobody has read by then is gone (pipe(7)); a descriptor that only names it is nobody.
        if let (Body::Pipe(bytes), false) = (&mut inode.body, is_in_use) {
            bytes.clear();
        }
        self.free_if_unused(file.inode);
    }

    /// Closes what its last owner has given up.
    pub(super) fn close_released(&mut self) {
        for number in self.released.take() {
            self.close(number);
        }
    }

    pub(super) fn lock_file(&mut self, descriptor: u32) -> Result<u32, Errno> {
        let file = self.file_mut(descriptor)?;
        let inode = file.inode;
        let holder = &mut self.node_mut(inode).lock;
        match *holder {
            Some(other) if other != descriptor => Err(Errno::EAGAIN),
            _ => {
                *holder = Some(descriptor);
                Ok(0)
            }
        }
    }

    pub(super) fn set_direct(&mut self, descriptor: u32, is_direct: bool) -> Result<u32, Errno> {
        let number = self.file_mut(descriptor)?.inode;
        let inode = self.node(number);
        let supports = self.mounts[inode.mount].options.direct_alignment.is_some();
        if is_direct && !(supports && inode.is_regular()) {
            return Err(Errno::EINVAL);
        }
        self.file_mut(descriptor)?.is_direct = is_direct;
        Ok(0)
    }
}
