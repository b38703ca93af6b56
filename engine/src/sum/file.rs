//! The digests of one file: read in turn if it is small or tells no size, by many hands if it is large.

use std::ops::Range;
use std::sync::Mutex;

use nix::libc;

use super::folding::Folding;
use super::hands::{Delivered, Hands, Receiver, became_shorter};
use super::options::ends_before_range;
use super::plan::{Piece, Plan};
use super::way::Way;
use super::worker::Worker;
use crate::buffer::{Buffer, BufferPool};
use crate::copy::pace::pace;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::error::{Errno, Error, ErrorKind};
use crate::limits::SUM_PIECE_BYTES_CACHED;
use crate::operation::{
    CURRENT_POSITION, File, FileKind, FileStatus, Handle, Open, Operation, Place, Read,
};

/// What the bytes of a file come to.
#[derive(Clone, Debug)]
pub(super) struct Digested {
    pub(super) bytes: u64,
    pub(super) digests: Vec<Digest>,
}

/// Where the bytes that are read in turn end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// At this byte, or they are not what they were.
    Size(u64),
    /// At this byte, which may be before the end of the file.
    Range(u64),
    /// Wherever a read finds nothing more.
    Unknown,
}

impl Worker<'_> {
    /// Opens what the user named, and looks at it. A FIFO that is opened and closed at once would
    /// take its writer away: what it is has to be known before.
    pub(crate) async fn open_operand(
        &self,
        path: &std::path::Path,
    ) -> Result<(File, FileStatus), Error> {
        let place = || Place::path(path).map_err(|errno| Error::from_errno("open", errno));
        let known = self.io.status_at(place()?, true).await?;
        let Some(known) = known else { return Err(Error::from_errno("open", Errno::ENOENT)) };
        let flags = match known.kind {
            FileKind::Fifo => libc::O_RDONLY,
            _ => libc::O_RDONLY | libc::O_NONBLOCK,
        };
        let file = self.io.open(Open::new(place()?, flags)).await?;
        let status = self.io.status_of(&file).await?;
        if (status.kind == FileKind::Fifo) != (known.kind == FileKind::Fifo) {
            let reason = "another file came into its place meanwhile";
            return Err(Error::new(ErrorKind::SourceChanged, "open", reason));
        }
        Ok((file, status))
    }

    /// The digests of an open file: of all of it or of a range of it; with a position, of what comes
    /// from there on.
    pub(super) async fn digest(
        &self,
        (file, status): &(File, FileStatus),
        position: Option<u64>,
        algorithms: &[Algorithm],
    ) -> Result<Digested, Error> {
        if status.kind == FileKind::Directory {
            return Err(Error::from_errno("read", Errno::EISDIR));
        }
        let has_size = position.is_none()
            && match status.kind {
                // What is in /proc says 0, and is longer.
                FileKind::Regular | FileKind::BlockDevice => status.size_bytes > 0,
                _ => false,
            };
        let range = self.job.options.range;
        let (range, end) = match (has_size, range) {
            (true, Some(range)) => {
                let range = range.within(status.size_bytes)?;
                (range.clone(), End::Range(range.end))
            }
            (true, None) => (0..status.size_bytes, End::Size(status.size_bytes)),
            (false, Some(_)) if status.kind != FileKind::Regular || position.is_some() => {
                let reason = "a range needs a file that tells its size";
                return Err(Error::new(ErrorKind::Operand, "read", reason));
            }
            (false, Some(range)) => {
                let range = range.within(0)?;
                (range.clone(), End::Range(range.end))
            }
            (false, None) => (0..0, End::Unknown),
        };
        if range.end - range.start >= self.job.options.large_bytes_min {
            return self.digest_large(file, status, range, algorithms).await;
        }
        let start = position.unwrap_or(match status.kind {
            FileKind::Regular | FileKind::BlockDevice => range.start,
            _ => CURRENT_POSITION,
        });
        let way = match end {
            End::Unknown => Way::Cached { is_resident: true, drops: false },
            _ => self.choose_way(file, status, range.start).await,
        };
        let digested = self.digest_in_turn(file, status, (start, end), way, algorithms).await;
        let digested = match digested {
            Err(error) if is_refusal(&error, way) => {
                self.set_direct(file, false).await;
                let way = Way::Cached { is_resident: false, drops: false };
                self.digest_in_turn(file, status, (start, end), way, algorithms).await
            }
            digested => digested,
        };
        self.leave(file, way).await;
        digested
    }

    async fn leave(&self, file: &File, way: Way) {
        if let Way::Cached { drops: true, .. } = way {
            self.drop_pages(file).await;
        }
    }

    /// Reads a file from its start to its end, one read after the other.
    async fn digest_in_turn(
        &self,
        file: &File,
        status: &FileStatus,
        (start, end): (u64, End),
        way: Way,
        algorithms: &[Algorithm],
    ) -> Result<Digested, Error> {
        let (mut buffer, first) = self.take_buffer();
        let room = self.small_piece_bytes(way);
        let mut hashers = None;
        let (mut bytes, mut reads) = (0_u64, 0);
        loop {
            let offset = if start == CURRENT_POSITION { start } else { start + bytes };
            let wanted = match end {
                End::Range(end) => u32::try_from(end - offset).unwrap_or(u32::MAX).min(room),
                End::Size(_) | End::Unknown => room,
            };
            let asked = wanted.next_multiple_of(way.alignment());
            let label = |error: Error| error.at(bytes);
            let read;
            (read, buffer) =
                self.read(file, buffer, (offset, first, asked)).await.map_err(label)?;
            let read = read.min(wanted);
            pace(self.job.throttle.as_ref(), read, &self.io).await?;
            reads += 1;
            let part = buffer.part(first, read).unwrap_or_default();
            bytes += u64::from(read);
            self.job.progress.add_bytes(u64::from(read));
            let is_at_end = match end {
                End::Range(end) if start + bytes == end => true,
                End::Range(_) if read == 0 => return Err(ends_before_range(start + bytes)),
                End::Range(_) => false,
                End::Size(size) if bytes > size => return Err(was_changed(size)),
                End::Size(size) if bytes < size && read == 0 => return Err(became_shorter(bytes)),
                // One read of a file up to its end stops short there: no second one needs to look.
                End::Size(size) => bytes == size && read < asked,
                End::Unknown => read == 0,
            };
            if is_at_end && hashers.is_none() {
                let digests = algorithms.iter().map(|algorithm| algorithm.digest(part)).collect();
                self.give_back(buffer);
                return Ok(Digested { bytes, digests });
            }
            let hashers = hashers.get_or_insert_with(|| {
                algorithms.iter().map(|algorithm| algorithm.hasher()).collect::<Vec<_>>()
            });
            hashers.iter_mut().for_each(|hasher| hasher.update(part));
            if is_at_end {
                break;
            }
            if way.alignment() > 1
                && !read.is_multiple_of(way.alignment())
                && bytes < status.size_bytes
            {
                // From here on direct I/O can't go on, and what is missing is there no more.
                return Err(became_shorter(bytes));
            }
        }
        self.give_back(buffer);
        if reads > 1 && end != End::Unknown {
            self.check_unchanged(file, status).await?;
        }
        let digests = hashers.unwrap_or_default().into_iter().map(Hasher::finish).collect();
        Ok(Digested { bytes, digests })
    }

    /// Reads once; returns how many bytes there were.
    async fn read(
        &self,
        file: &File,
        buffer: Buffer,
        (offset_bytes, start, length): (u64, u32, u32),
    ) -> Result<(u32, Buffer), Error> {
        self.io.check()?;
        let read = Read { handle: file.into(), buffer, offset_bytes, start, length };
        match self.io.perform_counted(Operation::Read(read)).await? {
            (bytes, Operation::Read(read)) => Ok((bytes, read.buffer)),
            _ => unreachable!("an operation comes back as itself"),
        }
    }

    /// Fails if a file is not what it was when it was opened: what was read of it may be of no single
    /// moment.
    pub(crate) async fn check_unchanged(
        &self,
        file: &File,
        before: &FileStatus,
    ) -> Result<(), Error> {
        let after = self.io.status_of(file).await?;
        let of = |status: &FileStatus| (status.size_bytes, status.modified);
        if before.kind == FileKind::Regular && of(before) != of(&after) {
            return Err(was_changed(before.size_bytes.min(after.size_bytes)));
        }
        Ok(())
    }

    async fn digest_large(
        &self,
        file: &File,
        status: &FileStatus,
        range: Range<u64>,
        algorithms: &[Algorithm],
    ) -> Result<Digested, Error> {
        let Some(mut pool) = self.job.pools.take().await else { unreachable!("it stays open") };
        let way = self.choose_way(file, status, range.start).await;
        let digested = self.digest_by_hands(file, range.clone(), way, &mut pool, algorithms).await;
        let digests = match digested {
            Err(error) if is_refusal(&error, way) => {
                self.set_direct(file, false).await;
                let way = Way::Cached { is_resident: false, drops: false };
                self.digest_by_hands(file, range.clone(), way, &mut pool, algorithms).await
            }
            digested => digested,
        };
        self.leave(file, way).await;
        let digests = digests?;
        self.check_unchanged(file, status).await?;
        Ok(Digested { bytes: range.end - range.start, digests })
    }

    async fn digest_by_hands(
        &self,
        file: &File,
        range: Range<u64>,
        way: Way,
        pool: &mut Option<BufferPool>,
        algorithms: &[Algorithm],
    ) -> Result<Vec<Digest>, Error> {
        let plan = Plan::new(range, self.piece_bytes(way));
        let buffers = self.buffers(way, 1, pool)?;
        let folding = Folding::new(algorithms, plan.pieces());
        let hands = Hands {
            job: self.job,
            handles: vec![Handle::from(file)],
            alignment: way.alignment(),
            plan: Mutex::new(plan),
            buffers: &buffers,
            receiver: &folding,
            failure: Mutex::default(),
        };
        hands.run(self, way).await.map_err(|(_, error)| error)?;
        Ok(folding.finish())
    }

    /// Bytes that are read in one go of a file that is not large.
    pub(crate) fn small_piece_bytes(&self, way: Way) -> u32 {
        let room = self.job.options.small_bytes_max;
        let room = self.job.throttle.as_ref().map_or(room, |it| room.min(it.chunk_bytes()));
        room - room % way.alignment()
    }

    /// Bytes of one piece of a large file, a power of two. From the page cache they are few enough to stay in the
    /// cache of the core that reads them, which is the one that works on them.
    pub(crate) fn piece_bytes(&self, way: Way) -> u32 {
        let block_bytes = self.job.options.block_bytes;
        let most = match way {
            Way::Direct(_) => block_bytes,
            Way::Cached { .. } => block_bytes.min(SUM_PIECE_BYTES_CACHED),
        };
        let paced = self.job.throttle.as_ref().map_or(most, |it| most.min(it.chunk_bytes()));
        1 << paced.ilog2()
    }
}

impl<'a> Receiver<'a> for Folding<Delivered<'a>> {
    fn begin(&self, piece: Piece) {
        Folding::begin(self, piece.position);
    }

    fn deliver(&self, piece: Piece, bytes: Delivered<'a>) -> bool {
        Folding::deliver(self, piece.position, bytes);
        true
    }
}

/// Whether direct I/O was refused though the file system had promised it.
pub(crate) fn is_refusal(error: &Error, way: Way) -> bool {
    way.alignment() > 1 && error.errno() == Some(Errno::EINVAL)
}

fn was_changed(at: u64) -> Error {
    let reason = "the file was changed while it was read";
    Error::new(ErrorKind::SourceChanged, "read", reason).at(at)
}
