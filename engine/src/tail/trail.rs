//! What a file is known by: not its name, and not its number alone, but what was read of it.
//!
//! Device and inode say which file is meant, and are used again for others. So a position in a file
//! carries a **marker**: digests of the first bytes, as many as are known, and of the bytes before
//! the position. A file that carries the marker is the same one, or a copy of it.
//!
//! ```text
//! |<- head, up to 1 KiB ->| ...            |<- window, up to 256 B ->|
//! 0                                                               offset
//! ```

use std::ops::Range;

use twox_hash::XxHash3_64;

use crate::limits::{TAIL_HEAD_BYTES, TAIL_WINDOW_BYTES};

/// A position in a file, and what a file must hold for it to be that position. 28 bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Marker {
    pub(super) offset_bytes: u64,
    pub(super) head_bytes: u32,
    pub(super) head: u64,
    pub(super) window: u64,
}

/// The bytes that a marker is made of, while a file is read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Trail {
    offset_bytes: u64,
    head: Vec<u8>,
    window: Vec<u8>,
}

impl Marker {
    /// The bytes whose digest is the head's.
    pub(super) fn head_range(&self) -> Range<u64> {
        0..u64::from(self.head_bytes)
    }

    /// The bytes whose digest is the window's.
    pub(super) fn window_range(&self) -> Range<u64> {
        window_range(self.offset_bytes)
    }

    /// How many bytes of the file it knows something of: a shorter file does not carry it.
    pub(super) fn reach_bytes(&self) -> u64 {
        self.offset_bytes.max(u64::from(self.head_bytes))
    }
}

/// The bytes before an offset that count.
pub(super) fn window_range(offset_bytes: u64) -> Range<u64> {
    offset_bytes.saturating_sub(TAIL_WINDOW_BYTES)..offset_bytes
}

impl Trail {
    /// At an offset of a file that has these bytes at its start and before the offset.
    pub(super) fn at(offset_bytes: u64, head: Vec<u8>, window: Vec<u8>) -> Self {
        Self { offset_bytes, head, window }
    }

    /// At a marker, if the bytes that were read in its ranges are those it was made of.
    pub(super) fn recall(marker: &Marker, head: Vec<u8>, window: Vec<u8>) -> Option<Self> {
        let trail = Self::at(marker.offset_bytes, head, window);
        (trail.marker() == *marker).then_some(trail)
    }

    pub(super) fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    /// Goes on behind bytes that were read at the offset.
    pub(super) fn advance(&mut self, bytes: &[u8]) {
        let known = (self.head.len() as u64).checked_sub(self.offset_bytes);
        let known = known.and_then(|known| usize::try_from(known).ok());
        if let Some(new) = known.and_then(|known| bytes.get(known..)) {
            let room = TAIL_HEAD_BYTES - self.head.len();
            self.head.extend(&new[..new.len().min(room)]);
        }
        self.offset_bytes += bytes.len() as u64;
        let window = usize::try_from(TAIL_WINDOW_BYTES).unwrap_or(usize::MAX);
        self.window.extend(&bytes[bytes.len().saturating_sub(window)..]);
        self.window.drain(..self.window.len().saturating_sub(window));
    }

    pub(super) fn marker(&self) -> Marker {
        Marker {
            offset_bytes: self.offset_bytes,
            head_bytes: u32::try_from(self.head.len()).unwrap_or(u32::MAX),
            head: XxHash3_64::oneshot(&self.head),
            window: XxHash3_64::oneshot(&self.window),
        }
    }

    /// What a file of this length carries if all of it is the beginning of this one; none if too little
    /// is known for that.
    pub(super) fn beginning(&self, size_bytes: u64) -> Option<Marker> {
        let head = self.head.get(..usize::try_from(size_bytes).ok()?)?;
        Some(Self::at(0, head.to_vec(), Vec::new()).marker())
    }

    /// The first bytes of the file, up to so many.
    pub(super) fn stem(&self, length: usize) -> &[u8] {
        &self.head[..length.min(self.head.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn content(length: usize) -> Vec<u8> {
        let mut random = Random::new(length as u64);
        (0..length).map(|_| random.next().to_le_bytes()[0]).collect()
    }

    fn part(content: &[u8], range: Range<u64>) -> Vec<u8> {
        let end = usize::try_from(range.end).unwrap().min(content.len());
        content[usize::try_from(range.start).unwrap().min(end)..end].to_vec()
    }

    fn is_carried(content: &[u8], marker: &Marker) -> bool {
        let (head, window) = (marker.head_range(), marker.window_range());
        Trail::recall(marker, part(content, head), part(content, window)).is_some()
    }

    #[test]
    fn a_marker_is_the_same_however_the_bytes_came() {
        let content = content(5000);
        let mut random = Random::new(7);
        for _ in 0..200 {
            let known = usize::try_from(random.below(2000)).unwrap().min(TAIL_HEAD_BYTES);
            let mut trail = Trail::at(0, content[..known].to_vec(), Vec::new());
            let mut at = 0;
            while at < content.len() {
                let length = usize::try_from(1 + random.below(900)).unwrap();
                let end = (at + length).min(content.len());
                trail.advance(&content[at..end]);
                at = end;
                let marker = trail.marker();
                let head = at.max(known).min(TAIL_HEAD_BYTES);
                assert_eq!(marker.head_bytes as usize, head);
                let recalled = Trail::recall(
                    &marker,
                    content[..head].to_vec(),
                    part(&content, marker.window_range()),
                );
                assert_eq!(recalled.as_ref(), Some(&trail), "known {known}, at {at}");
            }
        }
    }

    #[test]
    fn another_file_does_not_carry_the_marker() {
        let content = content(5000);
        let mut trail = Trail::at(0, Vec::new(), Vec::new());
        trail.advance(&content[..3000]);
        let marker = trail.marker();
        let changed = |at: usize| {
            let mut changed = content.clone();
            changed[at] ^= 1;
            changed
        };
        let cases = [
            ("the same", content.clone(), true),
            ("grown", [content.clone(), vec![1]].concat(), true),
            ("cut to the offset", content[..3000].to_vec(), true),
            ("cut below the offset", content[..2999].to_vec(), false),
            ("cut to its head", content[..1024].to_vec(), false),
            ("empty", Vec::new(), false),
            ("another first byte", changed(0), false),
            ("another last byte of the head", changed(1023), false),
            ("another byte before the offset", changed(2999), false),
            ("another first byte of the window", changed(3000 - 256), false),
            ("what is not looked at", changed(2000), true),
        ];
        for (name, content, want) in cases {
            assert_eq!(is_carried(&content, &marker), want, "{name}");
        }
    }

    #[test]
    fn at_the_start_the_head_alone_tells() {
        let marker = Trail::at(0, b"2026-11-24 started\n".to_vec(), Vec::new()).marker();
        assert!(is_carried(b"2026-11-24 started\nand more", &marker));
        assert!(!is_carried(b"2026-11-25 started\n", &marker));
        assert!(!is_carried(b"2026-11-24", &marker), "it was cut");
        assert_eq!(marker.reach_bytes(), 19);
        assert!(is_carried(
            b"",
            &Marker {
                head: XxHash3_64::oneshot(b""),
                window: XxHash3_64::oneshot(b""),
                ..Marker::default()
            }
        ));
    }
}
