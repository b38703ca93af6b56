//! Kinds of file systems, by the magic numbers of `statfs(2)`.

pub(crate) const EXT4: u64 = 0xEF53;
pub(super) const XFS: u64 = 0x5846_5342;
pub(crate) const BTRFS: u64 = 0x9123_683E;
pub(super) const BCACHEFS: u64 = 0xCA45_1A4E;
pub(super) const TMPFS: u64 = 0x0102_1994;
pub(super) const F2FS: u64 = 0xF2F5_2010;
pub(super) const NFS: u64 = 0x6969;
pub(super) const CIFS: u64 = 0xFF53_4D42;
pub(super) const SMB2: u64 = 0xFE53_4D42;
pub(super) const PROC: u64 = 0x9FA0;
pub(super) const SYSFS: u64 = 0x6265_6572;
pub(super) const CONFIGFS: u64 = 0x6265_6570;
pub(super) const CEPH: u64 = 0x00C3_6400;
/// No file system: a block device itself. The kernel's numbers have 32 bits.
pub(crate) const BLOCK_DEVICE: u64 = 1 << 32;
pub(super) const FAT: u64 = 0x4D44;
pub(super) const EXFAT: u64 = 0x2011_BAB0;
pub(super) const HFS_PLUS: u64 = 0x482B;
pub(super) const NTFS3: u64 = 0x7366_746E;
pub(super) const JFS: u64 = 0x3153_464A;
pub(super) const UDF: u64 = 0x1501_3346;

pub(super) const FUSE: u64 = 0x6573_5546;
pub(super) const PLAN_9: u64 = 0x0102_1997;

/// What others are called (`linux/magic.h`, and the sources of those that it leaves out).
const OTHERS: [(u64, &str); 17] = [
    (BTRFS, "btrfs"),
    (TMPFS, "tmpfs"),
    (0x2FC1_2FC1, "zfs"),
    (0x794C_7630, "overlayfs"),
    (BCACHEFS, "bcachefs"),
    (0xE0F5_E1E2, "erofs"),
    (0x7371_7368, "squashfs"),
    (0x4D44, "vfat"),
    (0x2011_BAB0, "exfat"),
    (0x7366_746E, "ntfs3"),
    (0x9660, "iso9660"),
    (0x8584_58F6, "ramfs"),
    (0x5346_414F, "afs"),
    (0xF15F, "ecryptfs"),
    (0x3153_464A, "jfs"),
    (0x1373, "devfs"),
    (0x1CD1, "devpts"),
];

/// What a kind of file system is called: as in `/proc/filesystems`, where this knows it.
pub(super) fn name(magic: u64) -> &'static str {
    match magic {
        EXT4 => "ext4",
        XFS => "xfs",
        F2FS => "f2fs",
        NFS => "nfs",
        CIFS | SMB2 => "cifs",
        PROC => "proc",
        SYSFS => "sysfs",
        CONFIGFS => "configfs",
        CEPH => "ceph",
        FUSE => "fuse",
        PLAN_9 => "9p",
        BLOCK_DEVICE => "a block device",
        _ => OTHERS.iter().find(|other| other.0 == magic).map_or("unknown", |other| other.1),
    }
}

/// Whether direct I/O there is what it says, and faster for large files. btrfs makes checksums of
/// what it writes and falls back to the page cache by itself.
pub(super) fn has_real_direct(magic: u64) -> bool {
    matches!(magic, EXT4 | XFS | F2FS | BLOCK_DEVICE)
}

/// Whether what it says about holes has been right for long: of others, dirty data that was called
/// a hole is known (ZFS, APFS, virtiofs), or the answer is another file system's.
pub(super) fn has_trusted_map(magic: u64) -> bool {
    matches!(magic, EXT4 | XFS | BTRFS | TMPFS | F2FS | BCACHEFS)
}

/// Whether a ring may read there. After a short read io_uring goes on by itself; of a file that a FUSE
/// server opened with `FOPEN_DIRECT_IO` it asks for the same bytes once more (seen on Linux 6.18 in
/// what the server is asked for: the same offset, a shorter length).
pub(super) fn has_ring_reads(magic: u64) -> bool {
    magic != FUSE
}

/// Whether a file may hold more than its size says: that is its server's word, and reads of what a FUSE
/// server opened with `FOPEN_DIRECT_IO`, or of 9p without a cache, come to the server whatever it said.
pub(super) fn may_tell_less(magic: u64) -> bool {
    matches!(magic, FUSE | PLAN_9)
}

/// Whether it may tell only when a file is closed that something could not be written.
pub(super) fn tells_at_close(magic: u64) -> bool {
    matches!(magic, NFS | CIFS | SMB2 | CEPH | FUSE | PLAN_9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names() {
        let cases = [(EXT4, "ext4"), (SMB2, "cifs"), (0x9123_683E, "btrfs"), (0, "unknown")];
        for (magic, want) in cases {
            assert_eq!(name(magic), want, "{magic:x}");
        }
    }

    #[test]
    fn those_that_write_at_close_are_known() {
        let cases =
            [(NFS, true), (FUSE, true), (PLAN_9, true), (EXT4, false), (0x0102_1994, false)];
        for (magic, want) in cases {
            assert_eq!(tells_at_close(magic), want, "{}", name(magic));
        }
    }
}
