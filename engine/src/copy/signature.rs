//! What a disk holds, by the marks that file systems, volumes and partition tables leave.
//!
//! Not all that exist: those that are common on Linux, each by its oldest and most certain mark. A
//! disk without any may still hold data; one with any is not overwritten unasked.

/// How much of the start of a disk is looked at: the marks of ZFS are the last.
pub(super) const HEAD_BYTES: u32 = 256 << 10;
/// How much of its end: the oldest superblock of md lies up to 128 KiB before it.
pub(super) const TAIL_BYTES: u32 = 128 << 10;

/// A mark: what it belongs to, and the bytes at one of some places.
struct Mark {
    what: &'static str,
    bytes: &'static [u8],
    places: &'static [usize],
}

/// The more telling ones first: a disk with a file system may have a boot sector, too.
const MARKS: [Mark; 19] = [
    Mark { what: "an ext2, ext3 or ext4 file system", bytes: b"\x53\xEF", places: &[0x438] },
    Mark { what: "an XFS file system", bytes: b"XFSB", places: &[0] },
    Mark { what: "a btrfs file system", bytes: b"_BHRfS_M", places: &[0x1_0040] },
    Mark { what: "an f2fs file system", bytes: b"\x10\x20\xF5\xF2", places: &[0x400] },
    Mark { what: "a bcachefs file system", bytes: BCACHEFS, places: &[0x1018] },
    Mark { what: "an NTFS file system", bytes: b"NTFS    ", places: &[3] },
    Mark { what: "an exFAT file system", bytes: b"EXFAT   ", places: &[3] },
    Mark { what: "an ISO 9660 file system", bytes: b"CD001", places: &[0x8001] },
    Mark { what: "a squashfs file system", bytes: b"hsqs", places: &[0] },
    Mark { what: "an EROFS file system", bytes: b"\xE2\xE1\xF5\xE0", places: &[0x400] },
    Mark { what: "swap space", bytes: b"SWAPSPACE2", places: SWAP },
    Mark { what: "swap space", bytes: b"SWAP-SPACE", places: SWAP },
    Mark { what: "a LUKS volume", bytes: b"LUKS\xBA\xBE", places: &[0] },
    Mark { what: "a LUKS volume", bytes: b"SKUL\xBA\xBE", places: &[0x4000, 0x8000, 0x1_0000] },
    Mark { what: "an LVM volume", bytes: b"LABELONE", places: &[0, 512, 1024, 1536] },
    Mark { what: "a bcache device", bytes: BCACHE, places: &[0x1018] },
    Mark { what: "part of an md array", bytes: MD, places: &[0, 4096] },
    Mark { what: "a GPT partition table", bytes: b"EFI PART", places: &[512, 4096] },
    Mark { what: "a partition table or a boot sector", bytes: b"\x55\xAA", places: &[510] },
];

/// The last bytes of a first page of 4, 8, 16 or 64 KiB.
const SWAP: &[usize] = &[4086, 8182, 16_374, 65_526];
const BCACHEFS: &[u8] = b"\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF";
const BCACHE: &[u8] = b"\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81";
const MD: &[u8] = b"\xFC\x4E\x2B\xA9";
const ZFS: &[u8] = b"\x0C\xB1\xBA\x00\x00\x00\x00\x00";
/// Where the uberblocks of a ZFS label lie, and how far from each other (at least).
const ZFS_PLACES: std::ops::Range<usize> = 128 << 10..256 << 10;
const ZFS_STEP: usize = 1 << 10;

/// What a disk of `size_bytes` holds; none if no mark is known. `head` is its start and `tail` its
/// end, each as long as the constants above say, or all of a disk that is shorter.
pub(super) fn find(head: &[u8], tail: &[u8], size_bytes: u64) -> Option<&'static str> {
    let at_start = MARKS
        .iter()
        .find(|mark| mark.places.iter().any(|place| starts_with(head, *place, mark.bytes)));
    at_start
        .map(|mark| mark.what)
        .or_else(|| find_zfs(head))
        .or_else(|| find_at_end(tail, size_bytes))
}

fn find_zfs(head: &[u8]) -> Option<&'static str> {
    let mut places = ZFS_PLACES.step_by(ZFS_STEP);
    places.any(|place| starts_with(head, place, ZFS)).then_some("part of a ZFS pool")
}

/// The marks that lie at the end: md's of versions 0.90 and 1.0 (`md_p.h`), and the second GPT.
fn find_at_end(tail: &[u8], size_bytes: u64) -> Option<&'static str> {
    let start = size_bytes - tail.len() as u64;
    let has = |place: Option<u64>, bytes: &[u8]| {
        let inside = place.and_then(|place| usize::try_from(place.checked_sub(start)?).ok());
        inside.is_some_and(|inside| starts_with(tail, inside, bytes))
    };
    let old_md = (size_bytes & !0xFFFF).checked_sub(0x1_0000);
    let new_md = size_bytes.checked_sub(0x2000).map(|place| place & !0xFFF);
    if has(old_md, MD) || has(new_md, MD) {
        return Some("part of an md array");
    }
    let sectors = [512, 4096];
    let is_gpt = sectors.iter().any(|sector| has(size_bytes.checked_sub(*sector), b"EFI PART"));
    is_gpt.then_some("a GPT partition table")
}

fn starts_with(bytes: &[u8], place: usize, mark: &[u8]) -> bool {
    bytes.get(place..).is_some_and(|rest| rest.starts_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 10 << 20;

    /// What is found on a disk of zeros with these bytes at this place.
    fn found(place: usize, bytes: &[u8]) -> Option<&'static str> {
        let mut disk = vec![0; SIZE];
        disk[place..place + bytes.len()].copy_from_slice(bytes);
        find(&disk[..HEAD_BYTES as usize], &disk[SIZE - TAIL_BYTES as usize..], SIZE as u64)
    }

    #[test]
    fn every_mark_is_found_where_it_lies_and_nowhere_else() {
        for mark in &MARKS {
            for place in mark.places {
                assert_eq!(found(*place, mark.bytes), Some(mark.what), "at {place}");
            }
        }
        assert_eq!(found(5 << 20, MD), None);
        assert_eq!(found(0, &[]), None);
    }

    #[test]
    fn marks_at_the_end_are_found() {
        let cases = [
            (SIZE - 0x1_0000, MD, "part of an md array"),
            (SIZE - 0x2000, MD, "part of an md array"),
            (SIZE - 512, b"EFI PART", "a GPT partition table"),
            (SIZE - 4096, b"EFI PART", "a GPT partition table"),
            ((128 << 10) + 7 * 1024, ZFS, "part of a ZFS pool"),
        ];
        for (place, bytes, want) in cases {
            assert_eq!(found(place, bytes), Some(want), "at {place}");
        }
    }

    #[test]
    fn a_disk_may_be_shorter_than_any_mark() {
        for size in [0, 1, 511, 512, 513, 4096] {
            let disk = vec![0; size];
            assert_eq!(find(&disk, &disk, size as u64), None, "{size} bytes");
        }
    }
}
