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
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use io_uring::types::{OpenHow, Timespec};
use nix::libc;

use crate::buffer::Buffer;
use crate::error::Errno;
use crate::operation::{self, Operation, OperationId, Token};
use crate::sys::socket::{self, RawAddress};

/// A fixed number of operations in flight.
pub(crate) struct Slots {
    cells: Arc<[Cell]>,
    entries: Box<[Entry]>,
    free: Vec<u32>,
}

/// What the kernel or a helper may use. Touched only by whoever the entry's state names.
struct Cell {
    /// There while the entry is held, and only then.
    operation: UnsafeCell<MaybeUninit<Operation>>,
    side: UnsafeCell<Side>,
}

/// Structures that the kernel reads or writes beside an operation's buffers.
pub(crate) struct Side {
    pub(crate) time: Timespec,
    pub(crate) how: OpenHow,
    pub(crate) status: libc::statx,
    pub(crate) vectors: Vec<libc::iovec>,
    pub(crate) address: RawAddress,
    pub(crate) message: libc::msghdr,
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
    /// Whether `Side::vectors` names the operation's buffers: then nobody gets `&mut` to it.
    is_exposed: bool,
    pub(crate) token: Token,
    pub(crate) cancel_requested: bool,
    /// How often it was begun again, because a signal interrupted it.
    pub(crate) retries: u32,
    /// The chain that the slot belongs to.
    pub(crate) link: Option<Link>,
    /// The result, kept until the whole chain has ended.
    pub(crate) result: Option<i32>,
    /// Whether one completion may not be all that follows: of an operation that completes many times,
    /// or whose buffer may be out for longer.
    pub(crate) has_parts: bool,
    /// What a zero-copy send came to, kept until its buffer is free.
    pub(crate) sent: Option<i32>,
    /// Whether the ring only watches whether the operation can go on.
    pub(crate) is_polled: bool,
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
            is_exposed: false,
            token: Token::default(),
            cancel_requested: false,
            retries: 0,
            link: None,
            result: None,
            has_parts: false,
            sent: None,
            is_polled: false,
        };
        let entries = vec![entry; capacity as usize].into_boxed_slice();
        Self { cells, entries, free: (0..capacity).rev().collect() }
    }

    /// Keeps an operation; gives it back if every slot is taken.
    #[inline]
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
        entry.has_parts =
            operation.is_multishot() || matches!(operation, Operation::SendZeroCopy(_));
        entry.sent = None;
        entry.is_polled = false;
        let cell = self.cells[index as usize].operation.get();
        // SAFETY: the slot is free, so neither the kernel nor a helper uses its cell (a slot becomes
        // free only in `remove`, which refuses an assigned one and is called on its last
        // completion), and `&mut self` keeps every other caller away. There is nothing in it to
        // be dropped: `remove` took it out.
        unsafe { cell.write(MaybeUninit::new(operation)) };
        Ok(index)
    }

    /// Ends a slot's use: takes the operation out.
    ///
    /// To be called only once the kernel has posted the last completion for the slot, or if it was
    /// never shown the slot.
    #[inline(always)]
    pub(crate) fn remove(&mut self, index: u32) -> Operation {
        let entry = &mut self.entries[index as usize];
        assert!(entry.is_held, "slot {index} ends twice");
        assert!(!entry.is_assigned, "slot {index} ends while a helper has it");
        entry.is_held = false;
        entry.is_exposed = false;
        entry.generation = entry.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(index);
        let cell = self.cells[index as usize].operation.get();
        // SAFETY: the slot was held, so `insert` wrote an operation that nobody has taken out; it
        // was not assigned, and the caller says that the kernel is done with it; `&mut self` keeps
        // every other caller away. It is free from now on, so nobody reads it again.
        unsafe { cell.read().assume_init() }
    }

    /// The slot that a completion names, unless its operation has ended already.
    #[inline]
    pub(crate) fn find(&self, id: OperationId) -> Option<u32> {
        let entry = self.entries.get(id.index as usize)?;
        (entry.is_held && entry.generation == id.generation).then_some(id.index)
    }

    #[inline]
    pub(crate) fn id(&self, index: u32) -> OperationId {
        OperationId { index, generation: self.entries[index as usize].generation }
    }

    #[inline]
    pub(crate) fn entry(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    #[inline]
    pub(crate) fn entry_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// The operation and its side storage, to prepare them before anybody else is shown them, or to
    /// look at them after its last completion.
    #[inline]
    pub(crate) fn prepare(&mut self, index: u32) -> (&mut Operation, &mut Side) {
        let entry = &self.entries[index as usize];
        assert!(entry.is_held && !entry.is_assigned, "slot {index} is not ours to prepare");
        assert!(!entry.is_exposed, "slot {index} is exposed: its buffers may not be moved");
        let cell = &self.cells[index as usize];
        // SAFETY: the slot is held and no helper has it. The processor calls this before it pushes
        // the slot's entry to the kernel or after the last completion, never between; `&mut self`
        // keeps every other caller away while the references live. A held slot has an operation.
        unsafe { ((*cell.operation.get()).assume_init_mut(), &mut *cell.side.get()) }
    }

    /// Shows a slot to a helper thread, until `settle`.
    pub(crate) fn assign(&mut self, index: u32) -> Assignment {
        let entry = &mut self.entries[index as usize];
        assert!(entry.is_held && !entry.is_assigned, "slot {index} is not ours to assign");
        assert!(!entry.is_exposed, "slot {index} is exposed: its buffers may not be moved");
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

    /// The operation, to look at.
    pub(crate) fn operation(&self, index: u32) -> &Operation {
        let entry = &self.entries[index as usize];
        assert!(entry.is_held && !entry.is_assigned, "slot {index} is not ours to look at");
        let cell = self.cells[index as usize].operation.get();
        // SAFETY: the slot is held and no helper has it, so nobody else has a reference to the
        // operation: `prepare` and `remove` need `&mut self`. What an exposed slot's memory is
        // written through (`Memory::put`) needs `&mut self` as well, so no byte changes meanwhile.
        // A held slot has an operation.
        unsafe { (*cell).assume_init_ref() }
    }

    /// Takes the addresses of the operation's buffers, as an entry for the kernel would name them.
    /// Until the operation ends, its bytes are reached through these addresses only
    /// ([`Slots::memory`]) and `prepare` is refused.
    ///
    /// False if the operation has a buffer that can't be named: too small for what it is asked to
    /// hold, shared where it would be written to, or the member's before in its chain.
    pub(crate) fn expose(&mut self, index: u32) -> bool {
        let (operation, side) = self.prepare(index);
        side.vectors.clear();
        let is_named = side.name_memory(operation).is_some();
        self.entries[index as usize].is_exposed = is_named;
        is_named
    }

    /// Ends the exposure: the operation's last byte has been moved.
    pub(crate) fn conceal(&mut self, index: u32) {
        self.entries[index as usize].is_exposed = false;
    }

    /// The memory of an exposed slot; none if it is not exposed.
    pub(crate) fn memory(&mut self, index: u32) -> Option<Memory<'_>> {
        let entry = &self.entries[index as usize];
        if !entry.is_held || !entry.is_exposed {
            return None;
        }
        let cell = &self.cells[index as usize];
        // SAFETY: an exposed slot is held and not assigned (`assign` refuses it), so only the owner
        // of the table touches the cell; `&mut self` keeps every other caller away. A held slot has
        // an operation.
        let (side, operation) =
            unsafe { (&*cell.side.get(), (*cell.operation.get()).assume_init_ref()) };
        let is_writable = is_filled(operation);
        Some(Memory { parts: &side.vectors, is_writable })
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

/// Operations that were leaked in this process.
static LEAKED: AtomicU64 = AtomicU64::new(0);

/// How many operations of dropped processors were leaked in this process.
pub fn leaked() -> u64 {
    LEAKED.load(Ordering::Relaxed)
}

impl Slots {
    /// Counts what is held as leaked.
    pub(super) fn count_leaked(&self) {
        LEAKED.fetch_add(self.held().into(), Ordering::Relaxed);
    }
}

impl Drop for Slots {
    /// Leaks what is still held: the kernel may be writing to it.
    fn drop(&mut self) {
        if self.held() > 0 {
            self.count_leaked();
            std::mem::forget(Arc::clone(&self.cells));
        }
    }
}

impl Assignment {
    /// Performs the operation with system calls. May block.
    pub(crate) fn perform(&mut self) -> Result<u32, Errno> {
        let cell = self.cells[self.index as usize].operation.get();
        // SAFETY: `assign` made this the only assignment of the slot and nobody else touches the
        // cell until `settle` consumes it; `&mut self` is the only use of it on this thread. An
        // assigned slot is held, so there is an operation in it.
        operation::perform(unsafe { (*cell).assume_init_mut() })
    }

    /// Performs a read, and if it was whole the write of the same bytes that `write` is. The buffer
    /// stays the read's: the bytes are written from where they are.
    pub(crate) fn perform_pair(
        &mut self,
        write: &mut Self,
    ) -> (Result<u32, Errno>, Result<u32, Errno>) {
        let (first, second) =
            (&self.cells[self.index as usize], &write.cells[write.index as usize]);
        // SAFETY: as in `perform`, for each of the two: they are different assignments, and so of
        // different slots.
        let (read, write) = unsafe {
            (
                (*first.operation.get()).assume_init_mut(),
                (*second.operation.get()).assume_init_mut(),
            )
        };
        operation::perform_pair(read, write)
    }
}

/// The memory of an operation in flight, by the raw addresses that were taken when it was exposed.
///
/// The simulated processor moves data through it, so that a buffer that was freed or looked at too
/// early is found out as it would be with the kernel.
pub(crate) struct Memory<'a> {
    parts: &'a [libc::iovec],
    is_writable: bool,
}

impl Memory<'_> {
    /// How many bytes there are, in all parts.
    pub(crate) fn length(&self) -> usize {
        self.parts.iter().map(|part| part.iov_len).sum()
    }

    /// Whether the operation reads into it.
    pub(crate) fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Whether each part starts and ends at a multiple of an alignment.
    pub(crate) fn is_aligned(&self, address: u32, length: u32) -> bool {
        self.parts.iter().all(|part| {
            part.iov_base.addr().is_multiple_of(address.max(1) as usize)
                && part.iov_len.is_multiple_of(length.max(1) as usize)
        })
    }

    /// The bytes, part after part.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| {
            // SAFETY: `Slots::expose` took address and length from a buffer of the operation that
            // the slot owns. Until this use of them:
            // * Alive. The slot is held and exposed: `remove` and `conceal` end the exposure, and this
            //   value borrows the table. Since `expose`, nobody had `&mut` to the operation
            //   (`prepare` and `assign` refuse), so no buffer was dropped or replaced.
            // * Still. The bytes lie on the heap or in an arena.
            // * Initialised: they were a slice of u8.
            // * Unchanged while the reference lives: `put` and `fill` need `&mut self`, and no other
            //   `Memory` of the table exists beside this one. A shared buffer is never written to.
            unsafe { std::slice::from_raw_parts(part.iov_base.cast_const().cast(), part.iov_len) }
        })
    }

    /// Writes `bytes` from byte `at` of the memory on.
    ///
    /// # Panics
    ///
    /// If they don't fit, or if the operation does not read into its memory.
    pub(crate) fn put(&mut self, mut at: usize, mut bytes: &[u8]) {
        assert!(self.is_writable, "the operation's memory is not to be written");
        for part in self.parts {
            if at >= part.iov_len {
                at -= part.iov_len;
                continue;
            }
            let length = bytes.len().min(part.iov_len - at);
            // SAFETY: `at + length` is at most the part's length, and the part is a buffer's as in
            // `bytes`, of an operation that was the only owner of it (`expose` names no shared
            // buffer for these). Nobody has a reference to it: the operation is out of reach while
            // it is exposed but by `Slots::operation`, whose borrow excludes this one. So the
            // source, a reference, can't overlap.
            unsafe {
                let start = part.iov_base.cast::<u8>().add(at);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), start, length);
            }
            bytes = &bytes[length..];
            at = 0;
            if bytes.is_empty() {
                return;
            }
        }
        assert!(bytes.is_empty(), "more bytes than memory");
    }

    /// Sets every byte.
    ///
    /// # Panics
    ///
    /// If the operation does not read into its memory.
    pub(crate) fn poison(&mut self, byte: u8) {
        assert!(self.is_writable, "the operation's memory is not to be written");
        for part in self.parts {
            // SAFETY: as in `put`, for the whole part.
            unsafe { std::ptr::write_bytes(part.iov_base.cast::<u8>(), byte, part.iov_len) };
        }
    }
}

/// Whether an operation's buffers are filled by it.
fn is_filled(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Read(_)
            | Operation::ReadVectored(_)
            | Operation::ReadLink(_)
            | Operation::ListDirectory(_)
            | Operation::GetAttribute(_)
            | Operation::ListAttributes(_)
            | Operation::Receive(_)
            | Operation::ReceiveMessage(_)
    )
}

impl Side {
    /// Lists the memory of an operation; none if some of it can't be named.
    fn name_memory(&mut self, operation: &mut Operation) -> Option<()> {
        match operation {
            Operation::Read(read) => {
                self.add_mut(read.buffer.part_mut(read.start, read.length)?);
            }
            Operation::Write(write) => match &write.buffer {
                Buffer::OfPreviousMember => return None,
                buffer => self.add(buffer.part(write.start, write.length)?),
            },
            Operation::ReadVectored(read) => {
                for buffer in &mut read.buffers {
                    self.add_mut(buffer.as_mut_slice()?);
                }
            }
            Operation::WriteVectored(write) => {
                for buffer in &write.buffers {
                    self.add(buffer.as_slice());
                }
            }
            Operation::ReadLink(link) => self.add_mut(link.buffer.as_mut_slice()?),
            Operation::ListDirectory(list) => self.add_mut(list.buffer.as_mut_slice()?),
            Operation::GetAttribute(get) => self.add_mut(get.buffer.as_mut_slice()?),
            Operation::SetAttribute(set) => self.add(set.value.as_slice()),
            Operation::ListAttributes(list) => self.add_mut(list.buffer.as_mut_slice()?),
            Operation::Receive(it) => self.add_mut(it.buffer.part_mut(it.start, it.length)?),
            Operation::ReceiveMessage(it) => {
                for buffer in &mut it.buffers {
                    self.add_mut(buffer.as_mut_slice()?);
                }
            }
            Operation::Send(it) => self.add(it.buffer.part(it.start, it.length)?),
            Operation::SendZeroCopy(it) => self.add(it.buffer.part(it.start, it.length)?),
            Operation::SendMessage(it) => {
                for buffer in &it.buffers {
                    self.add(buffer.as_slice());
                }
                self.skip(it.start as usize)?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Leaves out the first bytes of the memory that is listed; none if there are not so many.
    pub(crate) fn skip(&mut self, mut count: usize) -> Option<()> {
        for part in &mut self.vectors {
            let skipped = count.min(part.iov_len);
            part.iov_base = part.iov_base.wrapping_byte_add(skipped);
            part.iov_len -= skipped;
            count -= skipped;
        }
        (count == 0).then_some(())
    }

    fn add(&mut self, bytes: &[u8]) {
        let iov_base = bytes.as_ptr().cast_mut().cast();
        self.vectors.push(libc::iovec { iov_base, iov_len: bytes.len() });
    }

    fn add_mut(&mut self, bytes: &mut [u8]) {
        let iov_base = bytes.as_mut_ptr().cast();
        self.vectors.push(libc::iovec { iov_base, iov_len: bytes.len() });
    }
}

impl Default for Cell {
    fn default() -> Self {
        let operation = UnsafeCell::new(MaybeUninit::uninit());
        Self { operation, side: UnsafeCell::new(Side::default()) }
    }
}

impl Default for Side {
    fn default() -> Self {
        // SAFETY: struct statx is numbers only, and zeros are numbers.
        let status = unsafe { std::mem::zeroed() };
        Self {
            time: Timespec::new(),
            how: OpenHow::new(),
            status,
            vectors: Vec::new(),
            address: RawAddress::empty(),
            message: socket::header(std::ptr::null_mut(), 0),
        }
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

    fn reading(buffer: impl Into<Buffer>, start: u32, length: u32) -> Operation {
        let handle = operation::File::simulated(0, operation::Released::default()).into();
        let buffer = buffer.into();
        Operation::Read(operation::Read { handle, buffer, offset_bytes: 0, start, length })
    }

    #[test]
    fn exposed_memory_is_the_part_of_the_buffer_that_is_asked_for() {
        let mut slots = Slots::new(1);
        let operation = reading(vec![1; 8], 2, 4);
        let index = slots.insert(operation, Token::default()).unwrap();
        assert!(slots.memory(index).is_none(), "not exposed yet");
        assert!(slots.expose(index));
        let mut memory = slots.memory(index).unwrap();
        assert_eq!(memory.length(), 4);
        memory.poison(9);
        memory.put(1, &[5, 6]);
        assert_eq!(memory.bytes().collect::<Vec<_>>(), [&[9, 5, 6, 9]]);
        let Operation::Read(read) = slots.remove(index) else { panic!("it was a read") };
        assert_eq!(read.buffer.as_slice(), [1, 1, 9, 5, 6, 9, 1, 1]);
    }

    #[test]
    fn memory_that_can_not_be_read_into_is_not_exposed() {
        let shared: Arc<[u8]> = Arc::from(&[0; 8][..]);
        let cases = [
            ("shared with others", reading(shared, 0, 8)),
            ("too small", reading(vec![0; 8], 1, 8)),
            ("the member's before", reading(Buffer::OfPreviousMember, 0, 8)),
        ];
        for (name, operation) in cases {
            let mut slots = Slots::new(1);
            let index = slots.insert(operation, Token::default()).unwrap();
            assert!(!slots.expose(index), "{name}");
            assert!(slots.memory(index).is_none(), "{name}");
            slots.remove(index);
        }
    }

    #[test]
    #[should_panic(expected = "more bytes than memory")]
    fn no_byte_is_written_behind_exposed_memory() {
        let mut slots = Slots::new(1);
        let index = slots.insert(reading(vec![0; 8], 0, 4), Token::default()).unwrap();
        slots.expose(index);
        slots.memory(index).unwrap().put(3, &[1, 2]);
    }

    #[test]
    #[should_panic(expected = "its buffers may not be moved")]
    fn an_exposed_operation_is_not_lent_out() {
        let mut slots = Slots::new(1);
        let index = slots.insert(reading(vec![0; 8], 0, 8), Token::default()).unwrap();
        slots.expose(index);
        slots.prepare(index);
    }
}
