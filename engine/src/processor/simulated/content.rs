//! The bytes of one file: what a reader sees, and what would be left of it after a power cut.
//!
//! Bytes lie in pages of 4 KiB, as on ext4 with its usual block size. A page that is not there is a
//! hole; a page without bytes was allocated and never written. What was synced shares its pages
//! with what is current until one of them is written to.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Errno;
use crate::random::Random;

/// Bytes of a page, and of a block of the simulated file systems.
pub(super) const PAGE_BYTES: u64 = 4096;
/// What a disk writes wholly or not at all.
const SECTOR_BYTES: usize = 512;
/// What reads as zeros.
static ZEROS: PageBytes = [0; 4096];

type PageBytes = [u8; 4096];
type Bytes = Arc<PageBytes>;

const _: () = assert!(size_of::<PageBytes>() as u64 == PAGE_BYTES);

/// The content of one regular file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    pages: BTreeMap<u64, Page>,
    durable_length: u64,
    durable_pages: BTreeMap<u64, Option<Bytes>>,
}

/// A page that takes room.
#[derive(Clone, Debug, Default)]
struct Page {
    /// None if it was never written: it reads as zeros and counts as a hole.
    bytes: Option<Bytes>,
    is_dirty: bool,
    is_cached: bool,
    /// What the device has by now, where it is not what was written: a bit flipped behind the file
    /// system. A cached page hides it.
    on_device: Option<Bytes>,
}

impl Page {
    /// Whether a seek takes it for data. What was allocated and never written is a hole, until a
    /// read brings its zeros into the page cache (`iomap_seek_hole` in `fs/iomap/seek.c`).
    /// What the device gives: the bytes that were written, or what has become of them.
    fn device_bytes(&self) -> Option<&PageBytes> {
        self.on_device.as_deref().or(self.bytes.as_deref())
    }

    /// It is not in the page cache any more: what the device has is all that there is.
    fn forget(&mut self) {
        if let Some(bytes) = self.on_device.take() {
            self.bytes = Some(bytes);
        }
    }

    fn counts_as_data(&self) -> bool {
        self.bytes.is_some() || self.is_cached
    }
}

/// Pieces of a range, none of which crosses a page: the page, the offset in it, the length, and
/// where the piece starts in the range.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= length {
            return None;
        }
        let position = offset + done;
        let inside = position % PAGE_BYTES;
        let step = (PAGE_BYTES - inside).min(length - done);
        let piece = (position / PAGE_BYTES, small(inside), small(step), small(done));
        done += step;
        Some(piece)
    })
}

/// A length that fits the memory of the machine.
fn small(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a simulated file fits the memory")
}

impl Content {
    /// How long the file is.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// How many pages take room.
    pub(super) fn page_count(&self) -> u64 {
        self.pages.len() as u64
    }

    /// Gives up to `length` bytes from `offset` on to `sink`, with where each piece starts, and
    /// returns how many there were.
    pub(super) fn read(
        &mut self,
        offset: u64,
        length: u64,
        is_direct: bool,
        mut sink: impl FnMut(usize, &[u8]),
    ) -> u64 {
        let length = length.min(self.length.saturating_sub(offset));
        for (number, inside, step, at) in pieces(offset, length) {
            let bytes = match self.pages.get_mut(&number) {
                Some(page) if is_direct => page.device_bytes(),
                Some(page) => {
                    page.is_cached = true;
                    page.bytes.as_deref()
                }
                None => None,
            };
            sink(at, &bytes.unwrap_or(&ZEROS)[inside..inside + step]);
        }
        length
    }

    /// All the bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; small(self.length)];
        for (number, page) in &self.pages {
            let start = small(number * PAGE_BYTES);
            if let (Some(page), Some(rest)) = (page.device_bytes(), bytes.get_mut(start..)) {
                let length = rest.len().min(page.len());
                rest[..length].copy_from_slice(&page[..length]);
            }
        }
        bytes
    }

    /// Writes `bytes` at `offset`, taking pages from `room`; returns how many bytes there was room
    /// for.
    pub(super) fn write(
        &mut self,
        offset: u64,
        bytes: &[u8],
        is_direct: bool,
        room: &mut u64,
    ) -> u64 {
        let mut written = 0;
        for (number, inside, step, at) in pieces(offset, bytes.len() as u64) {
            let page = match self.pages.entry(number) {
                std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::btree_map::Entry::Vacant(_) if *room == 0 => break,
                std::collections::btree_map::Entry::Vacant(place) => {
                    *room -= 1;
                    place.insert(Page::default())
                }
            };
            let target = page.bytes.get_or_insert_with(|| Arc::new(ZEROS));
            Arc::make_mut(target)[inside..inside + step].copy_from_slice(&bytes[at..at + step]);
            page.is_dirty = true;
            page.is_cached = !is_direct;
            page.on_device = None;
            written += step as u64;
        }
        if written > 0 {
            self.length = self.length.max(offset + written);
        }
        written
    }

    /// Makes the file this long, giving pages behind the end back to `room`.
    pub(super) fn truncate(&mut self, length: u64, room: &mut u64) {
        if length < self.length {
            let gone = self.pages.split_off(&length.div_ceil(PAGE_BYTES));
            *room += gone.len() as u64;
            self.zero(length, length.next_multiple_of(PAGE_BYTES) - length);
        }
        self.length = length;
    }

    /// Reserves the pages of a range, and makes the file as long if asked to.
    pub(super) fn allocate(
        &mut self,
        offset: u64,
        length: u64,
        is_extending: bool,
        room: &mut u64,
    ) -> Result<(), Errno> {
        let numbers = offset / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES);
        let there = self.pages.range(numbers.clone()).count() as u64;
        let wanted = numbers.end - numbers.start - there;
        *room = room.checked_sub(wanted).ok_or(Errno::ENOSPC)?;
        for number in numbers {
            self.pages.entry(number).or_default();
        }
        if is_extending {
            self.length = self.length.max(offset + length);
        }
        Ok(())
    }

    /// Makes a range read as zeros, giving whole pages back to `room`.
    pub(super) fn punch(&mut self, offset: u64, length: u64, room: &mut u64) {
        let whole = offset.div_ceil(PAGE_BYTES)..(offset + length) / PAGE_BYTES;
        if whole.start < whole.end {
            let numbers: Vec<u64> = self.pages.range(whole).map(|(number, _)| *number).collect();
            for number in numbers {
                self.pages.remove(&number);
                *room += 1;
            }
        }
        self.zero(offset, length);
    }

    /// Sets what pages there are in a range to zeros.
    pub(super) fn zero(&mut self, offset: u64, length: u64) {
        let numbers = offset / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES);
        for (number, page) in self.pages.range_mut(numbers) {
            let start = number * PAGE_BYTES;
            let (from, to) = (offset.max(start), (offset + length).min(start + PAGE_BYTES));
            if let Some(bytes) = &mut page.bytes {
                Arc::make_mut(bytes)[small(from - start)..small(to - start)].fill(0);
                page.is_dirty = true;
            }
        }
    }

    /// Where data starts, at or behind `offset`; none if only a hole follows.
    pub(super) fn seek_data(&self, offset: u64) -> Option<u64> {
        let mut pages = self.pages.range(offset / PAGE_BYTES..);
        let (number, _) = pages.find(|(_, page)| page.counts_as_data())?;
        let found = offset.max(number * PAGE_BYTES);
        (found < self.length).then_some(found)
    }

    /// Where a hole starts, at or behind `offset`; the end of the file is one.
    pub(super) fn seek_hole(&self, offset: u64) -> Option<u64> {
        if offset >= self.length {
            return None;
        }
        let mut number = offset / PAGE_BYTES;
        for (there, page) in self.pages.range(number..) {
            if *there != number || !page.counts_as_data() {
                break;
            }
            number += 1;
        }
        Some(offset.max(number * PAGE_BYTES).min(self.length))
    }

    /// Shares all of another file's pages, from the start.
    pub(super) fn share(&mut self, source: &Self, room: &mut u64) -> Result<(), Errno> {
        let shared = source.length.div_ceil(PAGE_BYTES);
        let there = self.pages.range(..shared).count() as u64;
        let wanted = source.pages.range(..shared).count() as u64;
        *room = (*room + there).checked_sub(wanted).ok_or(Errno::ENOSPC)?;
        let mut behind = self.pages.split_off(&shared);
        self.pages = source.pages.range(..shared).map(|(k, v)| (*k, v.clone())).collect();
        for page in self.pages.values_mut() {
            page.is_dirty = true;
            page.is_cached = false;
        }
        self.pages.append(&mut behind);
        self.length = self.length.max(source.length);
        Ok(())
    }

    /// How many pages of a range are in the page cache.
    pub(super) fn cached(&self, offset: u64, length: u64) -> u64 {
        let range = Self::page_range(offset, length);
        self.pages.range(range).filter(|(_, page)| page.is_cached).count() as u64
    }

    /// Drops what is clean of a range from the page cache. Part pages at the ends stay.
    pub(super) fn uncache(&mut self, offset: u64, length: u64) {
        for (_, page) in self.pages.range_mut(Self::page_range(offset, length)) {
            page.is_cached &= page.is_dirty;
            if !page.is_cached {
                page.forget();
            }
        }
    }

    /// Flips a bit of what the device has, if the byte is in a page that was written.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) -> bool {
        let number = offset / PAGE_BYTES;
        let Some(page) = self.pages.get_mut(&number) else { return false };
        let Some(bytes) = page.device_bytes() else { return false };
        let mut bytes = *bytes;
        bytes[small(offset % PAGE_BYTES)] ^= bit;
        let bytes = Arc::new(bytes);
        self.durable_pages.insert(number, Some(Arc::clone(&bytes)));
        page.on_device = Some(bytes);
        if !page.is_cached {
            page.forget();
        }
        true
    }

    /// The pages that a range touches; a length of 0 means to the end.
    fn page_range(offset: u64, length: u64) -> std::ops::RangeInclusive<u64> {
        let end = if length == 0 { u64::MAX } else { offset.saturating_add(length - 1) };
        offset / PAGE_BYTES..=end / PAGE_BYTES
    }

    /// Puts everything on stable storage.
    pub(super) fn sync(&mut self) {
        self.durable_length = self.length;
        let pages = &self.pages;
        self.durable_pages.retain(|number, _| pages.contains_key(number));
        for (number, page) in &mut self.pages {
            if page.is_dirty {
                page.is_dirty = false;
                self.durable_pages.insert(*number, page.bytes.clone());
            }
        }
    }

    /// A write-back that failed: what was dirty counts as clean and is not on stable storage, so
    /// that a second sync succeeds and proves nothing (`fsync(2)`, NOTES).
    ///
    /// Returns whether there was anything to lose.
    pub(super) fn lose_dirty_pages(&mut self) -> bool {
        let mut has_lost = false;
        for page in self.pages.values_mut() {
            has_lost |= page.is_dirty;
            page.is_dirty = false;
        }
        has_lost
    }

    /// What a power cut leaves: what was synced, and of each sector that was not, the old or the
    /// new, at random. Takes its pages from `room`.
    pub(super) fn after_crash(&self, random: &mut Random, room: &mut u64) -> Self {
        let length = match random.below(3) {
            _ if self.length == self.durable_length => self.length,
            0 => self.length,
            1 => self.durable_length,
            _ => {
                let (low, high) =
                    (self.length.min(self.durable_length), self.length.max(self.durable_length));
                low + random.below(high - low + 1)
            }
        };
        let mut left = Self { length, durable_length: length, ..Self::default() };
        for (number, page) in &self.pages {
            let old = self.durable_pages.get(number);
            let bytes = match (&page.bytes, old) {
                (_, old) if !page.is_dirty => old.cloned(),
                (None, old) => Some(old.cloned().flatten()),
                (Some(new), old) => Some(Some(torn(new, old.and_then(Option::as_ref), random))),
            };
            left.durable_pages.extend(bytes.map(|bytes| (*number, bytes)));
        }
        for (number, bytes) in &self.durable_pages {
            if !self.pages.contains_key(number) && random.once_in(2) {
                left.durable_pages.insert(*number, bytes.clone());
            }
        }
        left.durable_pages.split_off(&length.div_ceil(PAGE_BYTES));
        let pages = left
            .durable_pages
            .iter()
            .map(|(number, bytes)| (*number, Page { bytes: bytes.clone(), ..Page::default() }));
        left.pages = pages.collect();
        // What lies behind the end in the last page reads as zeros once the file grows again.
        left.zero(length, length.next_multiple_of(PAGE_BYTES) - length);
        left.sync();
        *room = room.saturating_sub(left.page_count());
        left
    }
}

/// Sectors of the old and of the new page, at random.
fn torn(new: &Bytes, old: Option<&Bytes>, random: &mut Random) -> Bytes {
    let mut left: Bytes = old.map_or_else(|| Arc::new(ZEROS), Arc::clone);
    let coins = match random.below(3) {
        0 => 0,
        1 => u64::MAX,
        _ => random.next(),
    };
    if coins == u64::MAX {
        return Arc::clone(new);
    }
    let (sectors, sources) = (Arc::make_mut(&mut left), new.chunks(SECTOR_BYTES));
    for (number, (sector, source)) in sectors.chunks_mut(SECTOR_BYTES).zip(sources).enumerate() {
        if coins >> number & 1 == 1 {
            sector.copy_from_slice(source);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 1 << 20;

    fn content(writes: &[(u64, &[u8])]) -> Content {
        let mut content = Content::default();
        for (offset, bytes) in writes {
            assert_eq!(content.write(*offset, bytes, false, &mut { MANY }), bytes.len() as u64);
        }
        content
    }

    #[test]
    fn a_flip_is_hidden_by_a_cached_page_and_seen_on_the_device() {
        let (mut content, mut room) = (Content::default(), 10);
        content.write(0, &[7; 100], false, &mut room);
        content.sync();
        assert!(content.flip(50, 1));
        let byte = |content: &mut Content, is_direct| {
            let mut read = 0;
            content.read(50, 1, is_direct, |_, bytes| read = bytes[0]);
            read
        };
        assert_eq!((byte(&mut content, false), byte(&mut content, true)), (7, 6));
        content.uncache(0, 0);
        assert_eq!((byte(&mut content, false), byte(&mut content, true)), (6, 6));
        content.write(50, &[9], false, &mut room);
        assert_eq!((byte(&mut content, false), byte(&mut content, true)), (9, 9));
        assert!(!content.flip(1 << 20, 1), "nothing is there");
    }

    #[test]
    fn bytes_read_back_as_written_over_pages_and_holes() {
        let mut content = content(&[(4090, b"across the pages"), (12_288, b"x")]);
        let mut got = [9; 20];
        let count = content.read(4088, 20, false, |at, bytes| {
            got[at..at + bytes.len()].copy_from_slice(bytes);
        });
        assert_eq!((count, &got[..]), (20, &b"\0\0across the pages\0\0"[..]));
        assert_eq!(content.length(), 12_289);
        assert_eq!(content.page_count(), 3);
        assert_eq!(content.to_vec()[12_288], b'x');
        assert_eq!(content.read(12_289, 5, false, |_, _| panic!("there is nothing")), 0);
    }

    #[test]
    fn holes_and_data_are_found_where_the_kernel_finds_them() {
        let content = content(&[(0, b"x"), (8192, &[1; 4096]), (20_000, b"x")]);
        let cases = [
            ("data at the start", 0, Some(0), Some(4096)),
            ("inside data", 100, Some(100), Some(4096)),
            ("inside a hole", 5000, Some(8192), Some(5000)),
            ("data that ends in a hole", 8192, Some(8192), Some(12_288)),
            ("the end is a hole", 20_000, Some(20_000), Some(20_001)),
            ("behind the end is nothing", 20_001, None, None),
        ];
        for (name, offset, data, hole) in cases {
            assert_eq!(content.seek_data(offset), data, "{name}");
            assert_eq!(content.seek_hole(offset), hole, "{name}");
        }
    }

    #[test]
    fn a_full_disk_takes_what_it_has_room_for() {
        let (mut content, mut room) = (Content::default(), 1);
        assert_eq!(content.write(4000, &[1; 1000], false, &mut room), 96);
        assert_eq!((room, content.length()), (0, 4096));
        content.truncate(0, &mut room);
        assert_eq!(room, 1);
        assert_eq!(content.allocate(0, 8192, true, &mut room), Err(Errno::ENOSPC));
        assert_eq!((room, content.length()), (1, 0));
    }

    #[test]
    fn a_shorter_file_reads_zeros_when_it_grows_again() {
        let mut content = content(&[(0, &[7; 5000])]);
        content.truncate(4100, &mut 0);
        content.truncate(5000, &mut 0);
        assert_eq!(content.to_vec()[4100..], [0; 900]);
        assert_eq!(content.to_vec()[..4100], [7; 4100]);
    }

    #[test]
    fn a_hole_that_is_dug_gives_back_whole_pages_and_zeroes_the_rest() {
        let (mut content, mut room) = (content(&[(0, &[7; 16_384])]), 0);
        content.punch(4095, 8000, &mut room);
        assert_eq!((room, content.page_count()), (1, 3));
        let bytes = content.to_vec();
        assert!(bytes[..4095].iter().all(|byte| *byte == 7));
        assert!(bytes[4095..12_095].iter().all(|byte| *byte == 0));
        assert!(bytes[12_095..].iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_tears_the_rest_at_sectors() {
        let mut content = content(&[(0, &[1; 8192])]);
        content.sync();
        content.write(0, &[2; 4096], false, &mut { MANY });
        let (mut old, mut new, mut mixed) = (0, 0, 0);
        for seed in 0..100 {
            let bytes = content.after_crash(&mut Random::new(seed), &mut { MANY }).to_vec();
            assert_eq!(bytes.len(), 8192, "seed {seed}");
            assert!(bytes[4096..].iter().all(|byte| *byte == 1), "seed {seed}");
            for sector in bytes.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}");
            }
            match bytes[..4096].iter().filter(|byte| **byte == 2).count() {
                0 => old += 1,
                4096 => new += 1,
                _ => mixed += 1,
            }
        }
        assert!(old > 0 && new > 0 && mixed > 0, "old {old}, new {new}, mixed {mixed}");
    }

    #[test]
    fn a_second_sync_after_a_failed_one_proves_nothing() {
        let mut content = content(&[(0, &[1; 4096])]);
        content.sync();
        content.write(0, &[2; 4096], false, &mut { MANY });
        content.lose_dirty_pages();
        content.sync();
        let left = content.after_crash(&mut Random::new(1), &mut { MANY });
        assert_eq!(left.to_vec(), [1; 4096]);
    }
}
