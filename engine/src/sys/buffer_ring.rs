//! A ring of buffers that the kernel takes from when something was received: the program adds to
//! its tail, the kernel takes from its head (`io_uring_register_buf_ring(3)`, Linux 5.19).

#![allow(unsafe_code, reason = "a home of unsafe: memory shared with the kernel")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use memmap2::{MmapMut, MmapOptions};
use nix::errno::Errno;

/// Entries in memory of their own: a page or more, so that they start where a page does.
pub(crate) struct BufferRing {
    /// Owns the pages. Never touched through this field after `entries` was taken from it.
    _mapping: MmapMut,
    entries: NonNull<BufRingEntry>,
    count: u16,
    tail: u16,
}

impl BufferRing {
    /// A ring for at least `buffers` buffers, empty.
    pub(crate) fn new(buffers: u32) -> Result<Self, Errno> {
        let count = buffers.checked_next_power_of_two().and_then(|it| u16::try_from(it).ok());
        let count = count.filter(|count| *count <= ENTRIES_MAX).ok_or(Errno::EINVAL)?;
        let length = usize::from(count) * size_of::<BufRingEntry>();
        let mapping = MmapOptions::new().len(length).map_anon();
        let mut mapping =
            mapping.map_err(|error| error.raw_os_error().map_or(Errno::ENOMEM, Errno::from_raw))?;
        let entries = NonNull::new(mapping.as_mut_ptr().cast()).ok_or(Errno::ENOMEM)?;
        Ok(Self { _mapping: mapping, entries, count, tail: 0 })
    }

    /// Where the kernel finds it, and how many entries there are.
    pub(crate) fn parts(&self) -> (u64, u16) {
        (self.entries.as_ptr().addr() as u64, self.count)
    }

    /// Gives the kernel a buffer, once it is published.
    ///
    /// # Safety
    ///
    /// The kernel may write to the `length` bytes at `start` until a completion names `number`, or
    /// until the ring that this is registered with is closed with nothing in flight: they stay
    /// alive, in place and unshared until then. No more buffers are in it than it was made for.
    pub(crate) unsafe fn add(&mut self, start: NonNull<u8>, length: u32, number: u16) {
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: the place is inside the mapping, as `count` is a power of two, and the kernel reads
        // only entries from its head to the published tail: it has taken what was here, since no more
        // are in the ring than it has places. The fields are set through a pointer to this entry;
        // the tail lies in the first entry's last two bytes, which these three do not touch.
        let entry = unsafe { &mut *self.entries.as_ptr().add(place) };
        entry.set_addr(start.as_ptr().addr() as u64);
        entry.set_len(length);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was added.
    pub(crate) fn publish(&mut self) {
        // SAFETY: `entries` is the address of the first entry, which is initialised: it was mapped
        // as zeros. The tail is a number of 16 bits, aligned, that the kernel only reads.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// The most that the kernel takes.
const ENTRIES_MAX: u16 = 1 << 15;
