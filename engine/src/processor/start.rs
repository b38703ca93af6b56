//! Start-up: io_uring if it is there and works, threads otherwise, and the reason kept.

use std::fs;
use std::time::Duration;

use super::{KernelProcessor, OperationProcessor, ThreadProcessor};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::{HELPER_THREADS_DEFAULT, SLOTS_DEFAULT};
use crate::operation::{CompletionEventQueue, Open, Operation, Place, Read, Timeout, Token};

/// Which processor is wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EngineChoice {
    /// io_uring where it works, threads elsewhere.
    #[default]
    Auto,
    /// io_uring; its absence is an error.
    Uring,
    /// Threads.
    Threads,
}

/// How a processor is set up.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// Which processor is wanted.
    pub engine: EngineChoice,
    /// Operations in flight at the most.
    pub capacity: u32,
    /// Threads for what has no opcode; and for everything, without io_uring.
    pub helper_threads: usize,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            capacity: SLOTS_DEFAULT,
            helper_threads: HELPER_THREADS_DEFAULT,
        }
    }
}

/// Starts the processor that is wanted, or that works.
///
/// A ring is tried out before it is trusted: a filter may allow its set-up and refuse its use.
///
/// # Errors
///
/// Only with [`EngineChoice::Uring`]: why there is no ring.
pub fn start(configuration: &Configuration) -> Result<Box<dyn OperationProcessor>, Error> {
    let Configuration { engine, capacity, helper_threads } = *configuration;
    let threads = || ThreadProcessor::new(helper_threads.max(1), capacity);
    if engine == EngineChoice::Threads {
        return Ok(Box::new(threads()));
    }
    let ring = KernelProcessor::new(capacity, helper_threads);
    match ring.and_then(|mut ring| try_out(&mut ring).map(|()| ring)) {
        Ok(ring) => Ok(Box::new(ring)),
        Err(errno) if engine == EngineChoice::Uring => {
            Err(Error::new(ErrorKind::Unsupported, "io_uring", reason(errno)))
        }
        Err(errno) => Ok(Box::new(threads().with_reason(reason(errno)))),
    }
}

/// Runs a no-op, an open, a read and a timeout through the ring.
fn try_out(ring: &mut KernelProcessor) -> Result<(), Errno> {
    let mut events = CompletionEventQueue::default();
    let mut run = |operation| {
        ring.accept(operation, Token::default()).map_err(|_| Errno::EAGAIN)?;
        while events.is_empty() {
            ring.submit_and_wait(1, None, &mut events)
                .map_err(|error| error.errno().unwrap_or(Errno::EIO))?;
        }
        let event = events.pop().expect("an event was waited for");
        event.result.map_err(|error| error.errno)?;
        event.into_operation().ok_or(Errno::EPROTO)
    };
    run(Operation::Nop)?;
    run(Operation::Timeout(Timeout { duration: Duration::from_nanos(1) }))?;
    let opened = run(Operation::Open(Open::read(Place::path("/dev/zero")?)))?;
    let Operation::Open(Open { file: Some(file), .. }) = opened else { return Err(Errno::EPROTO) };
    let buffer = vec![0xa5; 64].into();
    let read = Read { handle: file.into(), buffer, offset_bytes: 0, start: 0, length: 64 };
    match run(Operation::Read(read))? {
        Operation::Read(read) if read.buffer.as_slice() == [0; 64] => Ok(()),
        _ => Err(Errno::EPROTO),
    }
}

/// Why there is no ring, with what to look at.
fn reason(errno: Errno) -> String {
    let words = match errno {
        Errno::EPERM | Errno::EACCES => "not permitted",
        Errno::ENOSYS => "not there",
        Errno::EOPNOTSUPP | Errno::EINVAL => "not supported",
        Errno::ENOMEM => "not enough memory (RLIMIT_MEMLOCK)",
        _ => errno.desc(),
    };
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match (errno, disabled.trim()) {
        (Errno::EPERM, level @ ("1" | "2")) => {
            format!("{words} (kernel.io_uring_disabled={level})")
        }
        (Errno::EPERM | Errno::ENOSYS | Errno::EOPNOTSUPP, "0") => {
            format!("{words} (a sandbox or seccomp filter: {errno:?})")
        }
        _ => format!("{words} ({errno:?})"),
    }
}
