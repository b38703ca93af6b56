//! What is known about files: status, owner, mode, times and extended attributes.

use nix::libc;

use super::content::PAGE_BYTES;
use super::data::{inode_number, without_set_id};
use super::inode::{Body, Number};
use super::walk::At;
use super::world::World;
use crate::error::Errno;
use crate::operation::{FileKind, FileStatus, FileTimes};
use crate::processor::slots::Memory;
use crate::units::WallTime;

/// Bytes of the longest value (`xattr(7)`).
const VALUE_BYTES_MAX: usize = 1 << 16;
/// Bytes of the longest name, with its namespace (`xattr(7)`).
const ATTRIBUTE_NAME_BYTES_MAX: usize = 255;
/// Bytes that all attributes of a file of ext4 have room for: one block.
const ATTRIBUTES_BYTES_MAX: usize = 4000;
/// The times that ext4 can keep, in seconds.
const SECONDS: std::ops::RangeInclusive<i64> = -(1 << 31)..=(1 << 34) - (1 << 31) - 1;

impl World {
    /// The inode that a name or, with an empty one, a descriptor stands for (AT_EMPTY_PATH).
    pub(super) fn subject(&self, at: At<'_>, follow: bool) -> Result<Number, Errno> {
        match at {
            At { path: b"", directory: Some(descriptor) } => self.named_by(descriptor),
            At { path: b"", directory: None } => Ok(self.current_directory),
            at => self.resolve(at, follow),
        }
    }

    pub(super) fn status_of(&self, number: Number) -> FileStatus {
        let inode = self.node(number);
        let attributes = &inode.attributes;
        let mount = &self.mounts[inode.mount];
        let (size_bytes, blocks_512) = match &inode.body {
            Body::Regular(content) => (content.length(), content.page_count() * PAGE_BYTES / 512),
            Body::Directory(_) => (PAGE_BYTES, PAGE_BYTES / 512),
            Body::Link(content) => (content.len() as u64, 0),
            Body::Pipe(_) | Body::Node => (0, 0),
        };
        let direct = match attributes.kind {
            FileKind::Regular => mount.options.direct_alignment.unwrap_or_default(),
            _ => (0, 0),
        };
        FileStatus {
            kind: attributes.kind,
            mode: attributes.mode,
            links: inode.links,
            owner: attributes.owner,
            group: attributes.group,
            device: libc::makedev(8, u32::try_from(inode.mount).unwrap_or(u32::MAX)),
            inode: inode_number(number),
            size_bytes,
            blocks_512,
            block_bytes: 4096,
            node_device: attributes.device,
            accessed: attributes.accessed,
            modified: attributes.modified,
            changed: attributes.changed,
            direct_memory_alignment: direct.0,
            direct_offset_alignment: direct.1,
            mount: inode.mount as u64 + 1,
            is_mount_point: mount.root == number,
            is_protected: false,
        }
    }

    /// Magic number and free bytes.
    pub(super) fn file_system_status(&self, descriptor: u32) -> Result<(u64, u64), Errno> {
        let mount = &self.mounts[self.node(self.named_by(descriptor)?).mount];
        Ok((mount.options.magic, mount.room * PAGE_BYTES))
    }

    pub(super) fn change_owner(
        &mut self,
        at: At<'_>,
        owner: Option<u32>,
        group: Option<u32>,
    ) -> Result<u32, Errno> {
        let number = self.subject(at, false)?;
        self.may_change(number)?;
        let (user, user_group) = (self.user, self.user_group);
        let attributes = &self.node(number).attributes;
        let keeps_owner = owner.is_none_or(|owner| owner == attributes.owner);
        let keeps_group = group.is_none_or(|it| it == user_group || it == attributes.group);
        let is_owner = attributes.owner == user;
        let changes_nothing = owner.is_none() && group.is_none();
        if user != 0 && !changes_nothing && !(is_owner && keeps_owner && keeps_group) {
            return Err(Errno::EPERM);
        }
        let now = self.tick();
        let inode = self.node_mut(number);
        let is_directory = inode.is_directory();
        let attributes = &mut inode.attributes;
        attributes.owner = owner.unwrap_or(attributes.owner);
        attributes.group = group.unwrap_or(attributes.group);
        attributes.changed = now;
        if !is_directory {
            // The super-user's, too (`fs/open.c`, chown_common).
            attributes.mode = without_set_id(attributes.mode);
            attributes.extended.remove(&b"security.capability"[..]);
        }
        Ok(0)
    }

    pub(super) fn change_mode(&mut self, descriptor: u32, mode: u32) -> Result<u32, Errno> {
        let number = self.named_by(descriptor)?;
        self.may_change(number)?;
        self.must_own(number)?;
        let is_stranger = self.user != 0 && self.user_group != self.node(number).attributes.group;
        let now = self.tick();
        let attributes = &mut self.node_mut(number).attributes;
        attributes.mode = mode & 0o7777;
        if is_stranger {
            attributes.mode &= !libc::S_ISGID;
        }
        attributes.changed = now;
        Ok(0)
    }

    pub(super) fn change_times(&mut self, number: Number, times: FileTimes) -> Result<u32, Errno> {
        let values = [times.accessed, times.modified];
        let is_special = |it: i64| it == libc::UTIME_NOW || it == libc::UTIME_OMIT;
        if values
            .iter()
            .any(|it| it.nanoseconds > 999_999_999 && !is_special(it.nanoseconds.into()))
        {
            return Err(Errno::EINVAL);
        }
        self.may_change(number)?;
        self.must_own(number)?;
        let now = self.tick();
        let attributes = &mut self.node_mut(number).attributes;
        let set = |field: &mut WallTime, value: WallTime| match value.nanoseconds.into() {
            libc::UTIME_OMIT => {}
            libc::UTIME_NOW => *field = now,
            _ => *field = as_kept(value),
        };
        set(&mut attributes.accessed, times.accessed);
        set(&mut attributes.modified, times.modified);
        attributes.changed = now;
        Ok(0)
    }

    fn must_own(&self, number: Number) -> Result<(), Errno> {
        let is_owner = self.user == self.node(number).attributes.owner;
        if self.user == 0 || is_owner { Ok(()) } else { Err(Errno::EPERM) }
    }

    pub(super) fn get_attribute(
        &self,
        descriptor: u32,
        name: &[u8],
        memory: &mut Memory<'_>,
    ) -> Result<u32, Errno> {
        let number = self.named_by(descriptor)?;
        check_name(name)?;
        self.check_namespace(number, name, false)?;
        let value = self.node(number).attributes.extended.get(name).ok_or(Errno::ENODATA)?;
        fill(value, memory)
    }

    pub(super) fn set_attribute(
        &mut self,
        descriptor: u32,
        name: &[u8],
        value: Vec<u8>,
    ) -> Result<u32, Errno> {
        let number = self.named_by(descriptor)?;
        check_name(name)?;
        if value.len() > VALUE_BYTES_MAX {
            return Err(Errno::E2BIG);
        }
        self.may_change(number)?;
        self.check_namespace(number, name, true)?;
        // What the kernel takes apart: a capability is 12, 20 or 24 bytes, an access list 4 and 8
        // for each entry.
        let is_malformed = match name {
            b"security.capability" => ![12, 20, 24].contains(&value.len()),
            name if name.starts_with(b"system.posix_acl_") => value.len() % 8 != 4,
            _ => false,
        };
        if is_malformed {
            return Err(Errno::EINVAL);
        }
        let now = self.tick();
        let attributes = &mut self.node_mut(number).attributes;
        let others = attributes.extended.iter().filter(|(other, _)| other[..] != *name);
        let size = |name: &[u8], value: &[u8]| name.len() + value.len() + 16;
        let used: usize = others.map(|(name, value)| size(name, value)).sum();
        if used + size(name, &value) > ATTRIBUTES_BYTES_MAX {
            return Err(Errno::ENOSPC);
        }
        attributes.extended.insert(name.to_vec(), value);
        attributes.changed = now;
        Ok(0)
    }

    pub(super) fn remove_attribute(&mut self, descriptor: u32, name: &[u8]) -> Result<u32, Errno> {
        let number = self.named_by(descriptor)?;
        check_name(name)?;
        self.may_change(number)?;
        self.check_namespace(number, name, true)?;
        let now = self.tick();
        let attributes = &mut self.node_mut(number).attributes;
        attributes.extended.remove(name).ok_or(Errno::ENODATA)?;
        attributes.changed = now;
        Ok(0)
    }

    pub(super) fn list_attributes(
        &self,
        descriptor: u32,
        memory: &mut Memory<'_>,
    ) -> Result<u32, Errno> {
        let inode = self.node(self.named_by(descriptor)?);
        let mut names = Vec::new();
        for name in inode.attributes.extended.keys() {
            if self.user == 0 || !name.starts_with(b"trusted.") {
                names.extend_from_slice(name);
                names.push(0);
            }
        }
        fill(&names, memory)
    }

    /// Whether a file can have attributes of a name's namespace, and the user may touch them.
    fn check_namespace(&self, number: Number, name: &[u8], writes: bool) -> Result<(), Errno> {
        let inode = self.node(number);
        if !self.mounts[inode.mount].options.supports_attributes {
            return Err(Errno::EOPNOTSUPP);
        }
        let refused = if writes { Errno::EPERM } else { Errno::ENODATA };
        match name {
            name if name.starts_with(b"user.") => {
                if !inode.is_regular() && !inode.is_directory() {
                    return Err(refused);
                }
                self.may(number, if writes { 2 } else { 4 })?;
            }
            name if name.starts_with(b"trusted.") && self.user != 0 => return Err(refused),
            name if name.starts_with(b"security.") && self.user != 0 && writes => {
                return Err(Errno::EPERM);
            }
            _ => {}
        }
        match name {
            b"user." | b"trusted." | b"security." => Err(Errno::EINVAL),
            name if name.starts_with(b"user.") => Ok(()),
            name if name.starts_with(b"trusted.") || name.starts_with(b"security.") => Ok(()),
            b"system.posix_acl_access" => Ok(()),
            b"system.posix_acl_default" if inode.is_directory() || !writes => Ok(()),
            b"system.posix_acl_default" => Err(Errno::EACCES),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// A time as ext4 keeps it: the nearest that it can tell.
pub(super) fn as_kept(time: WallTime) -> WallTime {
    if SECONDS.contains(&time.seconds) {
        return time;
    }
    let seconds = time.seconds.clamp(*SECONDS.start(), *SECONDS.end());
    WallTime { seconds, nanoseconds: 0 }
}

fn check_name(name: &[u8]) -> Result<(), Errno> {
    let is_valid = !name.is_empty() && name.len() <= ATTRIBUTE_NAME_BYTES_MAX;
    if is_valid { Ok(()) } else { Err(Errno::ERANGE) }
}

/// Puts an answer into a buffer; an empty buffer asks for its length.
fn fill(answer: &[u8], memory: &mut Memory<'_>) -> Result<u32, Errno> {
    match memory.length() {
        0 => {}
        room if room < answer.len() => return Err(Errno::ERANGE),
        _ => memory.put(0, answer),
    }
    Ok(u32::try_from(answer.len()).unwrap_or(u32::MAX))
}
