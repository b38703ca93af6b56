//! What is the same for all contestants: the blocks to read and their order, the time, what is counted,
//! and where a server listens.

use std::cell::RefCell;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{process, thread};

use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use ucp_engine::random::Random;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Bytes of each read, and the alignment of its buffer.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// No-ops in flight.
pub(crate) const NOP_DEPTH: u32 = 32;
/// Bytes of a server's buffer for each connection: of the largest message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// How often the clock is read: once for so many operations, as reading it takes as long as a no-op.
const CLOCK_EVERY: u32 = 32;

/// A file to read at random, how, and for how long.
pub(crate) struct Reading {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) depth: u32,
    /// Whether the reads go past the page cache.
    pub(crate) is_direct: bool,
    blocks: u64,
    duration: Duration,
}

/// Counts operations until the time is over.
pub(crate) struct Stint {
    start: Instant,
    duration: Duration,
    ended: u64,
    until_clock: u32,
    is_over: bool,
}

/// Which block to read next, until the time is over.
pub(crate) struct Reads {
    stint: Stint,
    random: Random,
    blocks: u64,
}

/// Reads that the tasks of one thread share.
pub(crate) type SharedReads = Rc<RefCell<Reads>>;

impl Reading {
    pub(crate) fn open(
        path: &str,
        depth: u32,
        is_direct: bool,
        duration: Duration,
    ) -> io::Result<Self> {
        let flags = open_flags(is_direct);
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let blocks = file.metadata()?.len() / BLOCK_BYTES as u64;
        if blocks == 0 || depth == 0 {
            return Err(io::Error::new(ErrorKind::InvalidInput, "there is nothing to read"));
        }
        Ok(Self { path: path.into(), file, depth, is_direct, blocks, duration })
    }

    /// What to open the file with, for those that open it by themselves.
    pub(crate) fn flags(&self) -> i32 {
        open_flags(self.is_direct)
    }

    /// The blocks for all that is in flight on one thread. The time begins.
    pub(crate) fn begin(&self) -> Reads {
        self.begin_with(1)
    }

    pub(crate) fn begin_shared(&self) -> SharedReads {
        Rc::new(RefCell::new(self.begin()))
    }

    /// The same from a seed, for one of several threads.
    pub(crate) fn begin_with(&self, seed: u64) -> Reads {
        let stint = Stint::new(self.duration);
        Reads { stint, random: Random::new(seed), blocks: self.blocks }
    }
}

impl Stint {
    pub(crate) fn new(duration: Duration) -> Self {
        let start = Instant::now();
        Self { start, duration, ended: 0, until_clock: CLOCK_EVERY, is_over: false }
    }

    /// Whether one more is to be started.
    #[inline]
    pub(crate) fn goes_on(&mut self) -> bool {
        self.until_clock -= 1;
        if self.until_clock == 0 {
            self.until_clock = CLOCK_EVERY;
            self.is_over = self.start.elapsed() >= self.duration;
        }
        !self.is_over
    }

    #[inline]
    pub(crate) fn on_end(&mut self) {
        self.ended += 1;
    }

    /// Prints how many ended in a second, and what one took of the processor.
    pub(crate) fn report(&self) -> Result {
        report(self.ended, self.start.elapsed())
    }

    pub(crate) fn ended(&self) -> u64 {
        self.ended
    }
}

impl Reads {
    /// The byte at which the next read starts; none once the time is over.
    #[inline]
    pub(crate) fn next_offset(&mut self) -> Option<u64> {
        let goes_on = self.stint.goes_on();
        goes_on.then(|| self.random.below(self.blocks) * BLOCK_BYTES as u64)
    }

    /// Counts a read that gave so many bytes.
    #[inline]
    pub(crate) fn on_end(&mut self, bytes: usize) -> io::Result<()> {
        if bytes != BLOCK_BYTES {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("a read of {bytes} bytes"),
            ));
        }
        self.stint.on_end();
        Ok(())
    }

    pub(crate) fn report(&self) -> Result {
        self.stint.report()
    }

    pub(crate) fn ended(&self) -> u64 {
        self.stint.ended()
    }
}

/// One of the reads in flight: the same loop for every runtime with tasks.
pub(crate) async fn read_until_over<B>(
    reads: SharedReads,
    mut buffer: B,
    read: impl AsyncFn(B, u64) -> (io::Result<usize>, B),
) -> io::Result<()> {
    loop {
        let Some(offset) = reads.borrow_mut().next_offset() else { return Ok(()) };
        let (result, back) = read(buffer, offset).await;
        reads.borrow_mut().on_end(result?)?;
        buffer = back;
    }
}

const fn open_flags(is_direct: bool) -> i32 {
    if is_direct { libc::O_DIRECT } else { 0 }
}

/// Prints how many of something ended in a second, and what one took of the processor.
pub(crate) fn report(ended: u64, elapsed: Duration) -> Result {
    println!("per_second={:.0}", ended as f64 / elapsed.as_secs_f64());
    println!("cpu_us_each={:.3}", cpu_time()?.as_secs_f64() * 1e6 / ended as f64);
    Ok(())
}

/// What this process has taken of the processor, all of its threads and the kernel's workers for it.
pub(crate) fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(us.try_into()?))
}

/// Memory in which a block lies at an aligned place, and where that is.
pub(crate) fn block_in_vector() -> (Vec<u8>, usize) {
    let memory = vec![0; 2 * BLOCK_BYTES];
    let start = memory.as_ptr().align_offset(BLOCK_BYTES);
    (memory, start)
}

/// Listens on the loopback, and says where.
pub(crate) fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    announce(listener.local_addr()?);
    Ok(listener)
}

/// Prints where a server listens, and ends this process when its standard input ends: with the program
/// that started it.
pub(crate) fn announce(address: SocketAddr) {
    println!("address={address}");
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        process::exit(0);
    });
}
