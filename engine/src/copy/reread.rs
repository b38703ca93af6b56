//! Where the bytes of a target can be read back from: the device, or only a cache.

use super::Direct;
use super::route::{End, magic};
use crate::limits::BUFFER_ALIGNMENT_BYTES;

/// How a target is read back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reread {
    /// Past the page cache, aligned to so many bytes.
    Direct(u32),
    /// Through the page cache, after its pages were dropped and shown to be gone.
    Dropped,
    /// From wherever the bytes are kept: there is no device, or none that can be told from here.
    Cache,
}

/// File systems that keep their bytes on a device of this machine, and cache them in the page cache
/// and nowhere else. Not overlayfs, whose own pages are not where the bytes are, and not ZFS, which
/// has a cache of its own.
const ON_A_DEVICE: [u64; 10] = [
    magic::EXT4,
    magic::XFS,
    magic::F2FS,
    magic::BTRFS,
    magic::BCACHEFS,
    magic::FAT,
    magic::EXFAT,
    magic::NTFS3,
    magic::JFS,
    magic::UDF,
];

/// Decides how a target is read back. Direct I/O is trusted where it is known to be real; btrfs
/// would do it, and check its checksums, through the page cache as well.
pub(crate) fn choose_reread(wish: Direct, target: End) -> Reread {
    let alignment = target.direct_alignment;
    let is_real =
        matches!(target.magic, magic::EXT4 | magic::XFS | magic::F2FS | magic::BLOCK_DEVICE);
    if wish != Direct::Off
        && is_real
        && alignment.is_power_of_two()
        && u64::from(alignment) <= BUFFER_ALIGNMENT_BYTES
    {
        return Reread::Direct(alignment);
    }
    if ON_A_DEVICE.contains(&target.magic) { Reread::Dropped } else { Reread::Cache }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_is_read_where_there_is_one() {
        let end = |magic, direct_alignment| End { magic, direct_alignment };
        let (auto, off) = (Direct::Auto, Direct::Off);
        let cases = [
            ("ext4", auto, end(magic::EXT4, 512), Reread::Direct(512)),
            ("xfs", auto, end(magic::XFS, 4096), Reread::Direct(4096)),
            ("direct I/O forbidden", off, end(magic::XFS, 4096), Reread::Dropped),
            ("bytes in the inode: no alignment", auto, end(magic::EXT4, 0), Reread::Dropped),
            ("more alignment than buffers have", auto, end(magic::EXT4, 1 << 16), Reread::Dropped),
            ("btrfs", auto, end(magic::BTRFS, 4096), Reread::Dropped),
            ("tmpfs", auto, end(0x0102_1994, 4096), Reread::Cache),
            ("nfs", auto, end(magic::NFS, 4096), Reread::Cache),
            ("fuse", auto, end(0x6573_5546, 0), Reread::Cache),
            ("overlay", auto, end(0x794c_7630, 512), Reread::Cache),
            ("not known", auto, end(0, 512), Reread::Cache),
        ];
        for (name, wish, end, want) in cases {
            assert_eq!(choose_reread(wish, end), want, "{name}");
        }
    }
}
