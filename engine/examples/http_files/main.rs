//! An HTTP/1.1 file server: what it reads and what it sends goes through one ring.
//!
//! `http_files ADDRESS ROOT [uring|threads]` serves the files below ROOT, for ever: GET and HEAD,
//! connections that are kept, single ranges.
//!
//! * No file outside of ROOT is opened: the kernel resolves each name beneath it and through no link
//!   (`openat2(2)`), so nothing here has to look at names.
//! * While one block of a file is being sent, the next is read. The first one shares its block with the
//!   head of the answer, so that a small file takes one read and one send.
//! * Everything is bounded: connections, blocks, the head of a request, and the time in which a request
//!   or the next block has to go through.
//!
//! Deciding is in `request.rs` (what is asked for) and `answer.rs` (what is said), without I/O.

mod answer;
pub(crate) mod request;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use request::{Refusal, Request};
use ucp_engine::buffer::{Buffer, BufferPool, ReceivePool};
use ucp_engine::operation::{
    Direction, File, Name, Open, Operation, OperationError, Place, Read, Send as SendBytes, Socket,
    SocketOption,
};
use ucp_engine::proactor::{JoinHandle, Pieces, TaskInitiator, join_all};
use ucp_engine::processor::{Configuration, EngineChoice};
use ucp_engine::units::Moment;
use ucp_engine::{Errno, Error, Proactor};

/// Connections at a time; what comes beyond them is closed.
const CONNECTIONS_MAX: usize = 2048;
/// Slots for what connections do: each receives all the time, and mostly does one thing more.
const CAPACITY: u32 = 8192;
const BLOCK_BYTES: u32 = 128 << 10;
const BLOCKS: u32 = 512;
/// How long to wait before taking connections again, when there was no room for one.
const ROOM_INTERVAL: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (address, root, engine) = match arguments.as_slice() {
        [address, root] => (address, root, EngineChoice::Auto),
        [address, root, engine] if engine == "uring" => (address, root, EngineChoice::Uring),
        [address, root, engine] if engine == "threads" => (address, root, EngineChoice::Threads),
        _ => return Err("usage: http_files ADDRESS ROOT [uring|threads]".into()),
    };
    let address: SocketAddr = address.parse()?;
    let configuration = Configuration { engine, capacity: CAPACITY, ..Configuration::default() };
    let proactor = Proactor::start(&configuration)?;
    let listener = proactor.block_on(proactor.initiator().listen(address))?;
    let server = Server::new(&proactor, Path::new(root), BLOCKS, Duration::from_secs(30))?;
    server.serve(&proactor, &listener, u32::MAX)?;
    Ok(())
}

/// What all connections share.
pub(crate) struct Server {
    initiator: TaskInitiator,
    root: File,
    heads: ReceivePool,
    pub(crate) blocks: BufferPool,
    idle_max: Duration,
    connections: RefCell<Vec<Weak<Connection>>>,
}

/// A connection, and since when it has got nowhere.
struct Connection {
    socket: Socket,
    since: Cell<Moment>,
}

/// A connection that ends, and nothing is to be said about it any more.
struct Broken;

/// A part of a file that is still to be sent.
struct Source {
    file: File,
    range: Range<u64>,
}

impl Server {
    /// A server of the files below `root`, with so many blocks to read into.
    pub(crate) fn new(
        proactor: &Proactor,
        root: &Path,
        blocks: u32,
        idle_max: Duration,
    ) -> Result<Rc<Self>, Error> {
        let initiator = proactor.initiator();
        let failed = |errno| Error::from_errno("open", errno).on(root);
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let open = Open::new(Place::path(root).map_err(failed)?, flags);
        let root = proactor.block_on(initiator.open(open)).map_err(|error| failed(error.errno))?;
        let no_room = |errno| Error::from_errno("make room", errno);
        Ok(Rc::new(Self {
            root,
            heads: initiator.receive_pool(256, 4096).map_err(no_room)?,
            blocks: initiator.buffer_pool(blocks, BLOCK_BYTES).map_err(no_room)?,
            idle_max,
            connections: RefCell::default(),
            initiator,
        }))
    }

    /// Serves so many connections that come to a listener. What a connection fails with ends that
    /// connection only.
    pub(crate) fn serve(
        self: &Rc<Self>,
        proactor: &Proactor,
        listener: &Socket,
        connections: u32,
    ) -> Result<(), Error> {
        proactor.block_on(async {
            self.initiator.spawn(Rc::clone(self).end_idle_connections())?;
            let mut incoming = self.initiator.accept_many(listener);
            let mut tasks: Vec<JoinHandle<()>> = Vec::new();
            let mut left = connections;
            while left > 0 {
                let socket = match incoming.next().await {
                    Some(Ok(socket)) => socket,
                    Some(Err(error)) if is_short_of_room(error.errno) => {
                        // Whoever takes all descriptors of the process must not end the server.
                        self.initiator.sleep(ROOM_INTERVAL).await;
                        incoming = self.initiator.accept_many(listener);
                        continue;
                    }
                    Some(Err(error)) => return Err(Error::from_errno("accept", error.errno)),
                    None => break,
                };
                left -= 1;
                tasks.retain(|task| !task.is_finished());
                if tasks.len() < CONNECTIONS_MAX {
                    tasks.push(self.initiator.spawn(Rc::clone(self).answer_all(socket))?);
                }
            }
            for task in tasks {
                task.await;
            }
            Ok(())
        })
    }

    /// Answers the requests of one connection, one after the other.
    async fn answer_all(self: Rc<Self>, socket: Socket) {
        let since = Cell::new(self.initiator.now());
        let connection = Rc::new(Connection { socket, since });
        self.connections.borrow_mut().push(Rc::downgrade(&connection));
        let no_delay = SocketOption::NoDelay(true);
        let _ = self.initiator.set_socket_option(&connection.socket, no_delay).await;
        let mut pieces = self.initiator.receive_many(&connection.socket, &self.heads);
        let mut input = Vec::new();
        loop {
            let is_kept = match request::parse(&input) {
                Ok(Some((request, length))) => {
                    input.drain(..length);
                    self.answer(&connection, &request).await.map(|()| request.is_kept)
                }
                Ok(None) => match pieces.next().await {
                    Some(Ok(piece)) => {
                        input.extend_from_slice(&piece);
                        continue;
                    }
                    Some(Err(_)) | None => return,
                },
                // Where the next request begins is not known.
                Err(refusal) => {
                    self.refuse(&connection, refusal, true, false).await.map(|()| false)
                }
            };
            connection.since.set(self.initiator.now());
            if !matches!(is_kept, Ok(true)) {
                break;
            }
        }
        self.part_with(&connection, &mut pieces).await;
    }

    /// Ends a connection so that the peer gets what was sent: closed with bytes unread, the connection
    /// would be reset. So what still comes is received, until the peer ends too.
    async fn part_with(&self, connection: &Connection, pieces: &mut Pieces) {
        let _ = self.initiator.shut_down(&connection.socket, Direction::Sending).await;
        while let Some(Ok(_)) = pieces.next().await {}
    }

    async fn answer(&self, connection: &Connection, request: &Request) -> Result<(), Broken> {
        match self.find(request).await {
            Ok((source, head)) if request.wants_body => self.send(connection, head, source).await,
            Ok((_, head)) => self.say(connection, head).await,
            Err(refusal) => {
                self.refuse(connection, refusal, request.wants_body, request.is_kept).await
            }
        }
    }

    /// Opens what is asked for, and puts the head of the answer together.
    async fn find(&self, request: &Request) -> Result<(Source, String), Refusal> {
        let name = Name::new(&request.name).map_err(|_| Refusal::BadRequest)?;
        // Opening a FIFO would wait for who writes to it.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK;
        let open = Open::new(Place::at(&self.root, &name), flags).confined();
        let file = self.initiator.open(open).await.map_err(refusal_of)?;
        let length = length_of(&file)?;
        let range = request.part.map_or(Ok(0..length), |part| part.within(length))?;
        let is_part = request.part.is_some();
        let head = answer::head_of_file(&request.name, &range, length, is_part, request.is_kept);
        Ok((Source { file, range }, head))
    }

    /// Sends a head and the bytes behind it: while one block is sent, the next is read, if there is a
    /// second one to be had.
    async fn send(
        &self,
        connection: &Connection,
        head: String,
        mut source: Source,
    ) -> Result<(), Broken> {
        let Some(mut block) = self.blocks.lease() else {
            return self
                .refuse(connection, Refusal::Unavailable, true, false)
                .await
                .and(Err(Broken));
        };
        block[..head.len()].copy_from_slice(head.as_bytes());
        let (mut block, mut length) = self.read(&mut source, block.into(), head.len()).await?;
        while !source.range.is_empty() {
            let Some(spare) = self.blocks.lease() else {
                block = self.send_block(connection, block, length).await?;
                (block, length) = self.read(&mut source, block, 0).await?;
                continue;
            };
            let (mut sent, mut next) = (Err(Broken), Err(Broken));
            join_all(vec![
                Box::pin(async { sent = self.send_block(connection, block, length).await }),
                Box::pin(async { next = self.read(&mut source, spare.into(), 0).await }),
            ])
            .await;
            sent?;
            (block, length) = next?;
        }
        self.send_block(connection, block, length).await.map(drop)
    }

    /// Fills a block behind its first `start` bytes, as far as the source goes; returns the block and
    /// where its bytes end. A source that is shorter than it was, or can't be read, ends the connection:
    /// its length was said.
    async fn read(
        &self,
        source: &mut Source,
        mut buffer: Buffer,
        start: usize,
    ) -> Result<(Buffer, u32), Broken> {
        let mut filled = u32::try_from(start).map_err(|_| Broken)?;
        while filled < buffer.length() && !source.range.is_empty() {
            let left = u32::try_from(source.range.end - source.range.start).unwrap_or(u32::MAX);
            let length = left.min(buffer.length() - filled);
            let handle = (&source.file).into();
            let offset_bytes = source.range.start;
            let read = Read { handle, buffer, offset_bytes, start: filled, length };
            let (result, operation) = self.initiator.perform(read.into()).await;
            let Operation::Read(read) = operation else { return Err(Broken) };
            let length = result.ok().filter(|length| *length > 0).ok_or(Broken)?;
            buffer = read.buffer;
            filled += length;
            source.range.start += u64::from(length);
        }
        Ok((buffer, filled))
    }

    /// Sends the first `length` bytes of a block, and gives the block back.
    async fn send_block(
        &self,
        connection: &Connection,
        mut buffer: Buffer,
        length: u32,
    ) -> Result<Buffer, Broken> {
        let mut start = 0;
        while start < length {
            let socket = connection.socket.clone();
            let send = SendBytes { socket, buffer, start, length: length - start };
            let (result, operation) = self.initiator.perform(send.into()).await;
            let Operation::Send(send) = operation else { return Err(Broken) };
            start += result.map_err(|_| Broken)?;
            buffer = send.buffer;
            connection.since.set(self.initiator.now());
        }
        Ok(buffer)
    }

    async fn refuse(
        &self,
        connection: &Connection,
        refusal: Refusal,
        wants_body: bool,
        is_kept: bool,
    ) -> Result<(), Broken> {
        self.say(connection, answer::refusal(refusal, wants_body, is_kept)).await
    }

    async fn say(&self, connection: &Connection, answer: String) -> Result<(), Broken> {
        let answer = Buffer::from(answer.into_bytes());
        let length = answer.length();
        self.send_block(connection, answer, length).await.map(drop)
    }

    /// Ends connections that have got nowhere for too long: no request was complete, or no block taken
    /// by the peer. One timer for all of them costs the others nothing.
    async fn end_idle_connections(self: Rc<Self>) {
        loop {
            self.initiator.sleep(self.idle_max / 16).await;
            let now = self.initiator.now();
            self.connections.borrow_mut().retain(|connection| connection.strong_count() > 0);
            let connections: Vec<_> =
                self.connections.borrow().iter().filter_map(Weak::upgrade).collect();
            for connection in connections {
                if now.since(connection.since.get()) > self.idle_max {
                    // What waits for the peer ends with that.
                    let both = Direction::Both;
                    let _ = self.initiator.shut_down(&connection.socket, both).await;
                }
            }
        }
    }
}

/// The length of a regular file, which is read as any other from now on. Asked for directly: none of
/// it waits, the file being open, and a ring would wake a thread for it (statx is always a worker's).
fn length_of(file: &File) -> Result<u64, Refusal> {
    let descriptor = file.fd().map_err(|_| Refusal::InternalError)?;
    let status = nix::sys::stat::fstat(descriptor).map_err(|_| Refusal::InternalError)?;
    if status.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Refusal::NotFound);
    }
    // Some file systems refuse to read what may not wait (no FMODE_NOWAIT: EAGAIN, from a ring).
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::empty())).map_err(|_| Refusal::InternalError)?;
    u64::try_from(status.st_size).map_err(|_| Refusal::InternalError)
}

/// What a client is told about a name that can't be opened: no more than it has to know.
fn refusal_of(error: OperationError) -> Refusal {
    match error.errno {
        errno if is_short_of_room(errno) => Refusal::Unavailable,
        Errno::EIO => Refusal::InternalError,
        _ => Refusal::NotFound,
    }
}

const fn is_short_of_room(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)
}

const _: () = assert!(answer::HEAD_BYTES_MAX < BLOCK_BYTES as usize);
