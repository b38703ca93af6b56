//! What the engine promises about memory and descriptors that the kernel uses: each promise has a
//! test here, and a patch in `tests/broken` that breaks it.
//!
//! A tool that watches memory does not see the kernel write. So the memory stays mapped, is filled
//! with a pattern once it came back, and must still hold the pattern when the device is done.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::pipe2;
use ucp_engine::buffer::{Buffer, BufferPool, Lease};
use ucp_engine::operation::*;
use ucp_engine::processor::{KernelProcessor, ThreadProcessor};
use ucp_engine::{CompletionEvent, Operation, OperationProcessor, Proactor};

use crate::require_io_uring;
use crate::support::{scratch, tasks};

const BLOCK_BYTES: u32 = 1 << 20;
const BLOCKS: u32 = 32;
const IN_FILE: u8 = 0xfe;
const PATTERN: u8 = 0x5a;

#[test]
fn drop_waits_for_direct_reads_in_flight() {
    require_io_uring!();
    for is_registered in [true, false] {
        let mut kernel = KernelProcessor::new(64, 1).unwrap();
        let pool = pool(&mut kernel, is_registered);
        let scratch = scratch::directory();
        let path = scratch.path().join("file");
        let file = direct_file(&path);
        for number in 0..BLOCKS {
            accept(&mut kernel, read(&file, pool.lease().unwrap(), offset(number)));
        }
        submit(&mut kernel);
        drop(kernel);
        assert_eq!(pool.available(), BLOCKS as usize, "every buffer came back");
        let leases = patterned(&pool);
        read_with_the_device(&path);
        for lease in leases {
            assert!(lease.iter().all(|byte| *byte == PATTERN), "the kernel wrote after the drop");
        }
    }
}

#[test]
fn drop_waits_for_direct_writes_in_flight() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(64, 1).unwrap();
    let pool = pool(&mut kernel, true);
    let scratch = scratch::directory();
    let path = scratch.path().join("file");
    let file = direct_file(&path);
    for lease in patterned(&pool).into_iter().zip(0..) {
        let (lease, number) = lease;
        accept(&mut kernel, write(&file, lease, offset(number)));
    }
    submit(&mut kernel);
    drop(kernel);
    let mut leases = patterned(&pool);
    assert_eq!(leases.len(), BLOCKS as usize, "every buffer came back");
    leases.iter_mut().for_each(|lease| lease.fill(0));
    let bytes = fs::read(&path).unwrap();
    assert!(
        bytes.iter().all(|byte| [PATTERN, IN_FILE].contains(byte)),
        "the kernel read after the drop"
    );
}

#[test]
fn drop_cancels_a_read_that_would_never_end() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(8, 1).unwrap();
    let pool = BufferPool::unregistered(1, 4096).unwrap();
    let (reader, mut writer) = pipe();
    accept(&mut kernel, read(&reader, pool.lease().unwrap(), 0));
    submit(&mut kernel);
    drop(kernel);
    let mut lease = pool.lease().expect("the buffer came back");
    lease.fill(PATTERN);
    writer.write_all(b"late").unwrap();
    assert!(lease.iter().all(|byte| *byte == PATTERN), "the kernel wrote after the drop");
}

#[test]
fn drop_cancels_more_than_the_queue_holds() {
    require_io_uring!();
    let (reader, _writer) = pipe();
    let pool = BufferPool::unregistered(64, 4096).unwrap();
    for is_submitted in [false, true] {
        let mut kernel = KernelProcessor::new(64, 1).unwrap();
        kernel.set_drain_timeout(Duration::from_secs(5));
        while let Some(lease) = pool.lease() {
            accept(&mut kernel, read(&reader, lease, 0));
        }
        // If not, the queue is full, and there is a cancel for each of its entries.
        if is_submitted {
            submit(&mut kernel);
        }
        drop(kernel);
        assert_eq!(pool.available(), 64, "every buffer came back");
    }
}

#[test]
fn a_cancel_that_finds_no_room_is_not_lost() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(8, 1).unwrap();
    let ids: Vec<_> = (0..8).map(|_| accept(&mut kernel, never())).collect();
    for id in ids {
        kernel.cancel(id);
    }
    for event in wait(&mut kernel, 8) {
        assert_eq!(event.result.unwrap_err().cause, Cause::Cancelled);
    }
}

#[test]
fn what_was_accepted_and_never_submitted_comes_back() {
    require_io_uring!();
    let (reader, _writer) = pipe();
    let pool = BufferPool::unregistered(4, 4096).unwrap();
    let mut processors = cancellers();
    processors.push(Box::new(ThreadProcessor::new(0, 64)));
    for mut processor in processors {
        accept(&mut *processor, Timeout { duration: Duration::from_secs(3600) });
        accept(&mut *processor, read(&reader, pool.lease().unwrap(), 0));
        let id = accept(&mut *processor, read(&reader, pool.lease().unwrap(), 0));
        processor.cancel(id);
        drop(processor);
        assert_eq!(pool.available(), 4);
    }
}

#[test]
fn a_chain_in_flight_is_drained() {
    require_io_uring!();
    let (reader, _writer) = pipe();
    let pool = BufferPool::unregistered(4, 4096).unwrap();
    for mut processor in cancellers() {
        let scratch = scratch::directory();
        let target = fs::File::create(scratch.path().join("file")).unwrap();
        let target = File::from_fd(target.into());
        let block = read(&reader, pool.lease().unwrap(), 0);
        let chain = Chain::read_then_write(block, (&target).into(), 0);
        processor.accept_chain(chain, Token::default()).unwrap();
        let sync = Sync { file: target.clone(), reach: SyncReach::FileSystem };
        let chain = Chain::write_then_sync(write(&target, pool.lease().unwrap(), 0), sync);
        processor.accept_chain(chain, Token::default()).unwrap();
        submit(&mut *processor);
        drop(processor);
        assert_eq!(pool.available(), 4);
    }
}

#[test]
fn what_cannot_be_drained_is_leaked_and_never_freed() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(8, 1).unwrap();
    kernel.set_drain_timeout(Duration::ZERO);
    leaks(Box::new(kernel), |_| {});
    let mut threads = ThreadProcessor::new(1, 8);
    threads.set_drain_timeout(Duration::ZERO);
    leaks(Box::new(threads), |reader| tasks::wait_until_in_call(libc::SYS_read, reader, 1));
}

fn leaks(mut processor: Box<dyn OperationProcessor>, wait_until_begun: fn(&File)) {
    let pool = BufferPool::unregistered(2, 4096).unwrap();
    let mut other = pool.lease().unwrap();
    other.fill(PATTERN);
    let (reader, mut writer) = pipe();
    accept(&mut *processor, read(&reader, pool.lease().unwrap(), 0));
    submit(&mut *processor);
    wait_until_begun(&reader);
    drop((processor, reader));
    assert!(pool.lease().is_none(), "the kernel may still write to it");
    // If the pipe's last reader were closed, this would be refused.
    writer.write_all(&[IN_FILE; 4096]).expect("the file is leaked, too");
    assert!(other.iter().all(|byte| *byte == PATTERN), "what others have is left alone");
    assert!(pool.lease().is_none(), "it is leaked for good");
}

#[test]
fn a_helper_in_flight_is_waited_for() {
    let _hold = crate::support::machine::shared();
    let scratch = scratch::directory();
    for mut processor in processors() {
        let pool = BufferPool::unregistered(16, BLOCK_BYTES).unwrap();
        let directory = File::from_fd(fs::File::open(scratch.path()).unwrap().into());
        while let Some(lease) = pool.lease() {
            let directory = directory.clone();
            accept(&mut *processor, ListDirectory { directory, buffer: lease.into() });
        }
        submit(&mut *processor);
        drop(processor);
        assert_eq!(pool.available(), 16);
    }
}

#[test]
fn what_a_helper_has_begun_ends_by_itself() {
    require_io_uring!();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = File::from_fd(writer.into());
    let mut processors = processors();
    while let Some(mut processor) = processors.pop() {
        // More than the pipe holds: the helper is stuck until somebody reads. A chain with a sync of
        // a file system is a helper's as a whole.
        let written = write(&writer, vec![PATTERN; BLOCK_BYTES as usize], 0);
        let sync = Sync { file: writer.clone(), reach: SyncReach::FileSystem };
        let chain = Chain::write_then_sync(written, sync);
        let id = processor.accept_chain(chain, Token::default()).unwrap();
        submit(&mut *processor);
        tasks::wait_until_in_call(libc::SYS_write, &writer, 1);
        processor.cancel(id);
        submit(&mut *processor);
        assert_eq!(processor.in_flight(), 2, "a helper has it");
        let mut bytes = vec![0; BLOCK_BYTES as usize];
        reader.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == PATTERN));
        assert_eq!(wait(&mut *processor, 2)[0].result, Ok(BLOCK_BYTES));
    }
}

#[test]
fn cancelling_direct_reads_in_flight_loses_no_byte() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(64, 1).unwrap();
    let pool = pool(&mut kernel, true);
    let scratch = scratch::directory();
    let file = direct_file(&scratch.path().join("file"));
    let ids: Vec<_> = (0..BLOCKS)
        .map(|number| {
            let mut lease = pool.lease().unwrap();
            lease.fill(PATTERN);
            accept(&mut kernel, read(&file, lease, offset(number)))
        })
        .collect();
    submit(&mut kernel);
    for id in ids {
        kernel.cancel(id);
    }
    let mut succeeded = 0;
    for event in wait(&mut kernel, BLOCKS as usize) {
        let result = event.result;
        let Some(Operation::Read(read)) = event.into_operation() else { panic!("it was a read") };
        match result {
            Ok(length) => {
                succeeded += 1;
                assert_eq!(length, BLOCK_BYTES);
                assert!(read.buffer.as_slice().iter().all(|byte| *byte == IN_FILE));
            }
            Err(error) => assert_eq!(error.cause, Cause::Cancelled, "{error:?}"),
        }
    }
    assert!(succeeded > 0, "what the device has can't be taken back");
    assert_eq!(kernel.stale_completions(), 0);
}

#[test]
fn cancels_of_all_ages_lose_no_operation() {
    require_io_uring!();
    let (reader, mut writer) = pipe();
    for mut processor in cancellers() {
        let mut ended = 0;
        let mut ids = Vec::new();
        let mut events = CompletionEventQueue::default();
        for round in 0..500_usize {
            let operation: Operation = match round % 3 {
                0 => Operation::Nop,
                1 => never(),
                _ => read(&reader, vec![0; 16], 0).into(),
            };
            ids.push(accept(&mut *processor, operation));
            if round % 7 == 0 {
                writer.write_all(b"x").unwrap();
            }
            processor.submit_and_wait(0, None, &mut events).unwrap();
            // The newest, one that may have ended, and one that has ended long ago.
            for age in [1, 4, 100] {
                if let Some(id) = ids.len().checked_sub(age).map(|place| ids[place]) {
                    processor.cancel(id);
                }
            }
            ended += std::iter::from_fn(|| events.pop()).count();
        }
        for id in &ids {
            processor.cancel(*id);
        }
        ended += wait(&mut *processor, ids.len() - ended).len();
        assert_eq!(ended, ids.len());
        assert_eq!(processor.in_flight(), 0);
    }
}

#[test]
fn an_opened_file_that_nobody_claims_is_closed() {
    let _hold = crate::support::machine::shared();
    let scratch = scratch::directory();
    let path = scratch.path().join("file");
    fs::write(&path, b"hello").unwrap();
    for mut processor in processors() {
        for _ in 0..8 {
            accept(&mut *processor, Open::read(Place::path(&path).unwrap()));
        }
        let events = wait(&mut *processor, 4);
        assert!(descriptors_of(&path) >= 4, "the files are open");
        drop(events);
        submit(&mut *processor);
        drop(processor);
        assert_eq!(descriptors_of(&path), 0, "events and drop close what nobody claims");
    }
}

#[test]
fn drop_waits_for_sockets_and_disk_in_flight() {
    require_io_uring!();
    let scratch = scratch::directory();
    let path = scratch.path().join("file");
    let file = direct_file(&path);
    for mut processor in processors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Socket::from_fd(listener.into());
        let pool = pool_of(&mut *processor);
        let received = processor.receive_pool(8, 4096).unwrap();
        let mut peers = Vec::new();
        for number in 0..4 {
            let (socket, mut peer) = connection(&listener, address);
            peer.write_all(b"early").unwrap();
            let lease = || pool.lease().unwrap();
            accept(&mut *processor, Receive::new(&socket, lease()));
            accept(&mut *processor, Receive::new(&socket, lease()));
            let buffers = vec![lease().into()];
            accept(&mut *processor, ReceiveMessage { socket: socket.clone(), buffers });
            accept(&mut *processor, Send::new(&socket, lease()));
            accept(&mut *processor, SendZeroCopy::new(&socket, lease()));
            accept(&mut *processor, read(&file, lease(), offset(number)));
            accept(&mut *processor, Poll::socket(&socket, PollEvents::READABLE));
            peers.push(peer);
            let (socket, mut peer) = connection(&listener, address);
            accept(&mut *processor, ReceiveMany { socket, pool: received.clone() });
            peer.write_all(b"early").unwrap();
            peers.push(peer);
        }
        accept(&mut *processor, Accept { listener: listener.clone(), socket: None });
        accept(&mut *processor, AcceptMany { listener: listener.clone() });
        let waiting: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        submit(&mut *processor);
        // What is to come now finds no processor.
        drop((processor, listener));
        assert_eq!(pool.available(), BLOCKS as usize, "every buffer came back");
        assert_eq!(received.on_loan(), 0);
        let leases = patterned(&pool);
        peers.iter_mut().for_each(|peer| drop(peer.write_all(b"late")));
        read_with_the_device(&path);
        for lease in leases {
            assert!(lease.iter().all(|byte| *byte == PATTERN), "the kernel wrote after the drop");
        }
        for mut peer in peers.into_iter().chain(waiting) {
            peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let end = peer.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
            assert_ne!(end, Err(ErrorKind::WouldBlock), "every socket is closed");
        }
    }
}

#[test]
fn an_accepted_connection_that_nobody_takes_is_closed() {
    let _hold = crate::support::machine::shared();
    for mut processor in processors() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Socket::from_fd(listener.into());
        accept(&mut *processor, AcceptMany { listener });
        let mut clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let events = wait(&mut *processor, 4);
        assert!(events.iter().all(|event| matches!(event.end, End::More(Part::Socket(_)))));
        drop(events);
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the event's socket is closed");
        }
        // These the drop of the processor finds, accepted or not.
        let mut clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        submit(&mut *processor);
        drop(processor);
        for client in &mut clients {
            let end = client.read(&mut [0; 1]);
            assert!(matches!(end, Ok(0) | Err(_)), "its socket is closed");
        }
    }
}

#[test]
fn a_connection_accepted_for_a_task_that_has_gone_is_closed() {
    let _hold = crate::support::machine::shared();
    for processor in processors() {
        let proactor = Proactor::new(processor);
        let initiator = proactor.initiator();
        let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = proactor.block_on(initiator.listen(anywhere)).unwrap();
        let address = proactor.block_on(initiator.own_address(&listener)).unwrap();
        for is_submitted in [false, true] {
            let mut accepting = Box::pin(initiator.accept(&listener));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(accepting.as_mut().poll(&mut context).is_pending());
            if is_submitted {
                proactor.turn(Duration::ZERO).unwrap();
            }
            let mut client = TcpStream::connect(address.internet().unwrap()).unwrap();
            drop(accepting);
            // It was cancelled, or had the connection: which then was closed, and else is there.
            while proactor.in_flight() > 0 {
                proactor.turn(Duration::from_millis(10)).unwrap();
            }
            client.set_nonblocking(true).unwrap();
            let is_taken = client.read(&mut [0; 1]).is_ok();
            if !is_taken {
                drop(proactor.block_on(initiator.accept(&listener)).unwrap());
            }
            client.set_nonblocking(false).unwrap();
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "somebody closed it");
        }
    }
}

#[test]
fn a_receive_without_buffers_is_not_begun_again() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(8, 1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (socket, mut peer) = connection(&Socket::from_fd(listener.into()), address);
    let pool = kernel.receive_pool(1, 2).unwrap();
    accept(&mut kernel, ReceiveMany { socket, pool });
    peer.write_all(b"hello").unwrap();
    let mut pieces = wait(&mut kernel, 1);
    // Nothing can come: so nothing is waited for, and the ring is not asked again and again.
    let mut events = CompletionEventQueue::default();
    kernel.submit_and_wait(1, None, &mut events).unwrap();
    assert!(events.is_empty());
    for rest in [&b"ll"[..], b"o"] {
        drop(pieces);
        pieces = wait(&mut kernel, 1);
        assert!(matches!(&pieces[0].end, End::More(Part::Bytes(bytes)) if **bytes == *rest));
    }
}

#[test]
fn what_the_kernel_ends_when_its_queue_is_full_goes_on() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(8, 1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Socket::from_fd(listener.into());
    accept(&mut kernel, AcceptMany { listener });
    let _clients: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    let events = wait(&mut kernel, 100);
    assert!(events.iter().all(|event| matches!(event.end, End::More(Part::Socket(_)))));
    assert_eq!(kernel.in_flight(), 1, "it still accepts");
}

/// A connection to a listener: the end that an engine serves, and the other.
fn connection(listener: &Socket, address: SocketAddr) -> (Socket, TcpStream) {
    let peer = TcpStream::connect(address).unwrap();
    let fd = listener.fd().unwrap().try_clone_to_owned().unwrap();
    let (accepted, _) = TcpListener::from(fd).accept().unwrap();
    (Socket::from_fd(accepted.into()), peer)
}

fn pool_of(processor: &mut dyn OperationProcessor) -> BufferPool {
    processor.buffer_pool(BLOCKS, BLOCK_BYTES).unwrap()
}

#[test]
fn a_registered_file_that_nobody_has_is_closed() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(8, 1).unwrap();
    let (reader, mut writer) = pipe();
    let slot = kernel.register_file(Some(&reader)).unwrap();
    drop(reader);
    writer.write_all(b"x").expect("the table keeps the reader open");
    drop(slot);
    submit(&mut kernel);
    // The kernel closes it in a later turn of its own.
    for _ in 0..1000 {
        if writer.write_all(b"x").is_err() {
            return;
        }
        let mut events = CompletionEventQueue::default();
        accept(&mut kernel, Timeout { duration: Duration::from_millis(1) });
        kernel.submit_and_wait(1, None, &mut events).unwrap();
    }
    panic!("the table still keeps the reader open");
}

#[test]
fn a_buffer_of_another_ring_is_plain_memory() {
    require_io_uring!();
    let (mut one, mut other) =
        (KernelProcessor::new(8, 1).unwrap(), KernelProcessor::new(8, 1).unwrap());
    let (pool, others_pool) =
        (one.buffer_pool(1, 4096).unwrap(), other.buffer_pool(1, 4096).unwrap());
    assert!(pool.is_registered() && others_pool.is_registered());
    others_pool.lease().unwrap().fill(IN_FILE);
    let scratch = scratch::directory();
    let path = scratch.path().join("file");
    let file = fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    let file = File::from_fd(file.into());

    let mut lease = pool.lease().unwrap();
    lease.fill(PATTERN);
    accept(&mut other, write(&file, lease, 0));
    assert_eq!(wait(&mut other, 1)[0].result, Ok(4096));
    assert_eq!(fs::read(&path).unwrap(), [PATTERN; 4096]);

    let mut lease = pool.lease().unwrap();
    lease.fill(0);
    accept(&mut other, read(&file, lease, 0));
    let event = wait(&mut other, 1).remove(0);
    assert_eq!(event.result, Ok(4096));
    let Some(Operation::Read(read)) = event.into_operation() else { panic!("it was a read") };
    assert_eq!(read.buffer.as_slice(), [PATTERN; 4096]);
    drop(others_pool);
}

#[test]
fn a_registered_buffer_outlives_its_pool_while_it_is_used() {
    require_io_uring!();
    let mut kernel = KernelProcessor::new(8, 1).unwrap();
    let (reader, mut writer) = pipe();
    let lease = kernel.buffer_pool(1, 4096).unwrap().lease().unwrap();
    accept(&mut kernel, read(&reader, lease, 0));
    submit(&mut kernel);
    writer.write_all(b"hello").unwrap();
    let event = wait(&mut kernel, 1).remove(0);
    assert_eq!(event.result, Ok(5));
    drop(kernel);
    let Some(Operation::Read(read)) = event.into_operation() else { panic!("it was a read") };
    assert_eq!(&read.buffer.as_slice()[..5], b"hello", "a lease outlives its processor");
}

#[test]
fn a_wake_ends_the_wait_even_beside_a_helper() {
    require_io_uring!();
    for mut processor in processors() {
        let waker = processor.waker();
        let id = accept(&mut *processor, never());
        let mut events = CompletionEventQueue::default();
        waker.wake();
        processor.submit_and_wait(1, None, &mut events).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| waker.wake());
            processor.submit_and_wait(1, None, &mut events).unwrap();
        });
        // A helper rings the same bell: its ring alone must not count for a wake, nor hide one.
        let file = File::from_fd(fs::File::open("/").unwrap().into());
        accept(&mut *processor, FileSystemStatus { file, magic: 0, available_bytes: 0 });
        waker.wake();
        processor.submit_and_wait(2, None, &mut events).unwrap();
        processor.cancel(id);
        while processor.in_flight() > 0 {
            processor.submit_and_wait(1, None, &mut events).unwrap();
        }
        assert_eq!(events.len(), 2);
    }
}

/// Kernel and thread processors.
fn processors() -> Vec<Box<dyn OperationProcessor>> {
    let mut processors = cancellers();
    processors.push(Box::new(ThreadProcessor::new(4, 64)));
    processors
}

/// Those that can take back what waits for a pipe: a helper can't.
fn cancellers() -> Vec<Box<dyn OperationProcessor>> {
    vec![Box::new(KernelProcessor::new(64, 4).unwrap())]
}

fn pool(kernel: &mut KernelProcessor, is_registered: bool) -> BufferPool {
    if is_registered {
        let pool = kernel.buffer_pool(BLOCKS, BLOCK_BYTES).unwrap();
        assert!(pool.is_registered());
        return pool;
    }
    BufferPool::unregistered(BLOCKS, BLOCK_BYTES).unwrap()
}

/// All blocks of a pool, filled with the pattern.
fn patterned(pool: &BufferPool) -> Vec<Lease> {
    let mut leases: Vec<_> = std::iter::from_fn(|| pool.lease()).collect();
    leases.iter_mut().for_each(|lease| lease.fill(PATTERN));
    leases
}

/// A file as long as all blocks, not in the page cache, open for direct I/O.
fn direct_file(path: &Path) -> File {
    let bytes = vec![IN_FILE; (BLOCKS * BLOCK_BYTES) as usize];
    fs::write(path, bytes).unwrap();
    fs::File::open(path).unwrap().sync_all().unwrap();
    open_direct(path)
}

/// Reads the whole file past the page cache: behind everything that the device was asked before.
fn read_with_the_device(path: &Path) {
    let mut threads = ThreadProcessor::new(0, 1);
    let pool = BufferPool::unregistered(1, BLOCK_BYTES).unwrap();
    let file = open_direct(path);
    for number in 0..BLOCKS {
        accept(&mut threads, read(&file, pool.lease().unwrap(), offset(number)));
        assert_eq!(wait(&mut threads, 1)[0].result, Ok(BLOCK_BYTES));
    }
}

fn open_direct(path: &Path) -> File {
    use std::os::unix::fs::OpenOptionsExt;
    let options = fs::File::options().read(true).write(true).custom_flags(libc::O_DIRECT).clone();
    let file = options.open(path).expect("the build directory takes direct I/O");
    File::from_fd(file.into())
}

fn pipe() -> (File, fs::File) {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    (File::from_fd(reader), writer.into())
}

fn never() -> Operation {
    Timeout { duration: Duration::from_secs(3600) }.into()
}

fn read(file: &File, buffer: impl Into<Buffer>, offset_bytes: u64) -> Read {
    let buffer = buffer.into();
    let length = buffer.length();
    Read { handle: file.into(), buffer, offset_bytes, start: 0, length }
}

fn write(file: &File, buffer: impl Into<Buffer>, offset_bytes: u64) -> Write {
    let buffer = buffer.into();
    let length = buffer.length();
    Write { handle: file.into(), buffer, offset_bytes, start: 0, length }
}

fn offset(number: u32) -> u64 {
    u64::from(number) * u64::from(BLOCK_BYTES)
}

fn accept(processor: &mut dyn OperationProcessor, operation: impl Into<Operation>) -> OperationId {
    processor.accept(operation.into(), Token::default()).expect("there is room")
}

/// Submits what was accepted, and waits for nothing.
fn submit(processor: &mut dyn OperationProcessor) {
    processor.submit_and_wait(0, None, &mut CompletionEventQueue::default()).unwrap();
}

fn wait(processor: &mut dyn OperationProcessor, count: usize) -> Vec<CompletionEvent> {
    let mut queue = CompletionEventQueue::default();
    while queue.len() < count {
        assert!(processor.in_flight() > 0, "nothing is left to wait for");
        processor.submit_and_wait(1, None, &mut queue).unwrap();
    }
    std::iter::from_fn(|| queue.pop()).collect()
}

/// How many descriptors of this process are the file at `path`. Other tests have others open.
fn descriptors_of(path: &Path) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target == path)
        .count()
}
