//! A pool of blocks: what is on loan comes back when it is dropped.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Arena;
use super::arena::Block;
use crate::error::Errno;

/// A bounded number of blocks of one size, in one arena. Clones share it, on any thread: who reads a
/// block and who works on what is in it may be two.
#[derive(Clone, Debug)]
pub struct BufferPool(Arc<Pool>);

/// A ring, by a number of its own, and the index of a buffer that is registered with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Registered {
    pub(crate) ring: u64,
    pub(crate) index: u16,
}

#[derive(Debug)]
struct Pool {
    arena: Arc<Arena>,
    free: Mutex<Vec<Block>>,
    count: u32,
    block_bytes: u32,
    on_loan: AtomicU32,
    /// The ring that knows the arena, if one does, and its number for it.
    registered: Option<Registered>,
}

/// A block on loan. Its bytes belong to whoever holds it; dropping it gives it back.
pub struct Lease {
    pool: Arc<Pool>,
    block: Option<Block>,
    /// How many of the block's bytes: all of them, or as many as were received.
    length: u32,
}

/// A bounded number of blocks that sockets receive into. Clones share it.
///
/// A processor takes a block when bytes have come, and not before: a hundred blocks serve ten thousand
/// connections that are mostly idle. Who receives gets a [`Lease`] that is as long as what came.
#[derive(Clone, Debug)]
pub struct ReceivePool {
    pool: BufferPool,
    /// The group of a ring that the blocks belong to, if they do.
    group: Option<Registered>,
}

impl BufferPool {
    pub(crate) fn new(
        arena: Arc<Arena>,
        count: u32,
        block_bytes: u32,
        registered: Option<Registered>,
    ) -> Self {
        let free = Mutex::new(arena.blocks(count));
        let on_loan = AtomicU32::new(0);
        Self(Arc::new(Pool { arena, free, count, block_bytes, on_loan, registered }))
    }

    /// A pool of `count` blocks of `block_bytes` each that no ring knows.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for them.
    pub fn unregistered(count: u32, block_bytes: u32) -> Result<Self, Errno> {
        let arena = Arc::new(Arena::new(count, block_bytes)?);
        Ok(Self::new(arena, count, block_bytes, None))
    }

    /// Takes a block; none if all are on loan. What is in it is left over from before.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        let block = self.0.free().pop()?;
        Some(self.lend(block))
    }

    fn lend(&self, block: Block) -> Lease {
        self.0.on_loan.fetch_add(1, Ordering::Relaxed);
        Lease { pool: Arc::clone(&self.0), block: Some(block), length: self.0.block_bytes }
    }

    /// The size of each block.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.0.block_bytes
    }

    /// How many blocks can be taken now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.0.free().len()
    }

    /// Whether a ring knows the memory, so that operations on it skip mapping it.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.0.registered.is_some()
    }
}

impl Pool {
    fn free(&self) -> MutexGuard<'_, Vec<Block>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// The ring that knows the memory, if one does, and its number for it.
    pub(crate) fn registered(&self) -> Option<Registered> {
        self.pool.registered
    }

    /// The first `length` bytes only.
    pub(crate) fn cut_to(mut self, length: u32) -> Self {
        self.length = self.length.min(length);
        self
    }
}

impl ReceivePool {
    /// A pool whose blocks a ring of `group` gives to what it receives, or else whoever attempts to
    /// receive.
    pub(crate) fn new(
        arena: Arc<Arena>,
        count: u32,
        block_bytes: u32,
        group: Option<Registered>,
    ) -> Self {
        Self { pool: BufferPool::new(arena, count, block_bytes, None), group }
    }

    /// How many blocks there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.pool.0.count
    }

    /// The size of each block.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.pool.block_bytes()
    }

    /// How many blocks are with those who received into them.
    #[must_use]
    pub fn on_loan(&self) -> u32 {
        self.pool.0.on_loan.load(Ordering::Relaxed)
    }

    /// The group of a ring that its blocks belong to, if they do.
    pub(crate) fn group(&self) -> Option<Registered> {
        self.group
    }

    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.pool.0.arena
    }

    /// Whether a block is free and not given to a ring.
    pub(crate) fn has_free(&self) -> bool {
        !self.pool.0.free().is_empty()
    }

    /// Takes a free block to receive into; none if there is none.
    pub(crate) fn take(&self) -> Option<Lease> {
        self.pool.lease()
    }

    /// Takes a free block to give it to a ring.
    pub(crate) fn take_block(&self) -> Option<Block> {
        self.pool.0.free().pop()
    }

    /// Makes a block that a ring has filled a lease of `length` bytes.
    pub(crate) fn lend(&self, block: Block, length: u32) -> Lease {
        self.pool.lend(block).cut_to(length)
    }

    /// Takes a block back that a ring has not used.
    pub(crate) fn put_back(&self, block: Block) {
        self.pool.0.free().push(block);
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let bytes = self.block.as_ref().map_or(&[][..], |block| self.pool.arena.bytes(block));
        &bytes[..self.length as usize]
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Self { pool, block, length } = self;
        let bytes = block.as_mut().map_or(&mut [][..], |block| pool.arena.bytes_mut(block));
        &mut bytes[..*length as usize]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.free().extend(self.block.take());
        self.pool.on_loan.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_comes_back_when_it_is_dropped() {
        let pool = BufferPool::unregistered(2, 4096).unwrap();
        let (mut first, second) = (pool.lease().unwrap(), pool.lease().unwrap());
        assert!(pool.lease().is_none(), "two blocks are two");
        first.fill(7);
        assert!(second.iter().all(|byte| *byte == 0), "blocks do not overlap");
        assert_eq!(first.as_ptr().addr() % 4096, 0);
        drop(first);
        assert_eq!(pool.available(), 1);
        drop((pool.lease(), second));
        assert_eq!(pool.available(), 2);
    }

    #[test]
    fn a_lease_that_was_received_into_is_as_long_as_what_came() {
        let arena = Arc::new(Arena::new(2, 4096).unwrap());
        let pool = ReceivePool::new(arena, 2, 4096, None);
        let block = pool.take_block().unwrap();
        assert_eq!(pool.on_loan(), 0, "a ring has it, and nobody else");
        let mut lease = pool.lend(block, 5);
        lease.copy_from_slice(b"hello");
        assert_eq!((lease.len(), pool.on_loan()), (5, 1));
        drop(lease);
        assert_eq!(pool.on_loan(), 0);
        assert_eq!(pool.take().unwrap().len(), 4096, "the next one has all of it");
    }
}
