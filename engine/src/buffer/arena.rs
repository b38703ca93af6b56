//! One piece of memory on huge pages that is registered with a ring once and handed out in blocks.

#![allow(unsafe_code, reason = "a home of unsafe: blocks of one mapping, lent apart")]

use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::slice;

use memmap2::MmapMut;

use crate::error::Errno;
use crate::limits::HUGE_PAGE_BYTES;
use crate::sys::mapping;

/// Memory that is cut into blocks of one size. It lives until the last owner of it is gone.
#[derive(Debug)]
pub(crate) struct Arena {
    /// Owns the pages. Never touched through this field after `start` was taken from it.
    _mapping: MmapMut,
    start: NonNull<u8>,
    length: usize,
    block_bytes: usize,
}

/// One block of an arena, borrowed from nobody: who holds it alone may use the bytes. Counted from 1,
/// so that a place that may have one needs no more room.
#[derive(Debug)]
pub(crate) struct Block(NonZeroU32);

// SAFETY: the mapping belongs to the process and to no thread, and whoever drops the arena last unmaps
// it. `start` is not shared with anything outside.
unsafe impl Send for Arena {}

// SAFETY: through `&Arena` bytes are reached with a `Block` only. Each block exists once (`blocks` is
// called once, and a block can't be cloned) and blocks do not overlap, so two threads at a time have
// references to the same bytes only if both borrow one block, and then shared: to change bytes takes
// `&mut Block`.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps room for `count` blocks of `block_bytes` each.
    pub(crate) fn new(count: u32, block_bytes: u32) -> Result<Self, Errno> {
        let wanted = u64::from(count) * u64::from(block_bytes);
        let length = wanted.max(1).checked_next_multiple_of(HUGE_PAGE_BYTES);
        let length = usize::try_from(length.ok_or(Errno::ENOMEM)?).map_err(|_| Errno::ENOMEM)?;
        let mut mapping = mapping::map_huge(length)?;
        let start = NonNull::new(mapping.as_mut_ptr()).ok_or(Errno::ENOMEM)?;
        Ok(Self { _mapping: mapping, start, length, block_bytes: block_bytes as usize })
    }

    /// All blocks. To be called once: a block that exists twice would be lent twice.
    pub(crate) fn blocks(&self, count: u32) -> Vec<Block> {
        assert!(count as usize * self.block_bytes <= self.length, "more blocks than memory");
        (1..=count).rev().filter_map(NonZeroU32::new).map(Block).collect()
    }

    /// The whole memory, as a ring registers it: its address and its length.
    pub(crate) fn range(&self) -> (NonNull<u8>, usize) {
        (self.start, self.length)
    }

    pub(crate) fn bytes<'a>(&'a self, block: &'a Block) -> &'a [u8] {
        // SAFETY: the bytes are inside the mapping (`blocks` checked it), which lives as long as
        // `self`; they were zeroed when mapped. `Block` is neither Clone nor Copy, so whoever
        // shows it is its only holder: no `&mut` to these bytes exists beside this borrow of it.
        // The kernel writes to them only while an operation holds the block, out of safe reach.
        unsafe { slice::from_raw_parts(self.address(block).as_ptr(), self.block_bytes) }
    }

    pub(crate) fn bytes_mut<'a>(&'a self, block: &'a mut Block) -> &'a mut [u8] {
        // SAFETY: as in `bytes`; the mutable borrow of the only `Block` makes this the only
        // reference to its bytes, and blocks do not overlap.
        unsafe { slice::from_raw_parts_mut(self.address(block).as_ptr(), self.block_bytes) }
    }

    /// Where a block starts.
    pub(crate) fn address(&self, block: &Block) -> NonNull<u8> {
        // SAFETY: `blocks` made this number and checked that the block ends inside the mapping.
        unsafe { self.start.add(block.number() as usize * self.block_bytes) }
    }
}

impl Block {
    /// Which one of its arena, counted from 0.
    pub(crate) fn number(&self) -> u32 {
        self.0.get() - 1
    }
}
