//! What moves the bytes of open files, or decides where they lie.

use nix::libc;

use super::content::PAGE_BYTES;
use super::inode::{Body, FIRST_POSITION, Inode, LAST_POSITION, Number};
use super::open::Device;
use super::world::World;
use crate::error::Errno;
use crate::operation::{
    AllocateMode, CURRENT_POSITION, DirectoryEntry, FileKind, SeekTarget, SyncReach, push_entry,
};
use crate::processor::slots::Memory;
use crate::random::Random;
use crate::units::WallTime;

/// The length of the longest file of ext4 with blocks of 4 KiB.
const FILE_BYTES_MAX: u64 = (1 << 44) - PAGE_BYTES;
/// What one call moves at the most (`read(2)`, NOTES).
const TRANSFER_BYTES_MAX: usize = 0x7fff_f000;
/// What a FIFO holds, and what is written to it in one piece (`pipe(7)`).
const PIPE_BYTES_MAX: usize = 65_536;
const PIPE_BYTES_ATOMIC: usize = 4096;
/// Access times are renewed once a day at least (`mount(8)`, relatime).
const DAY_SECONDS: i64 = 24 * 60 * 60;

impl World {
    /// Reads into `memory`, at most `limit` bytes.
    pub(super) fn read(
        &mut self,
        descriptor: u32,
        offset: u64,
        memory: &mut Memory<'_>,
        limit: Option<usize>,
    ) -> Result<u32, Errno> {
        let wanted = memory.length().min(TRANSFER_BYTES_MAX);
        check_offset(offset)?;
        let file = self.file(descriptor)?.clone();
        if !file.is_readable {
            return Err(Errno::EBADF);
        }
        let position = position(offset, wanted, file.position)?;
        let length = limit.map_or(wanted, |limit| limit.min(wanted)) as u64;
        let count = match &self.node(file.inode).body {
            Body::Directory(_) => return Err(Errno::EISDIR),
            Body::Pipe(_) => return self.read_pipe(file.inode, memory, length),
            Body::Node => self.read_node(file.inode, memory, length)?,
            Body::Link(_) => return Err(Errno::EINVAL),
            Body::Regular(_) => {
                let is_direct = self.check_direct(&file, position, memory)?;
                let (content, _) = self.content_and_room(file.inode);
                content.read(position, length, is_direct, |at, bytes| memory.put(at, bytes))
            }
        };
        if wanted > 0 && !file.keeps_access_time {
            self.touch_access(file.inode);
        }
        self.advance(descriptor, offset, position + count);
        Ok(count_of(count))
    }

    /// Reads, and leaves nothing in the page cache if nothing of it was there.
    pub(super) fn read_uncached(
        &mut self,
        descriptor: u32,
        offset: u64,
        memory: &mut Memory<'_>,
        limit: Option<usize>,
    ) -> Result<u32, Errno> {
        self.check_uncached(descriptor)?;
        let length = memory.length() as u64;
        let was_absent = length > 0 && self.cache_status(descriptor, offset, length) == Ok(0);
        let read = self.read(descriptor, offset, memory, limit)?;
        if was_absent {
            self.advise(descriptor, true, offset, length)?;
        }
        Ok(read)
    }

    /// Fails where nothing can be moved uncached. What is written stays here until it is on the device
    /// and room is needed.
    pub(super) fn check_uncached(&self, descriptor: u32) -> Result<(), Errno> {
        let inode = self.node(self.file(descriptor)?.inode);
        let is_regular = matches!(inode.body, Body::Regular(_));
        let is_supported = is_regular && self.mounts[inode.mount].options.supports_uncached;
        if is_supported { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
    }

    /// Writes what is in `memory`, at most `limit` bytes.
    pub(super) fn write(
        &mut self,
        descriptor: u32,
        offset: u64,
        memory: &Memory<'_>,
        limit: Option<usize>,
    ) -> Result<u32, Errno> {
        let wanted = memory.length().min(TRANSFER_BYTES_MAX);
        check_offset(offset)?;
        let file = self.file(descriptor)?.clone();
        if !file.is_writable {
            return Err(Errno::EBADF);
        }
        let position = position(offset, wanted, file.position)?;
        let mut left = limit.map_or(wanted, |limit| limit.min(wanted));
        let mut written = 0;
        match self.node(file.inode).attributes.kind {
            FileKind::Regular => {}
            FileKind::Fifo => return self.write_pipe(file.inode, memory, left),
            FileKind::CharacterDevice => {
                return match self.device(file.inode) {
                    Some(Device::Full) if wanted > 0 => Err(Errno::ENOSPC),
                    _ => Ok(count_of(left as u64)),
                };
            }
            _ => return Err(Errno::EINVAL),
        }
        let mut position = position;
        if file.is_append {
            position = self.content_and_room(file.inode).0.length();
        }
        if left == 0 {
            return Ok(0);
        }
        if position >= FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        left = left.min(usize::try_from(FILE_BYTES_MAX - position).unwrap_or(usize::MAX));
        let is_direct = self.check_direct(&file, position, memory)?;
        let (content, room) = self.content_and_room(file.inode);
        for bytes in memory.bytes() {
            let part = &bytes[..bytes.len().min(left)];
            let count = content.write(position + written, part, is_direct, room);
            written += count;
            left -= part.len();
            if count < part.len() as u64 {
                break;
            }
        }
        if written == 0 {
            return Err(Errno::ENOSPC);
        }
        self.changed_content(file.inode);
        self.advance(descriptor, offset, position + written);
        Ok(count_of(written))
    }

    /// Moves the current position if a transfer was at it.
    fn advance(&mut self, descriptor: u32, offset: u64, end: u64) {
        if offset == CURRENT_POSITION
            && let Ok(file) = self.file_mut(descriptor)
        {
            file.position = end;
        }
    }

    fn read_pipe(
        &mut self,
        number: Number,
        memory: &mut Memory<'_>,
        length: u64,
    ) -> Result<u32, Errno> {
        let has_writer = self.has_other_end(number, libc::O_RDONLY);
        let Body::Pipe(bytes) = &mut self.node_mut(number).body else { return Err(Errno::EINVAL) };
        if bytes.is_empty() && has_writer && length > 0 {
            return Err(Errno::EAGAIN);
        }
        let length = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        let taken: Vec<u8> = bytes.drain(..length).collect();
        memory.put(0, &taken);
        Ok(count_of(length as u64))
    }

    fn write_pipe(
        &mut self,
        number: Number,
        memory: &Memory<'_>,
        length: usize,
    ) -> Result<u32, Errno> {
        if length == 0 {
            return Ok(0);
        }
        if !self.has_other_end(number, libc::O_WRONLY) {
            return Err(Errno::EPIPE);
        }
        let Body::Pipe(bytes) = &mut self.node_mut(number).body else { return Err(Errno::EINVAL) };
        let room = PIPE_BYTES_MAX - bytes.len();
        // What is short is written whole or not at all (pipe(7), PIPE_BUF).
        if room == 0 || (length <= PIPE_BYTES_ATOMIC && room < length) {
            return Err(Errno::EAGAIN);
        }
        let length = length.min(room);
        bytes.extend(memory.bytes().flatten().take(length));
        Ok(count_of(length as u64))
    }

    /// Whether a transfer of `length` bytes would wait for the other end of a FIFO.
    pub(super) fn transfer_would_wait(
        &self,
        descriptor: u32,
        is_write: bool,
        length: usize,
    ) -> bool {
        let Ok(file) = self.file(descriptor) else { return false };
        let Body::Pipe(bytes) = &self.node(file.inode).body else { return false };
        if file.is_nonblocking || length == 0 {
            return false;
        }
        match is_write {
            true => {
                let room = PIPE_BYTES_MAX - bytes.len();
                file.is_writable
                    && self.has_other_end(file.inode, libc::O_WRONLY)
                    && (room == 0 || (length <= PIPE_BYTES_ATOMIC && room < length))
            }
            false => {
                let has_writer = self.has_other_end(file.inode, libc::O_RDONLY);
                file.is_readable && bytes.is_empty() && has_writer
            }
        }
    }

    fn read_node(&self, inode: Number, memory: &mut Memory<'_>, length: u64) -> Result<u64, Errno> {
        match self.device(inode) {
            Some(Device::Zero | Device::Full) => {
                let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
                memory.put(0, &zeros);
                Ok(length)
            }
            Some(Device::Null) => Ok(0),
            None => Err(Errno::EINVAL),
        }
    }

    /// Whether data goes past the page cache; `EINVAL` if it is not aligned for that.
    fn check_direct(
        &self,
        file: &super::open::OpenFile,
        position: u64,
        memory: &Memory<'_>,
    ) -> Result<bool, Errno> {
        let mount = self.node(file.inode).mount;
        let Some((address, offset)) = self.mounts[mount].options.direct_alignment else {
            return Ok(false);
        };
        if !file.is_direct {
            return Ok(false);
        }
        let is_aligned =
            position.is_multiple_of(u64::from(offset.max(1))) && memory.is_aligned(address, offset);
        if is_aligned { Ok(true) } else { Err(Errno::EINVAL) }
    }

    /// What a short transfer may be cut to: at least one unit, and less than all.
    pub(super) fn short_length(
        &self,
        descriptor: u32,
        length: usize,
        random: &mut crate::random::Random,
    ) -> Option<usize> {
        let file = self.file(descriptor).ok()?;
        let mount = self.node(file.inode).mount;
        let unit = match self.mounts[mount].options.direct_alignment {
            Some((_, offset)) if file.is_direct => offset.max(1) as usize,
            _ => 1,
        };
        let units = length.div_ceil(unit);
        if units < 2 {
            return None;
        }
        let units = 1 + random.below(units as u64 - 1);
        Some(usize::try_from(units).unwrap_or(1) * unit)
    }

    pub(super) fn sync(&mut self, descriptor: u32, reach: SyncReach) -> Result<u32, Errno> {
        let number = self.file(descriptor)?.inode;
        if reach == SyncReach::FileSystem {
            let mount = self.node(number).mount;
            self.sync_mount(mount);
            return self.tell_losses(descriptor, reach);
        }
        match self.node(number).body {
            Body::Regular(_) | Body::Directory(_) => {
                self.sync_inode(number, reach == SyncReach::File);
                self.tell_losses(descriptor, reach)
            }
            Body::Link(_) | Body::Pipe(_) | Body::Node => Err(Errno::EINVAL),
        }
    }

    /// Flips a random bit of a regular file on its device, behind the file system; false if there
    /// is none.
    pub(super) fn flip_a_bit(&mut self, descriptor: u32, random: &mut Random) -> bool {
        let Ok(number) = self.file(descriptor).map(|file| file.inode) else { return false };
        let Body::Regular(content) = &mut self.node_mut(number).body else { return false };
        let length = content.length();
        length > 0 && content.flip(random.below(length), 1 << random.below(8))
    }

    /// A sync that failed: what was to be written is lost, and counts as written.
    pub(super) fn fail_sync(&mut self, descriptor: u32, reach: SyncReach) {
        let Ok(number) = self.file(descriptor).map(|file| file.inode) else { return };
        let mount = self.node(number).mount;
        self.lose_dirty_pages(|other, inode| match reach {
            SyncReach::FileSystem => inode.mount == mount,
            SyncReach::Data | SyncReach::File => other == number,
        });
        // The failure itself is the telling.
        let _ = self.tell_losses(descriptor, reach);
    }

    /// What is dirty of certain files is lost, and counts as written.
    pub(super) fn lose_dirty_pages(&mut self, is_meant: impl Fn(Number, &Inode) -> bool) {
        for (number, inode) in self.inodes.iter_mut().enumerate() {
            let Some(inode) = inode.as_mut().filter(|inode| is_meant(number, inode)) else {
                continue;
            };
            if let Body::Regular(content) = &mut inode.body
                && content.lose_dirty_pages()
            {
                inode.losses += 1;
                self.mounts[inode.mount].losses += 1;
            }
        }
    }

    /// Tells a description of the write-backs that have failed since it was opened, once
    /// (`errseq_check_and_advance`).
    fn tell_losses(&mut self, descriptor: u32, reach: SyncReach) -> Result<u32, Errno> {
        let inode = self.node(self.file(descriptor)?.inode);
        let (losses, mount_losses) = (inode.losses, self.mounts[inode.mount].losses);
        let file = self.file_mut(descriptor)?;
        let (told, now) = match reach {
            SyncReach::FileSystem => (&mut file.mount_losses_told, mount_losses),
            SyncReach::Data | SyncReach::File => (&mut file.losses_told, losses),
        };
        if std::mem::replace(told, now) == now { Ok(0) } else { Err(Errno::EIO) }
    }

    pub(super) fn allocate(
        &mut self,
        descriptor: u32,
        mode: AllocateMode,
        offset: u64,
        length: u64,
    ) -> Result<u32, Errno> {
        if i64::try_from(offset).is_err() || i64::try_from(length).is_err() {
            return Err(Errno::EINVAL);
        }
        let file = self.file(descriptor)?;
        if length == 0 {
            return Err(Errno::EINVAL);
        }
        if !file.is_writable {
            return Err(Errno::EBADF);
        }
        let number = file.inode;
        match self.node(number).attributes.kind {
            FileKind::Regular => {}
            FileKind::Fifo => return Err(Errno::ESPIPE),
            _ => return Err(Errno::ENODEV),
        }
        if offset.saturating_add(length) > FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        let mount = self.node(number).mount;
        if !self.mounts[mount].options.supports_allocate {
            return Err(Errno::EOPNOTSUPP);
        }
        let (content, room) = self.content_and_room(number);
        match mode {
            AllocateMode::Extend => content.allocate(offset, length, true, room)?,
            AllocateMode::KeepSize => content.allocate(offset, length, false, room)?,
            AllocateMode::PunchHole => content.punch(offset, length, room),
            AllocateMode::ZeroRange => {
                content.allocate(offset, length, false, room)?;
                content.zero(offset, length);
            }
        }
        self.changed_content(number);
        Ok(0)
    }

    pub(super) fn truncate(&mut self, descriptor: u32, length: u64) -> Result<u32, Errno> {
        if i64::try_from(length).is_err() {
            return Err(Errno::EINVAL);
        }
        let file = self.file(descriptor)?;
        let number = file.inode;
        if !file.is_writable || !self.node(number).is_regular() {
            return Err(Errno::EINVAL);
        }
        if length > FILE_BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        self.set_length(number, length);
        Ok(0)
    }

    /// Makes a regular file this long.
    pub(super) fn set_length(&mut self, number: Number, length: u64) {
        let (content, room) = self.content_and_room(number);
        content.truncate(length, room);
        self.changed_content(number);
    }

    pub(super) fn seek(
        &mut self,
        descriptor: u32,
        target: SeekTarget,
        offset: u64,
    ) -> Result<u64, Errno> {
        let offset_max = i64::MAX.unsigned_abs();
        if offset > offset_max {
            return Err(Errno::EINVAL);
        }
        let file = self.file(descriptor)?;
        let inode = self.node(file.inode);
        let found = match (&inode.body, target) {
            (Body::Regular(content), _) if offset >= content.length() => None,
            (Body::Regular(content), SeekTarget::Data) => content.seek_data(offset),
            (Body::Regular(content), SeekTarget::Hole) => content.seek_hole(offset),
            (Body::Directory(_), SeekTarget::Data) => Some(offset),
            (Body::Directory(_), SeekTarget::Hole) => Some(offset_max),
            (Body::Pipe(_), _) => return Err(Errno::ESPIPE),
            _ => return Err(Errno::EINVAL),
        };
        let found = found.ok_or(Errno::ENXIO)?;
        self.file_mut(descriptor)?.position = found;
        Ok(found)
    }

    pub(super) fn clone_file(&mut self, source: u32, target: u32) -> Result<u32, Errno> {
        let (from, to) = self.check_pair(source, target, true)?;
        let mount = self.node(from).mount;
        if !self.mounts[mount].options.supports_clone {
            return Err(Errno::EOPNOTSUPP);
        }
        let content = self.content_and_room(from).0.clone();
        let (shared, room) = self.content_and_room(to);
        let ends_inside = !content.length().is_multiple_of(PAGE_BYTES);
        if from == to || (ends_inside && shared.length() > content.length()) {
            return Err(Errno::EINVAL);
        }
        if content.length() > 0 {
            shared.share(&content, room)?;
            self.changed_content(to);
        }
        Ok(0)
    }

    pub(super) fn copy_range(
        &mut self,
        (source, source_offset): (u32, u64),
        (target, target_offset): (u32, u64),
        length: u32,
        limit: Option<usize>,
    ) -> Result<u32, Errno> {
        let length = u64::from(length);
        let ends = [source_offset, target_offset].map(|it| i64::try_from(it).is_ok());
        if ends.contains(&false) {
            return Err(Errno::EINVAL);
        }
        let (from, to) = self.check_pair(source, target, false)?;
        let size = self.content_and_room(from).0.length();
        let length = length.min(size.saturating_sub(source_offset));
        if target_offset >= FILE_BYTES_MAX && length > 0 {
            return Err(Errno::EFBIG);
        }
        let overlaps =
            target_offset + length > source_offset && target_offset < source_offset + length;
        if from == to && overlaps {
            return Err(Errno::EINVAL);
        }
        let length = limit.map_or(length, |limit| length.min(limit as u64));
        if length == 0 {
            return Ok(0);
        }
        let mut bytes = Vec::new();
        self.content_and_room(from).0.read(source_offset, length, false, |_, piece| {
            bytes.extend_from_slice(piece);
        });
        self.touch_access(from);
        let (content, room) = self.content_and_room(to);
        match content.write(target_offset, &bytes, false, room) {
            0 => Err(Errno::ENOSPC),
            written => {
                self.changed_content(to);
                Ok(count_of(written))
            }
        }
    }

    /// The inodes of two files that bytes go between.
    fn check_pair(
        &self,
        source: u32,
        target: u32,
        is_clone: bool,
    ) -> Result<(Number, Number), Errno> {
        let (from, to) = (self.file(source)?, self.file(target)?);
        let (source, target) = (self.node(from.inode), self.node(to.inode));
        let crosses = source.mount != target.mount;
        if is_clone && crosses {
            return Err(Errno::EXDEV);
        }
        if source.is_directory() || target.is_directory() {
            return Err(Errno::EISDIR);
        }
        if !source.is_regular() || !target.is_regular() {
            return Err(Errno::EINVAL);
        }
        if !from.is_readable || !to.is_writable || to.is_append {
            return Err(Errno::EBADF);
        }
        if crosses {
            return Err(Errno::EXDEV);
        }
        Ok((from.inode, to.inode))
    }

    pub(super) fn advise(
        &mut self,
        descriptor: u32,
        drops: bool,
        offset: u64,
        length: u64,
    ) -> Result<u32, Errno> {
        if i64::try_from(offset).is_err() || i64::try_from(length).is_err() {
            return Err(Errno::EINVAL);
        }
        let number = self.file(descriptor)?.inode;
        let inode = self.node_mut(number);
        match &mut inode.body {
            Body::Regular(content) if drops => content.uncache(offset, length),
            Body::Pipe(_) => return Err(Errno::ESPIPE),
            _ => {}
        }
        Ok(0)
    }

    pub(super) fn cache_status(
        &mut self,
        descriptor: u32,
        offset: u64,
        length: u64,
    ) -> Result<u32, Errno> {
        let number = self.file(descriptor)?.inode;
        match &self.node(number).body {
            Body::Regular(content) => Ok(count_of(content.cached(offset, length))),
            _ => Ok(0),
        }
    }

    /// Reads entries of a directory into `memory`.
    pub(super) fn list_directory(
        &mut self,
        descriptor: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Errno> {
        let file = self.file(descriptor)?;
        let (number, start) = (file.inode, file.position);
        let inode = self.node(number);
        let Body::Directory(directory) = &inode.body else { return Err(Errno::ENOTDIR) };
        if inode.links == 0 {
            return Err(Errno::ENOENT);
        }
        let tells = self.mounts[inode.mount].options.tells_entry_kinds;
        let mut listing = vec![0; memory.length().min(1 << 20)];
        let (mut used, mut next, mut is_cut) = (0, start, false);
        let mut push = |inode: Number, kind, name: &[u8], position| {
            let name = std::ffi::CString::new(name).expect("no name has a NUL in it");
            let kind = if tells { kind } else { FileKind::Unknown };
            let entry = DirectoryEntry { inode: inode_number(inode), kind, name: &name };
            push_entry(&mut listing, &mut used, entry, position)
        };
        let dots = [(0, number, &b"."[..]), (1, directory.parent, &b".."[..])];
        for (position, inode, name) in dots {
            if position >= start && !is_cut {
                is_cut = !push(inode, FileKind::Directory, name, position + 1);
                next = if is_cut { next } else { position + 1 };
            }
        }
        for (position, name, child) in directory.listed_from(start.max(FIRST_POSITION)) {
            let kind = self.node(child).attributes.kind;
            is_cut = is_cut || !push(child, kind, name, position + 1);
            if is_cut {
                break;
            }
            next = position + 1;
        }
        if used == 0 && is_cut {
            return Err(Errno::EINVAL);
        }
        // At its end a listing stays there, as on ext4: names that are made later are not in it.
        next = if is_cut { next } else { LAST_POSITION };
        memory.put(0, &listing[..used]);
        self.file_mut(descriptor)?.position = next;
        self.touch_access(number);
        Ok(count_of(used as u64))
    }

    /// The content of a file has changed: its times do, and a write takes privileges away.
    fn changed_content(&mut self, number: Number) {
        let now = self.tick();
        let is_root = self.user == 0;
        let attributes = &mut self.node_mut(number).attributes;
        (attributes.modified, attributes.changed) = (now, now);
        attributes.extended.remove(&b"security.capability"[..]);
        if !is_root {
            attributes.mode = without_set_id(attributes.mode);
        }
    }

    /// A file was read (`mount(8)`, relatime).
    fn touch_access(&mut self, number: Number) {
        let mount = self.node(number).mount;
        if self.mounts[mount].options.is_read_only {
            return;
        }
        let now: WallTime = self.wall_time();
        let attributes = &mut self.node_mut(number).attributes;
        let is_old = attributes.accessed <= attributes.modified
            || attributes.accessed <= attributes.changed
            || now.seconds - attributes.accessed.seconds >= DAY_SECONDS;
        if is_old {
            attributes.accessed = now;
        }
    }
}

/// Where a transfer starts; `EINVAL` if it would end behind the largest offset.
fn position(offset: u64, length: usize, current: u64) -> Result<u64, Errno> {
    if offset == CURRENT_POSITION {
        return Ok(current);
    }
    let end = i64::try_from(offset).ok().zip(i64::try_from(length).ok());
    end.and_then(|(offset, length)| offset.checked_add(length)).map(|_| offset).ok_or(Errno::EINVAL)
}

/// The system calls look at the offset before they look at the file.
fn check_offset(offset: u64) -> Result<(), Errno> {
    let is_valid = offset == CURRENT_POSITION || i64::try_from(offset).is_ok();
    if is_valid { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The mode of a file that someone wrote to, or whose owner changed.
pub(super) fn without_set_id(mode: u32) -> u32 {
    let mode = mode & !libc::S_ISUID;
    if mode & libc::S_IXGRP != 0 { mode & !libc::S_ISGID } else { mode }
}

/// What `st_ino` tells: the numbers below are the file system's own, as on ext4.
pub(super) fn inode_number(number: Number) -> u64 {
    number as u64 + 2
}

fn count_of(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
