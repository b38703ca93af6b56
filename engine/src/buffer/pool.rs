//! A pool of blocks: what is on loan comes back when it is dropped.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::Arena;
use super::arena::Block;
use crate::error::Errno;

/// A bounded number of blocks of one size, in one arena. Clones share it.
#[derive(Clone, Debug)]
pub struct BufferPool(Rc<Pool>);

/// A ring, by a number of its own, and the index of a buffer that is registered with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Registered {
    pub(crate) ring: u64,
    pub(crate) index: u16,
}

#[derive(Debug)]
struct Pool {
    arena: Rc<Arena>,
    free: RefCell<Vec<Block>>,
    block_bytes: u32,
    /// The ring that knows the arena, if one does, and its number for it.
    registered: Option<Registered>,
}

/// A block on loan. Its bytes belong to whoever holds it; dropping it gives it back.
pub struct Lease {
    pool: Rc<Pool>,
    block: Option<Block>,
}

impl BufferPool {
    pub(crate) fn new(
        arena: Rc<Arena>,
        count: u32,
        block_bytes: u32,
        registered: Option<Registered>,
    ) -> Self {
        let free = RefCell::new(arena.blocks(count));
        Self(Rc::new(Pool { arena, free, block_bytes, registered }))
    }

    /// A pool of `count` blocks of `block_bytes` each that no ring knows.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for them.
    pub fn unregistered(count: u32, block_bytes: u32) -> Result<Self, Errno> {
        let arena = Rc::new(Arena::new(count, block_bytes)?);
        Ok(Self::new(arena, count, block_bytes, None))
    }

    /// Takes a block; none if all are on loan. What is in it is left over from before.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        let block = self.0.free.borrow_mut().pop()?;
        Some(Lease { pool: Rc::clone(&self.0), block: Some(block) })
    }

    /// The size of each block.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.0.block_bytes
    }

    /// How many blocks can be taken now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.0.free.borrow().len()
    }

    /// Whether a ring knows the memory, so that operations on it skip mapping it.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.0.registered.is_some()
    }
}

impl Lease {
    /// The ring that knows the memory, if one does, and its number for it.
    pub(crate) fn registered(&self) -> Option<Registered> {
        self.pool.registered
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| self.pool.arena.bytes(block))
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        let Self { pool, block } = self;
        block.as_mut().map_or(&mut [], |block| pool.arena.bytes_mut(block))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.free.borrow_mut().extend(self.block.take());
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
}
