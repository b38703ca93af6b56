//! Slots: where operations live while the kernel or a helper thread may use their memory.
//!
//! ```text
//! free --insert--> held --(completion)--> free, generation + 1
//!                   |
//!                   +--assign--> held, shown to one helper thread --settle--> held
//! ```
//!
//! The table is a fixed array that never moves and never grows: its capacity is the back-pressure.
//! A slot is named by its index and its generation, so that a completion that comes late or twice
//! finds nobody.

#![allow(unsafe_code, reason = "a home of unsafe: memory that the kernel uses")]

use std::cell::UnsafeCell;
use std::sync::Arc;

use io_uring::types::{OpenHow, Timespec};
use nix::libc;

use crate::error::Errno;
use crate::operation::{self, Operation, OperationId, Token};

/// A fixed number of operations in flight.
pub(crate) struct Slots {
    cells: Arc<[Cell]>,
    entries: Box<[Entry]>,
    free: Vec<u32>,
}

/// What the kernel or a helper may use. Touched only by whoever the entry's state names.
struct Cell {
    operation: UnsafeCell<Option<Operation>>,
    side: UnsafeCell<Side>,
}

/// Structures that the kernel reads or writes beside an operation's buffers.
pub(crate) struct Side {
    pub(crate) time: Timespec,
    pub(crate) how: OpenHow,
    pub(crate) status: libc::statx,
    pub(crate) vectors: Vec<libc::iovec>,
}

// SAFETY: cells are shared between the owner of the table and the helper threads that an
// `Assignment` shows one to. `Assignment` proves that exactly one of them touches a cell at a time:
// `assign` makes one per held slot and sets `is_assigned`, and everything else here refuses an
// assigned slot until `settle` took the assignment back. What an operation owns that is not Send (a
// lease counts its pool without atomics) is not cloned or dropped by `Assignment::perform`: it
// only reads and writes bytes through it, and whole operations never leave the owner's thread.
unsafe impl Sync for Cell {}
// SAFETY: as above; the array is freed on whichever thread drops the last `Arc`, by then empty:
// `Slots` drops the operations on its own thread, or leaks the array.
unsafe impl Send for Cell {}

/// What only the owner of the table looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    generation: u32,
    is_held: bool,
    is_assigned: bool,
    pub(crate) token: Token,
    pub(crate) cancel_requested: bool,
    /// How often it was begun again, because a signal interrupted it.
    pub(crate) retries: u32,
    /// The chain that the slot belongs to.
    pub(crate) link: Option<Link>,
    /// The result, kept until the whole chain has ended.
    pub(crate) result: Option<i32>,
}

/// A slot's place in a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// The first member's slot.
    pub(crate) head: u32,
    /// The next member's slot.
    pub(crate) next: Option<u32>,
    /// In the head: how many members have not ended.
    pub(crate) pending: u32,
}

/// A slot shown to one helper thread.
pub(crate) struct Assignment {
    cells: Arc<[Cell]>,
    index: u32,
}

impl Slots {
    pub(crate) fn new(capacity: u32) -> Self {
        let cells = (0..capacity).map(|_| Cell::default()).collect();
        let entry = Entry {
            generation: 0,
            is_held: false,
            is_assigned: false,
            token: Token::default(),
            cancel_requested: false,
            retries: 0,
            link: None,
            result: None,
        };
        let entries = vec![entry; capacity as usize].into_boxed_slice();
        Self { cells, entries, free: (0..capacity).rev().collect() }
    }

    /// Keeps an operation; gives it back if every slot is taken.
    pub(crate) fn insert(&mut self, operation: Operation, token: Token) -> Result<u32, Operation> {
        let Some(index) = self.free.pop() else { return Err(operation) };
        let entry = &mut self.entries[index as usize];
        assert!(!entry.is_held, "a slot on the free list is free");
        entry.is_held = true;
        entry.token = token;
        entry.cancel_requested = false;
        entry.retries = 0;
        entry.link = None;
        entry.result = None;
        let cell = self.cells[index as usize].operation.get();
        // SAFETY: the slot is free, so neither the kernel nor a helper uses its cell (a slot becomes
        // free only in `remove`, which refuses an assigned one and is called on its last
        // completion), and `&mut self` keeps every other caller away.
        unsafe { *cell = Some(operation) };
        Ok(index)
    }

    /// Ends a slot's use: takes the operation out.
    ///
    /// To be called only once the kernel has posted the last completion for the slot, or if it was
    /// never shown the slot.
    pub(crate) fn remove(&mut self, index: u32) -> Operation {
        let entry = &mut self.entries[index as usize];
        assert!(entry.is_held, "slot {index} ends twice");
        assert!(!entry.is_assigned, "slot {index} ends while a helper has it");
        entry.is_held = false;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(index);
        let cell = self.cells[index as usize].operation.get();
        // SAFETY: the slot was held and not assigned, and the caller says that the kernel is done
        // with it; `&mut self` keeps every other caller away.
        unsafe { (*cell).take() }.expect("a held slot has an operation")
    }

    /// The slot that a completion names, unless its operation has ended already.
    pub(crate) fn find(&self, id: OperationId) -> Option<u32> {
        let entry = self.entries.get(id.index as usize)?;
        (entry.is_held && entry.generation == id.generation).then_some(id.index)
    }

    pub(crate) fn id(&self, index: u32) -> OperationId {
        OperationId { index, generation: self.entries[index as usize].generation }
    }

    pub(crate) fn entry(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    pub(crate) fn entry_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// The operation and its side storage, to prepare them before anybody else is shown them, or to
    /// look at them after its last completion.
    pub(crate) fn prepare(&mut self, index: u32) -> (&mut Operation, &mut Side) {
        let entry = &self.entries[index as usize];
        assert!(entry.is_held && !entry.is_assigned, "slot {index} is not ours to prepare");
        let cell = &self.cells[index as usize];
        // SAFETY: the slot is held and no helper has it. The processor calls this before it pushes
        // the slot's entry to the kernel or after the last completion, never between; `&mut self`
        // keeps every other caller away while the references live.
        let (operation, side) = unsafe { (&mut *cell.operation.get(), &mut *cell.side.get()) };
        (operation.as_mut().expect("a held slot has an operation"), side)
    }

    /// Shows a slot to a helper thread, until `settle`.
    pub(crate) fn assign(&mut self, index: u32) -> Assignment {
        let entry = &mut self.entries[index as usize];
        assert!(entry.is_held && !entry.is_assigned, "slot {index} is not ours to assign");
        entry.is_assigned = true;
        Assignment { cells: Arc::clone(&self.cells), index }
    }

    /// Takes an assignment back: the helper has finished with it. Returns its slot.
    pub(crate) fn settle(&mut self, assignment: Assignment) -> u32 {
        assert!(Arc::ptr_eq(&assignment.cells, &self.cells), "the assignment is another table's");
        let entry = &mut self.entries[assignment.index as usize];
        assert!(entry.is_assigned, "an assignment comes back once");
        entry.is_assigned = false;
        assignment.index
    }

    pub(crate) fn is_assigned(&self, index: u32) -> bool {
        self.entries[index as usize].is_assigned
    }

    pub(crate) fn held(&self) -> u32 {
        u32::try_from(self.entries.len() - self.free.len()).expect("the capacity is a u32")
    }

    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn available(&self) -> usize {
        self.free.len()
    }

    /// The slots that are held now.
    pub(crate) fn held_indices(&self) -> Vec<u32> {
        (0..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.is_held)
            .map(|(index, _)| index)
            .collect()
    }
}

/// Generations are 28 bits wide in `user_data`.
pub(crate) const GENERATION_MASK: u32 = (1 << 28) - 1;

impl Drop for Slots {
    /// Leaks what is still held: the kernel may be writing to it.
    fn drop(&mut self) {
        if self.held() > 0 {
            std::mem::forget(Arc::clone(&self.cells));
        }
    }
}

impl Assignment {
    /// Performs the operation with system calls. May block.
    pub(crate) fn perform(&mut self) -> Result<u32, Errno> {
        let cell = self.cells[self.index as usize].operation.get();
        // SAFETY: `assign` made this the only assignment of the slot and nobody else touches the
        // cell until `settle` consumes it; `&mut self` is the only use of it on this thread.
        let operation = unsafe { &mut *cell };
        operation::perform(operation.as_mut().expect("an assigned slot has an operation"))
    }
}

impl Default for Cell {
    fn default() -> Self {
        Self { operation: UnsafeCell::new(None), side: UnsafeCell::new(Side::default()) }
    }
}

impl Default for Side {
    fn default() -> Self {
        // SAFETY: struct statx is numbers only, and zeros are numbers.
        let status = unsafe { std::mem::zeroed() };
        Self { time: Timespec::new(), how: OpenHow::new(), status, vectors: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_gives_the_operation_back() {
        let mut slots = Slots::new(1);
        let index = slots.insert(Operation::Nop, Token::default()).unwrap();
        assert!(slots.insert(Operation::Nop, Token::default()).is_err());
        slots.remove(index);
        assert!(slots.insert(Operation::Nop, Token::default()).is_ok());
    }

    #[test]
    fn a_stale_id_finds_nobody() {
        let mut slots = Slots::new(1);
        let index = slots.insert(Operation::Nop, Token::default()).unwrap();
        let id = slots.id(index);
        assert_eq!(slots.find(id), Some(index));
        slots.remove(index);
        assert_eq!(slots.find(id), None, "ended");
        slots.insert(Operation::Nop, Token::default()).unwrap();
        assert_eq!(slots.find(id), None, "the slot is another operation's now");
    }

    #[test]
    #[should_panic(expected = "while a helper has it")]
    fn an_assigned_slot_does_not_end() {
        let mut slots = Slots::new(1);
        let index = slots.insert(Operation::Nop, Token::default()).unwrap();
        let _assignment = slots.assign(index);
        slots.remove(index);
    }
}
