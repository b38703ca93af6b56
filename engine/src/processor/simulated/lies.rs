//! File systems that tell something wrong about a file's holes.
//!
//! Which lies a copy must survive depends on who tells them. What is called data and is a hole, an
//! answer without progress, and "all of it is a hole" of a short file harm nobody who knows of
//! them. Data that is called a hole can't be told from a hole, so those who do that must not be
//! asked at all: a file system with a magic number other than ext4's tells any lie.

use super::perform::of_file;
use super::world::World;
use crate::error::Errno;
use crate::operation::{Seek, SeekTarget};
use crate::random::Random;

const EXT4: u64 = 0xef53;

/// Answers a seek with a lie.
pub(super) fn lie(world: &World, seek: &mut Seek, random: &mut Random) -> Result<u32, Errno> {
    let number = world.file(of_file(&seek.file)?)?.inode;
    let status = world.status_of(number);
    let is_known = world.mounts[world.node(number).mount].options.magic == EXT4;
    let (at, size) = (seek.offset_bytes, status.size_bytes);
    let is_data = seek.target == SeekTarget::Data;
    let wrong = if is_known { 4 } else { 6 };
    seek.offset_bytes = match random.below(wrong) {
        0 => return Err([Errno::EINVAL, Errno::EOPNOTSUPP][usize::from(random.once_in(2))]),
        1 if is_data && at > 0 && is_known => at,
        1 => return Err(Errno::ENXIO),
        2 => at,
        3 if is_data => at.saturating_sub(1 + random.below(5000)),
        3 => random.below(at + 1).max(random.below(2) * (size + 5000)),
        4 => at + random.below(size + 1),
        _ => random.next() >> 1,
    };
    Ok(0)
}
