//! Reads a file at random, 4 KiB at a time, past the page cache: how fast the engine keeps a disk
//! busy.
//!
//! `random_read FILE SECONDS` prints `iops=NUMBER`. `benches/random_read` compares it with fio.

use std::error::Error;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use nix::libc;
use ucp_engine::OperationProcessor;
use ucp_engine::buffer::{Buffer, BufferPool};
use ucp_engine::operation::{
    CompletionEventQueue, File, Handle, Operation, Read, RegisteredFile, Token,
};
use ucp_engine::processor::{Full, KernelProcessor};
use ucp_engine::random::Random;

const DEPTH: u32 = 32;
const BLOCK_BYTES: u32 = 4096;
/// Reads to wait for at a time: waking up for each one cost a twentieth of the reads.
const BATCH: u32 = DEPTH / 4;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [path, seconds] = arguments.as_slice() else {
        return Err("usage: random_read FILE SECONDS".into());
    };
    let duration = Duration::from_secs(seconds.parse()?);
    let iops = Reader::start(path)?.read_for(duration)?;
    println!("iops={iops}");
    Ok(())
}

/// A file, and what it takes to read it at random.
struct Reader {
    kernel: KernelProcessor,
    pool: BufferPool,
    file: RegisteredFile,
    blocks: u64,
    random: Random,
}

impl Reader {
    fn start(path: &str) -> Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path)?;
        let blocks = file.metadata()?.len() / u64::from(BLOCK_BYTES);
        if blocks == 0 {
            return Err("the file is smaller than one block".into());
        }
        let mut kernel = KernelProcessor::new(DEPTH, 1)?;
        let pool = kernel.buffer_pool(DEPTH, BLOCK_BYTES)?;
        let file = kernel.register_file(Some(&File::from_fd(file.into())))?;
        Ok(Self { kernel, pool, file, blocks, random: Random::new(1) })
    }

    /// Keeps as many reads in flight as there are buffers, and returns how many ended in a second.
    fn read_for(&mut self, duration: Duration) -> Result<u64> {
        let mut events = CompletionEventQueue::default();
        while let Some(lease) = self.pool.lease() {
            self.start_read((&self.file).into(), lease.into())?;
        }
        let start = Instant::now();
        let mut ended = 0_u64;
        while start.elapsed() < duration {
            self.kernel.submit_and_wait(BATCH, None, &mut events)?;
            while let Some(event) = events.pop() {
                event.result?;
                ended += 1;
                if let Some(Operation::Read(read)) = event.into_operation() {
                    self.start_read(read.handle, read.buffer)?;
                    // At once, and not with the next wait: a disk that serves one after the other
                    // stood still meanwhile, and did a sixth less.
                    self.kernel.submit_and_wait(0, None, &mut events)?;
                }
            }
        }
        let elapsed_ns = start.elapsed().as_nanos();
        Ok(u64::try_from(u128::from(ended) * 1_000_000_000 / elapsed_ns)?)
    }

    fn start_read(&mut self, handle: Handle, buffer: Buffer) -> Result<()> {
        let offset_bytes = self.random.below(self.blocks) * u64::from(BLOCK_BYTES);
        let read = Read { handle, buffer, offset_bytes, start: 0, length: BLOCK_BYTES };
        match self.kernel.accept(read.into(), Token::default()) {
            Ok(_) => Ok(()),
            Err(Full(_)) => Err("more buffers than slots".into()),
        }
    }
}
