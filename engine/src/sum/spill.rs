//! Records of any number, put in order: what does not fit into memory lies in a file without a name.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::libc;

use super::shelf::Shelf;
use super::sorting::{Merge, Merged, Record, Run};
use crate::buffer::Buffer;
use crate::copy::io::Io;
use crate::error::{Errno, Error};
use crate::limits::{PATH_BYTES_MAX, SORT_READ_BYTES_MIN};
use crate::operation::{File, Handle, Open, Operation, Place, Read, Unlink, Write};

/// Collects records, from any thread.
#[derive(Debug)]
pub(crate) struct Sorter<'a> {
    state: Mutex<State>,
    /// Who has it writes a run away.
    permit: Shelf<()>,
    memory_bytes_max: usize,
    spill_directory: &'a Path,
}

#[derive(Debug, Default)]
struct State {
    run: Run,
    /// One that was written away, for its room: what each thread freed would stay with it.
    spare: Option<Run>,
    spilled: Option<Spilled>,
}

/// Runs that were written away.
#[derive(Debug)]
struct Spilled {
    file: Arc<File>,
    /// Where each begins and ends, if all of it was written.
    runs: Vec<(u64, u64)>,
    /// Behind the last run, written or not.
    end: u64,
}

/// Bytes that are written at a time.
const PART_BYTES: usize = 256 << 10;

impl<'a> Sorter<'a> {
    pub(crate) fn new(memory_bytes_max: usize, spill_directory: &'a Path) -> Self {
        let permit = Shelf::new(vec![()]);
        let run = Run::with_room(memory_bytes_max + PATH_BYTES_MAX);
        let state = Mutex::new(State { run, ..State::default() });
        Self { state, permit, memory_bytes_max, spill_directory }
    }

    /// Takes a record. Two of one name come in any order.
    pub(crate) async fn push(&self, name: &[u8], value: &[u8], io: &Io) -> Result<(), Error> {
        let label = |error: Error| error.on(self.spill_directory);
        while !self.push_if_room(name, value) {
            // One at a time, while the others fill the next run: that is all memory that it takes.
            let Some(_permit) = self.permit.take().await else { unreachable!("it stays open") };
            let run = {
                let mut state = self.lock();
                if state.run.bytes() < self.memory_bytes_max {
                    continue;
                }
                let next = state.spare.take().unwrap_or_else(|| self.new_run());
                std::mem::replace(&mut state.run, next)
            };
            self.spill(run, io).await.map_err(label)?;
        }
        Ok(())
    }

    fn push_if_room(&self, name: &[u8], value: &[u8]) -> bool {
        let mut state = self.lock();
        let has_room = state.run.bytes() < self.memory_bytes_max;
        if has_room {
            state.run.push(name, value);
        }
        has_room
    }

    fn new_run(&self) -> Run {
        // The last record goes beyond the bound.
        Run::with_room(self.memory_bytes_max + PATH_BYTES_MAX)
    }

    async fn spill(&self, mut run: Run, io: &Io) -> Result<(), Error> {
        let bytes = run.record_bytes();
        let known = self.lock().spilled.as_ref().map(|spilled| Arc::clone(&spilled.file));
        let file = match known {
            Some(file) => file,
            None => Arc::new(self.open(io).await?),
        };
        let (file, start) = {
            let mut state = self.lock();
            let spilled = state.spilled.get_or_insert(Spilled { file, runs: Vec::new(), end: 0 });
            let start = spilled.end;
            spilled.end += bytes;
            (Arc::clone(&spilled.file), start)
        };
        let (mut part, mut offset) = (Vec::new(), start);
        for record in run.sorted() {
            record.write(&mut part);
            if part.len() >= PART_BYTES {
                (part, offset) = write(&file, part, offset, io).await?;
            }
        }
        write(&file, part, offset, io).await?;
        if let Some(spilled) = &mut self.lock().spilled {
            spilled.runs.push((start, start + bytes));
        }
        run.clear();
        self.lock().spare = Some(run);
        Ok(())
    }

    /// A file that goes when it is closed.
    async fn open(&self, io: &Io) -> Result<File, Error> {
        let invalid = |errno| Error::from_errno("open", errno);
        let place = Place::path(self.spill_directory).map_err(invalid)?;
        let open = Open::new(place, libc::O_RDWR | libc::O_TMPFILE | libc::O_EXCL);
        match io.open(Open { mode: 0o600, ..open }).await {
            // Not every file system has files without names.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT)
                ) => {}
            opened => return opened,
        }
        let name = format!(".ucp-sort-{:x}", io.tasks.wall_clock().nanoseconds);
        let path = self.spill_directory.join(format!("{name}-{:x}", std::process::id()));
        let place = || Place::path(&path).map_err(invalid);
        let file = io.open(Open::create_new(place()?, 0o600)).await?;
        let unlink = Unlink { place: place()?, is_directory: false };
        io.perform_always(Operation::Unlink(unlink)).await?;
        Ok(file)
    }

    /// Gives all records in the order of their names.
    pub(crate) async fn drain(self, io: &Io, mut take: impl FnMut(Record)) -> Result<(), Error> {
        let memory_bytes_max = self.memory_bytes_max;
        let label = |error: Error| error.on(self.spill_directory);
        if self.lock().spilled.is_some() {
            let run = std::mem::take(&mut self.lock().run);
            self.spill(run, io).await.map_err(label)?;
        }
        let State { mut run, spilled, .. } = std::mem::take(&mut *self.lock());
        match spilled {
            None => run.sorted().for_each(take),
            Some(Spilled { file, mut runs, .. }) => {
                let bytes =
                    (memory_bytes_max / runs.len().max(1)).clamp(SORT_READ_BYTES_MIN, PART_BYTES);
                let mut merge = Merge::new(runs.len());
                let mut buffer = Buffer::Vec(vec![0; bytes]);
                loop {
                    match merge.next() {
                        Merged::Record(record) => take(record),
                        Merged::End => break,
                        Merged::Needs(run) => {
                            let (start, end) = &mut runs[run];
                            let read;
                            (read, buffer) = read_part(&file, buffer, (*start, *end), io)
                                .await
                                .map_err(label)?;
                            *start += u64::from(read);
                            merge.feed(run, buffer.part(0, read).unwrap_or_default());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of a part; returns it empty, and where it ends.
async fn write(
    file: &File,
    part: Vec<u8>,
    mut offset: u64,
    io: &Io,
) -> Result<(Vec<u8>, u64), Error> {
    let mut buffer = Buffer::Vec(part);
    let (length, mut start) = (buffer.length(), 0);
    while start < length {
        let handle = Handle::from(file);
        let write = Write { handle, buffer, offset_bytes: offset, start, length: length - start };
        io.check()?;
        let (bytes, operation) = io.perform_counted(Operation::Write(write)).await?;
        let Operation::Write(write) = operation else {
            unreachable!("an operation comes back as itself")
        };
        if bytes == 0 {
            return Err(Error::from_errno("write", Errno::EIO));
        }
        (buffer, start, offset) = (write.buffer, start + bytes, offset + u64::from(bytes));
    }
    let Buffer::Vec(mut part) = buffer else { unreachable!("it was a vector") };
    part.clear();
    Ok((part, offset))
}

/// Reads from `start` on, not beyond `end`; nothing is there at the end alone.
async fn read_part(
    file: &File,
    buffer: Buffer,
    (start, end): (u64, u64),
    io: &Io,
) -> Result<(u32, Buffer), Error> {
    let length = u32::try_from(end - start).unwrap_or(u32::MAX).min(buffer.length());
    if length == 0 {
        return Ok((0, buffer));
    }
    let read = Read { handle: file.into(), buffer, offset_bytes: start, start: 0, length };
    io.check()?;
    match io.perform_counted(Operation::Read(read)).await? {
        // What was written is gone.
        (0, _) => Err(Error::from_errno("read", Errno::EIO)),
        (bytes, Operation::Read(read)) => Ok((bytes, read.buffer)),
        _ => unreachable!("an operation comes back as itself"),
    }
}
