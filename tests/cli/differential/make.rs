//! Making what was planned.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, lchown, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::libc::dev_t;
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, makedev, mknod, utimensat,
};
use nix::sys::time::TimeSpec;

use super::super::support::bytes;
use super::tree::{Kind, Node, Shape};

/// Makes nodes below `world`, in their order; then gives them what they are to have, from the last
/// to the first: what is made in a directory changes its times.
pub(crate) fn make(world: &Path, nodes: &[Node]) {
    for node in nodes {
        let path = world.join(&node.path);
        let made = make_one(world, &path, &node.kind);
        made.unwrap_or_else(|error| panic!("{path:?}: {error}: {node:#?}"));
    }
    for node in nodes.iter().rev() {
        let path = world.join(&node.path);
        let done = finish(&path, node);
        done.unwrap_or_else(|error| panic!("{path:?}: {error}: {node:#?}"));
    }
}

fn make_one(world: &Path, path: &Path, kind: &Kind) -> io::Result<()> {
    match kind {
        Kind::Directory => fs::create_dir(path),
        Kind::File(shape) => write(&File::create_new(path)?, shape),
        Kind::Link(content) => symlink(content, path),
        Kind::HardLink(first) => fs::hard_link(world.join(first), path),
        Kind::Fifo => special(path, SFlag::S_IFIFO, 0),
        Kind::Socket => special(path, SFlag::S_IFSOCK, 0),
        Kind::Character(major, minor) => special(path, SFlag::S_IFCHR, makedev(*major, *minor)),
        Kind::Block(major, minor) => special(path, SFlag::S_IFBLK, makedev(*major, *minor)),
    }
}

fn special(path: &Path, kind: SFlag, device: dev_t) -> io::Result<()> {
    Ok(mknod(path, kind, Mode::S_IRUSR, device)?)
}

fn write(file: &File, shape: &Shape) -> io::Result<()> {
    for part in &shape.parts {
        let length = usize::try_from(part.length_bytes).expect("it is small");
        let content = if part.seed == 0 { vec![0; length] } else { bytes(length, part.seed) };
        file.write_all_at(&content, part.offset_bytes)?;
    }
    file.set_len(shape.size_bytes)
}

fn finish(path: &Path, node: &Node) -> io::Result<()> {
    if matches!(node.kind, Kind::HardLink(_)) {
        return Ok(());
    }
    lchown(path, Some(node.owner.0), Some(node.owner.1))?;
    if !matches!(node.kind, Kind::Link(_)) {
        let mode = Mode::from_bits_truncate(node.mode);
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::FollowSymlink)?;
    }
    for (name, value) in &node.attributes {
        xattr::set(path, name, value)?;
    }
    let time = |(seconds, nanoseconds)| TimeSpec::new(seconds, nanoseconds);
    let (accessed, modified) = (time(node.accessed), time(node.modified));
    let set = utimensat(AT_FDCWD, path, &accessed, &modified, UtimensatFlags::NoFollowSymlink);
    set.map_err(|errno: Errno| errno.into())
}
