//! The steady state of reading and writing allocates nothing.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc;
use nix::unistd::{getpid, gettid};
use ucp_engine::buffer::{Buffer, BufferPool, Lease};
use ucp_engine::operation::*;
use ucp_engine::processor::{KernelProcessor, ThreadProcessor};
use ucp_engine::{Operation, OperationProcessor};

use crate::require_io_uring;
use crate::support::{child, tasks};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts an allocation, unless it is the test harness's: that waits on the first thread, and
/// allocates when it gets round to it.
fn count() {
    if gettid() != getpid() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the promises that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[test]
fn reads_and_writes_allocate_nothing() {
    // In a child, where no other test allocates.
    if let Some(setting) = child::setting() {
        let mut processor: Box<dyn OperationProcessor> = match setting.as_str() {
            "io_uring" => Box::new(KernelProcessor::new(64, 2).unwrap()),
            "4 threads" => Box::new(ThreadProcessor::new(4, 64)),
            _ => Box::new(ThreadProcessor::new(0, 64)),
        };
        if setting == "4 threads" {
            hire(&mut *processor, 4);
        }
        for is_chained in [false, true] {
            let mut mover = Mover::new(&mut *processor, is_chained);
            mover.move_blocks(&mut *processor, 1_000);
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            mover.move_blocks(&mut *processor, 10_000);
            let count = ALLOCATIONS.load(Ordering::Relaxed) - before;
            if count > 0 {
                return child::tell(&format!("{count} allocations; in chains: {is_chained}"));
            }
        }
        return child::tell("none");
    }
    require_io_uring!();
    for processor in ["io_uring", "4 threads", "no threads"] {
        let this = "allocation::reads_and_writes_allocate_nothing";
        assert_eq!(child::run(this, processor, &[]), "none", "{processor}");
    }
}

#[test]
fn an_echo_allocates_nothing() {
    if let Some(setting) = child::setting() {
        let mut processor: Box<dyn OperationProcessor> = match setting.as_str() {
            "io_uring" => Box::new(KernelProcessor::new(64, 2).unwrap()),
            _ => Box::new(ThreadProcessor::new(0, 64)),
        };
        let mut echo = Echo::new(&mut *processor);
        echo.exchange(&mut *processor, 1_000);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        echo.exchange(&mut *processor, 10_000);
        return child::tell(&(ALLOCATIONS.load(Ordering::Relaxed) - before).to_string());
    }
    require_io_uring!();
    for processor in ["io_uring", "threads"] {
        let this = "allocation::an_echo_allocates_nothing";
        assert_eq!(child::run(this, processor, &[]), "0", "{processor}");
    }
}

/// A connection with both its ends: one sends back what it receives.
struct Echo {
    client: Socket,
    server: Socket,
    events: CompletionEventQueue,
}

impl Echo {
    fn new(processor: &mut dyn OperationProcessor) -> Self {
        let (client, server) = std::os::unix::net::UnixStream::pair().unwrap();
        let (client, server) = (Socket::from_fd(client.into()), Socket::from_fd(server.into()));
        let pool = processor.receive_pool(8, 64).unwrap();
        let receive = ReceiveMany { socket: server.clone(), pool };
        processor.accept(receive.into(), Token::default()).unwrap();
        let send = Send::new(&client, vec![7; 64]);
        processor.accept(send.into(), Token::default()).unwrap();
        Self { client, server, events: CompletionEventQueue::default() }
    }

    fn exchange(&mut self, processor: &mut dyn OperationProcessor, count: u32) {
        let mut received = 0;
        while received < count {
            processor.submit_and_wait(1, None, &mut self.events).unwrap();
            while let Some(event) = self.events.pop() {
                let next: Operation = match event.end {
                    End::More(Part::Bytes(lease)) => Send::new(&self.server, lease).into(),
                    // What the client sent comes back into the same buffer.
                    End::Last(Operation::Send(Send {
                        buffer: buffer @ Buffer::Vec(_), ..
                    })) => Receive::new(&self.client, buffer).into(),
                    End::Last(Operation::Receive(receive)) => {
                        received += 1;
                        Send::new(&self.client, receive.buffer).into()
                    }
                    _ => continue,
                };
                processor.accept(next, Token::default()).unwrap();
            }
        }
    }
}

/// Keeps so many helpers busy at once that none is hired later.
fn hire(processor: &mut dyn OperationProcessor, count: usize) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let reader = File::from_fd(reader.into());
    for _ in 0..count {
        let (handle, buffer) = ((&reader).into(), vec![0; 1].into());
        let read = Read { handle, buffer, offset_bytes: CURRENT_POSITION, start: 0, length: 1 };
        processor.accept(read.into(), Token::default()).unwrap();
    }
    tasks::wait_until_in_call(libc::SYS_read, &reader, count);
    writer.write_all(&vec![0; count]).unwrap();
    let mut events = CompletionEventQueue::default();
    while processor.in_flight() > 0 {
        processor.submit_and_wait(1, None, &mut events).unwrap();
    }
}

/// Reads and writes blocks of a pool, a few at a time.
struct Mover {
    file: File,
    registered: RegisteredFile,
    pool: BufferPool,
    is_chained: bool,
    events: CompletionEventQueue,
}

impl Mover {
    fn new(processor: &mut dyn OperationProcessor, is_chained: bool) -> Self {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        file.set_len(4096).unwrap();
        let file = File::from_fd(file.into());
        let registered = processor.register_file(Some(&file)).unwrap();
        let pool = processor.buffer_pool(8, 4096).unwrap();
        Self { file, registered, pool, is_chained, events: CompletionEventQueue::default() }
    }

    fn move_blocks(&mut self, processor: &mut dyn OperationProcessor, count: u32) {
        let (mut started, mut ended) = (0, 0);
        while ended < count {
            while started < count
                && let Some(lease) = self.pool.lease()
            {
                started += if self.is_chained {
                    self.start_chain(processor, lease)
                } else {
                    self.start(processor, lease, started)
                };
            }
            processor.submit_and_wait(1, None, &mut self.events).unwrap();
            while let Some(event) = self.events.pop() {
                assert_eq!(event.result, Ok(4096));
                ended += 1;
            }
        }
    }

    fn start(&self, processor: &mut dyn OperationProcessor, lease: Lease, number: u32) -> u32 {
        let (buffer, offset_bytes, start, length) = (lease.into(), 0, 0, 4096);
        let handle: Handle =
            if number.is_multiple_of(3) { (&self.registered).into() } else { (&self.file).into() };
        let operation: Operation = if number.is_multiple_of(2) {
            Read { handle, buffer, offset_bytes, start, length }.into()
        } else {
            Write { handle, buffer, offset_bytes, start, length }.into()
        };
        processor.accept(operation, Token::default()).unwrap();
        1
    }

    fn start_chain(&self, processor: &mut dyn OperationProcessor, lease: Lease) -> u32 {
        let (handle, buffer) = ((&self.file).into(), lease.into());
        let read = Read { handle, buffer, offset_bytes: 0, start: 0, length: 4096 };
        let chain = Chain::read_then_write(read, (&self.registered).into(), 0);
        processor.accept_chain(chain, Token::default()).unwrap();
        2
    }
}
