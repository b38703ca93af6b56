//! Many hands that read one large file: each takes a buffer, the next piece, reads it, and hands it on.
//!
//! What they do is the same wherever they run: many on one ring, for a disk; one a core, each with a
//! processor of its own, for the page cache; all in turns in a simulation.

use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::plan::{Piece, Plan};
use super::shelf::{Loan, Shelf};
use super::way::Way;
use super::worker::{Crew, Job, Worker, cores, inline_proactor};
use crate::buffer::{Buffer, BufferPool};
use crate::copy::io::Io;
use crate::copy::pace::pace;
use crate::copy::pipeline::Chunk;
use crate::error::{Error, ErrorKind};
use crate::limits::{BUFFER_ALIGNMENT_BYTES, SUM_HANDS_MAX};
use crate::operation::{Handle, Operation, Read};
use crate::proactor::join_all;
use crate::processor::Configuration;

/// A large file that is being read.
pub(crate) struct Hands<'h, 'a> {
    pub(crate) job: &'h Job<'h>,
    pub(crate) handles: Vec<Handle>,
    pub(crate) alignment: u32,
    pub(crate) plan: Mutex<Plan>,
    /// For each piece a buffer of each file.
    pub(crate) buffers: &'a Shelf<Vec<Buffer>>,
    pub(crate) receiver: &'h dyn Receiver<'a>,
    /// Why it can't be read on: of several reasons the one that is first in the file.
    pub(crate) failure: Mutex<Option<Blamed>>,
}

/// A failure, and on which of the files, by its number.
pub(crate) type Blamed = (usize, Error);

/// Who gets the pieces that were read.
pub(crate) trait Receiver<'a>: Sync {
    /// A piece was given out, and will come unless reading fails. They begin in order.
    fn begin(&self, piece: Piece);

    /// A piece has come: its bytes, of each file. False if no more are wanted.
    fn deliver(&self, piece: Piece, bytes: Delivered<'a>) -> bool;
}

/// Bytes that were read.
pub(crate) struct Delivered<'a> {
    buffers: Loan<'a, Vec<Buffer>>,
    length: u32,
}

impl Delivered<'_> {
    /// Those of a file.
    pub(crate) fn of(&self, file: usize) -> &[u8] {
        let buffer = &self.buffers[file];
        buffer.part(aligned_start(buffer), self.length).unwrap_or_default()
    }
}

impl AsRef<[u8]> for Delivered<'_> {
    fn as_ref(&self) -> &[u8] {
        self.of(0)
    }
}

impl<'a> Hands<'_, 'a> {
    /// Reads all pieces, unless something fails or no more are wanted.
    pub(crate) async fn run(self, worker: &Worker<'_>, way: Way) -> Result<(), Blamed> {
        let depth = self.job.options.depth as usize;
        match (self.job.crew, way) {
            (Crew::Tasks, _) => self.work_side_by_side(depth, &worker.io, &self.inline()).await,
            (Crew::Threads(configuration), Way::Direct(_)) => {
                self.work_on_ring(worker, configuration).map_err(|error| (0, error))?;
            }
            (Crew::Threads(_), Way::Cached { is_resident, .. }) => {
                self.work_on_threads(worker.hands(is_resident));
            }
        }
        self.outcome()
    }

    /// The same with one hand, which takes turns with nobody: for files that are not large.
    pub(crate) async fn run_alone(self, worker: &Worker<'_>) -> Result<(), Blamed> {
        self.work(&worker.io, &self.inline()).await;
        self.outcome()
    }

    fn outcome(self) -> Result<(), Blamed> {
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    fn inline(&self) -> impl Fn(Piece, Delivered<'a>) + '_ {
        |piece, bytes| self.deliver(piece, bytes)
    }

    fn deliver(&self, piece: Piece, bytes: Delivered<'a>) {
        if !self.receiver.deliver(piece, bytes) {
            self.stop();
        }
    }

    /// Many blocks in flight on one ring, whose thread does nothing else; others take what was read.
    fn work_on_ring(
        &self,
        worker: &Worker<'_>,
        configuration: &Configuration,
    ) -> Result<(), Error> {
        let proactor = worker.ring(configuration)?;
        let io = self.job.io(proactor.initiator());
        let depth = self.job.options.depth as usize;
        let (sender, read) = mpsc::channel::<(Piece, Delivered<'a>)>();
        let read = Mutex::new(read);
        let take = || read.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let hash = || {
            while let Ok((piece, bytes)) = take() {
                self.deliver(piece, bytes);
            }
        };
        thread::scope(|scope| {
            let start = |_: &usize| {
                thread::Builder::new().name("ucp-hash".into()).spawn_scoped(scope, hash).is_ok()
            };
            let started = (0..cores().min(SUM_HANDS_MAX)).filter(start).count();
            let outcome = match started {
                // No thread is to be had: the ring's does it all.
                0 => proactor.try_block_on(self.work_side_by_side(depth, &io, &self.inline())),
                _ => {
                    // What can't be sent any more is what nobody wants: a hasher has panicked.
                    let send = |piece, bytes| drop(sender.send((piece, bytes)));
                    proactor.try_block_on(self.work_side_by_side(depth, &io, &send))
                }
            };
            drop(sender);
            outcome
        })
    }

    /// One hand a thread, each of which reads, and works on what it has read.
    fn work_on_threads(&self, count: usize) {
        let work = || {
            let proactor = inline_proactor();
            let io = self.job.io(proactor.initiator());
            proactor.block_on(self.work(&io, &self.inline()));
        };
        thread::scope(|scope| {
            for _ in 1..count {
                let hand = thread::Builder::new().name("ucp-hand".into());
                if hand.spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
    }

    async fn work_side_by_side(
        &self,
        count: usize,
        io: &Io,
        deliver: &dyn Fn(Piece, Delivered<'a>),
    ) {
        let hands = (0..count).map(|_| {
            let hand: std::pin::Pin<Box<dyn Future<Output = ()> + '_>> =
                Box::pin(self.work(io, deliver));
            hand
        });
        join_all(hands.collect()).await;
    }

    /// What one hand does.
    async fn work(&self, io: &Io, deliver: &dyn Fn(Piece, Delivered<'a>)) {
        // The buffer first: a piece that was given out and has none could keep all others waiting.
        while let Some(mut buffers) = self.buffers.take().await {
            let Some(piece) = self.claim() else { return };
            for (number, (handle, buffer)) in
                self.handles.iter().zip(buffers.iter_mut()).enumerate()
            {
                let taken = std::mem::replace(buffer, Buffer::empty());
                match self.read_piece(io, handle, piece, taken).await {
                    Ok(back) => *buffer = back,
                    Err(error) => return self.fail((number, error)),
                }
            }
            self.job.progress.add_bytes(u64::from(piece.length));
            deliver(piece, Delivered { buffers, length: piece.length });
        }
    }

    fn claim(&self) -> Option<Piece> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let piece = plan.claim()?;
        // While nobody else can claim: they begin in order.
        self.receiver.begin(piece);
        Some(piece)
    }

    fn stop(&self) {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner).stop();
        self.buffers.close();
    }

    fn fail(&self, (number, error): Blamed) {
        self.stop();
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first =
            failure.as_ref().is_none_or(|(_, known)| error.offset_bytes() < known.offset_bytes());
        if is_first {
            *failure = Some((number, error));
        }
    }

    async fn read_piece(
        &self,
        io: &Io,
        handle: &Handle,
        piece: Piece,
        mut buffer: Buffer,
    ) -> Result<Buffer, Error> {
        pace(self.job.throttle.as_ref(), piece.length, io).await?;
        let first = aligned_start(&buffer);
        let mut chunk = Chunk { file_offset: piece.offset, length: piece.length, done: 0 };
        while chunk.done < chunk.length {
            let rest = chunk.rest(0, self.alignment);
            let read = Read {
                handle: handle.clone(),
                buffer,
                offset_bytes: rest.file_offset,
                start: first + rest.buffer_start,
                length: rest.length,
            };
            let label = |error: Error| error.at(rest.file_offset);
            io.check()?;
            let (bytes, operation) =
                io.perform_counted(Operation::Read(read)).await.map_err(label)?;
            let Operation::Read(read) = operation else {
                unreachable!("an operation comes back as itself")
            };
            buffer = read.buffer;
            let moved = chunk.advanced(bytes, self.alignment);
            if moved.done == chunk.done {
                // At its end a file answers 0, or less than its alignment, again and again.
                return Err(became_shorter(chunk.position() + u64::from(bytes)));
            }
            chunk = moved;
        }
        Ok(buffer)
    }
}

impl Worker<'_> {
    /// Buffers for pieces of so many large files side by side. The pool is made when it is needed.
    pub(crate) fn buffers(
        &self,
        way: Way,
        files: usize,
        pool: &mut Option<BufferPool>,
    ) -> Result<Shelf<Vec<Buffer>>, Error> {
        let mut sets = Vec::new();
        match way {
            Way::Direct(_) => {
                let pool = match pool {
                    Some(pool) => pool,
                    None => pool.insert(self.block_pool()?),
                };
                while pool.available() >= files {
                    let leases = (0..files).filter_map(|_| pool.lease());
                    sets.push(leases.map(Buffer::from).collect());
                }
            }
            Way::Cached { is_resident, .. } => {
                // Plain memory, of which only so much is touched as is used.
                let bytes = u64::from(self.piece_bytes(way)) + BUFFER_ALIGNMENT_BYTES;
                let bytes = usize::try_from(bytes).expect("a piece fits into memory");
                let set = || (0..files).map(|_| Buffer::Vec(vec![0; bytes])).collect();
                sets.extend((0..2 * self.hands(is_resident)).map(|_| set()));
            }
        }
        Ok(Shelf::new(sets))
    }

    /// How many hands read a large file from the page cache: what is not there has to be waited for.
    fn hands(&self, is_resident: bool) -> usize {
        let depth = self.job.options.depth as usize;
        let count = if is_resident { cores() } else { depth.max(cores()) };
        count.min(SUM_HANDS_MAX)
    }
}

/// The byte of a buffer at which direct I/O may begin.
pub(crate) fn aligned_start(buffer: &Buffer) -> u32 {
    let alignment = usize::try_from(BUFFER_ALIGNMENT_BYTES).expect("it is small");
    let start = buffer.as_slice().as_ptr().align_offset(alignment);
    u32::try_from(start).expect("a start is below the alignment")
}

/// A file ends before its size.
pub(crate) fn became_shorter(at: u64) -> Error {
    let reason = "the file became shorter while it was read";
    Error::new(ErrorKind::SourceChanged, "read", reason).at(at)
}
