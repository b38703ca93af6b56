//! The entries of a directory, as `getdents64(2)` packs them into a buffer.
//!
//! Each is: inode (8 bytes), position of the next (8), length of the record (2), type (1), name
//! and NUL; all in the machine's byte order, each record a multiple of 8 bytes long.

use std::ffi::CStr;

use super::FileKind;

const HEADER_BYTES: usize = 19;

/// One name in a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DirectoryEntry<'a> {
    /// The number of the file.
    pub inode: u64,
    /// What it is; [`FileKind::Unknown`] where the file system does not tell.
    pub kind: FileKind,
    /// Its name.
    pub name: &'a CStr,
}

/// Takes a listing apart; `.` and `..` are left out. A malformed rest is not looked at.
pub fn directory_entries(listing: &[u8]) -> impl Iterator<Item = DirectoryEntry<'_>> {
    let mut rest = listing;
    std::iter::from_fn(move || {
        loop {
            let length = usize::from(u16::from_ne_bytes(rest.get(16..18)?.try_into().ok()?));
            let (record, next) = rest.split_at_checked(length)?;
            rest = next;
            let name = CStr::from_bytes_until_nul(record.get(HEADER_BYTES..)?).ok()?;
            if !matches!(name.to_bytes(), b"." | b"..") {
                let inode = u64::from_ne_bytes(record.get(..8)?.try_into().ok()?);
                return Some(DirectoryEntry {
                    inode,
                    kind: FileKind::from_entry(record[18]),
                    name,
                });
            }
        }
    })
}

/// Packs one entry behind the others, as the kernel would; false if there is no room for it.
pub(crate) fn push_entry(
    listing: &mut [u8],
    used: &mut usize,
    entry: DirectoryEntry<'_>,
    position: u64,
) -> bool {
    let name = entry.name.to_bytes_with_nul();
    let length = (HEADER_BYTES + name.len()).next_multiple_of(8);
    let Some(record) = listing.get_mut(*used..*used + length) else { return false };
    record.fill(0);
    record[..8].copy_from_slice(&entry.inode.to_ne_bytes());
    record[8..16].copy_from_slice(&position.to_ne_bytes());
    let length_field = u16::try_from(length).expect("a name is at most 255 bytes");
    record[16..18].copy_from_slice(&length_field.to_ne_bytes());
    record[18] = entry.kind.entry();
    record[HEADER_BYTES..HEADER_BYTES + name.len()].copy_from_slice(name);
    *used += length;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_as_they_were_packed_without_the_dots() {
        let mut listing = [0; 256];
        let mut used = 0;
        let entry = |name| DirectoryEntry { inode: 7, kind: FileKind::Regular, name };
        for name in [c".", c"..", c"a", c"\xff\n and a longer one"] {
            assert!(push_entry(&mut listing, &mut used, entry(name), 1));
        }
        let got: Vec<_> = directory_entries(&listing[..used]).map(|entry| entry.name).collect();
        assert_eq!(got, [c"a", c"\xff\n and a longer one"]);
    }

    #[test]
    fn a_listing_that_is_cut_off_ends_early() {
        let mut listing = [0; 64];
        let mut used = 0;
        let entry = DirectoryEntry { inode: 7, kind: FileKind::Fifo, name: c"name" };
        assert!(push_entry(&mut listing, &mut used, entry, 1));
        for cut in 0..used {
            assert_eq!(directory_entries(&listing[..cut]).count(), 0, "cut at {cut}");
        }
        assert_eq!(directory_entries(&listing[..used]).next(), Some(entry));
    }
}
