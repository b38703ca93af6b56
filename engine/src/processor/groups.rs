//! Groups of buffers that a ring takes from when something was received.
//!
//! ```text
//! free in its pool --offer--> the kernel's --(completion names it)--> lease --(dropped)--> free
//! ```
//!
//! A block is owned by exactly one of these: the pool, this table while the kernel may write to the
//! block, or a lease.

#![allow(unsafe_code, reason = "a home of unsafe: memory that the kernel uses")]

use std::sync::Arc;

use crate::buffer::{Arena, Block, Lease, ReceivePool, Registered};
use crate::error::Errno;
use crate::limits::RECEIVE_POOLS_MAX;
use crate::sys::buffer_ring::BufferRing;
use crate::sys::ring::Ring;

/// The groups of one ring, by number.
#[derive(Default)]
pub(super) struct Groups(Vec<Group>);

struct Group {
    pool: ReceivePool,
    /// Memory that the kernel reads; and what it may write to, by the block's number.
    ring: BufferRing,
    offered: Vec<Option<Block>>,
    /// How many of them there are.
    offered_count: u32,
}

impl Groups {
    /// Makes a group of an arena's blocks, and registers it; or where the kernel has no such groups, a
    /// pool of no group.
    pub(super) fn add(
        &mut self,
        kernel: &Ring,
        ring: u64,
        (arena, count, block_bytes): (Arc<Arena>, u32, u32),
    ) -> ReceivePool {
        let Ok(buffers) = self.register(kernel, count) else {
            return ReceivePool::new(arena, count, block_bytes, None);
        };
        let index = u16::try_from(self.0.len()).expect("groups are few");
        let group = Some(Registered { ring, index });
        let pool = ReceivePool::new(arena, count, block_bytes, group);
        let offered = (0..count).map(|_| None).collect();
        self.0.push(Group { pool: pool.clone(), ring: buffers, offered, offered_count: 0 });
        pool
    }

    fn register(&self, kernel: &Ring, count: u32) -> Result<BufferRing, Errno> {
        if self.0.len() >= RECEIVE_POOLS_MAX {
            return Err(Errno::ENOSPC);
        }
        let buffers = BufferRing::new(count)?;
        let index = u16::try_from(self.0.len()).expect("groups are few");
        // SAFETY: the buffer ring is kept with its group, and groups until the ring is closed with
        // nothing in flight, or for ever (`KernelProcessor::drop`). Refused, it is not used.
        unsafe { kernel.register_buffer_ring(&buffers, index) }?;
        Ok(buffers)
    }

    /// The number of a pool's group, if it is one of this ring's.
    pub(super) fn of(pool: &ReceivePool, ring: u64) -> Option<u16> {
        pool.group().filter(|group| group.ring == ring).map(|group| group.index)
    }

    /// Offers the kernel all blocks that nobody has.
    pub(super) fn offer(&mut self) {
        for group in &mut self.0 {
            if group.pool.has_free() {
                group.offer();
            }
        }
    }

    /// Whether the kernel has blocks of a group to receive into, as far as its completions tell.
    pub(super) fn has_offered(&self, group: u16) -> bool {
        self.0[usize::from(group)].offered_count > 0
    }

    /// Makes the block that a completion names a lease of the `length` bytes that the kernel has put
    /// into it; none if the kernel does not have that block.
    pub(super) fn take(&mut self, group: u16, block: u16, length: u32) -> Option<Lease> {
        let group = self.0.get_mut(usize::from(group))?;
        let block = group.offered.get_mut(usize::from(block))?.take()?;
        group.offered_count -= 1;
        Some(group.pool.lend(block, length))
    }
}

impl Group {
    fn offer(&mut self) {
        while let Some(block) = self.pool.take_block() {
            let number = block.number();
            let start = self.pool.arena().address(&block);
            let identity = u16::try_from(number).expect("blocks are bounded");
            // SAFETY: the block is one of the arena's, which the pool keeps mapped, and this group the
            // pool. Whoever holds a `Block` alone may use its bytes: `offered` holds it until a
            // completion names it (`take`), or until the ring is closed with nothing in flight
            // (`drop`); meanwhile nobody has a reference to its bytes. Each block is in the ring
            // once, as there is one of each, and the ring has a place for all.
            unsafe { self.ring.add(start, self.pool.block_bytes(), identity) };
            self.offered[number as usize] = Some(block);
            self.offered_count += 1;
        }
        self.ring.publish();
    }
}

impl Drop for Group {
    /// Gives the blocks back to the pool, which may outlive the ring. Groups of a ring that could not
    /// be drained are leaked, and never get here.
    fn drop(&mut self) {
        for block in self.offered.drain(..).flatten() {
            self.pool.put_back(block);
        }
    }
}
