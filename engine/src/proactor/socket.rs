//! What tasks do with sockets.
//!
//! # Losing interest
//!
//! A future that is dropped cancels what it waits for, and nobody knows any more what had come of it:
//! the bytes that [`TaskInitiator::receive`] may have received are gone with its buffer, a connection
//! that [`TaskInitiator::accept`] may have taken is closed, and of [`TaskInitiator::send_all`] nobody
//! knows how much was sent. After that a connection is good for being closed. Who wants to wait for
//! several things, and to lose nothing, takes [`TaskInitiator::accept_many`] and
//! [`TaskInitiator::receive_many`]: what came waits in them, and the futures of their `next` may be
//! dropped at any time.

use super::TaskInitiator;
use super::parts::Parts;
use crate::buffer::{Buffer, Lease, ReceivePool};
use crate::error::Errno;
use crate::limits::{ACCEPTED_MAX, BACKLOG_DEFAULT, PIECES_MAX};
use crate::operation::{
    Accept, AcceptMany, Address, Bind, Connect, Direction, GetSocketOption, Listen, MakeSocket,
    Operation, OperationError, Part, Poll, PollEvents, Receive, ReceiveMany, ReceiveMessage, Send,
    SendMessage, SendZeroCopy, SetSocketOption, Shutdown, Socket, SocketAddress, SocketOption,
    SocketOptionName, Whose,
};

/// Connections as they are made, until the listener fails. Dropping it stops taking them, and closes
/// those that nobody took out.
pub struct Connections(Parts);

/// What a connection brings, piece by piece, until the stream ends. Dropping it stops receiving.
pub struct Pieces(Parts);

impl TaskInitiator {
    /// Makes a socket that listens at an address: one that can be bound again at once after this
    /// program has ended, and that lets [`BACKLOG_DEFAULT`] connections wait.
    ///
    /// # Errors
    ///
    /// As `bind(2)` and `listen(2)` answer: `EADDRINUSE`, `EACCES` for a port below 1024 …
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::net::SocketAddr;
    /// # use ucp_engine::Proactor;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let proactor = Proactor::start(&Default::default())?;
    /// let initiator = proactor.initiator();
    /// let echoed = proactor.block_on(async {
    ///     let anywhere: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    ///     let listener = initiator.listen(anywhere).await?;
    ///     let here = initiator.own_address(&listener).await?;
    ///     let client = initiator.connect(here).await?;
    ///     let server = initiator.accept(&listener).await?;
    ///     initiator.send_all(&client, b"hello".to_vec()).await.0?;
    ///     let (result, buffer) = initiator.receive_exactly(&server, vec![0; 5]).await;
    ///     result.map(|_| buffer.as_slice().to_vec())
    /// })?;
    /// assert_eq!(echoed, b"hello");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn listen(&self, address: impl Into<Address>) -> Result<Socket, OperationError> {
        let address = address.into();
        let socket = self.make_socket(&address).await?;
        self.set_socket_option(&socket, SocketOption::ReuseAddress(true)).await?;
        self.bind(&socket, address).await?;
        self.perform(Listen { socket: socket.clone(), backlog: BACKLOG_DEFAULT }.into()).await.0?;
        Ok(socket)
    }

    /// Makes a socket that is connected to an address.
    ///
    /// # Errors
    ///
    /// As `connect(2)` answers: `ECONNREFUSED`, `ETIMEDOUT` after some two minutes …
    pub async fn connect(&self, address: impl Into<Address>) -> Result<Socket, OperationError> {
        let address = address.into();
        let socket = self.make_socket(&address).await?;
        self.perform(Connect { socket: socket.clone(), address }.into()).await.0?;
        Ok(socket)
    }

    /// Makes a socket for addresses like this one, to be given options before it is bound.
    ///
    /// # Errors
    ///
    /// As `socket(2)` answers: `EAFNOSUPPORT`, `EMFILE` …
    pub async fn make_socket(&self, address: &Address) -> Result<Socket, OperationError> {
        let make = MakeSocket { family: address.family(), socket: None };
        match self.perform(make.into()).await {
            (Ok(_), Operation::MakeSocket(MakeSocket { socket: Some(socket), .. })) => Ok(socket),
            (result, _) => Err(failure(result)),
        }
    }

    /// Gives a socket an address of its own.
    ///
    /// # Errors
    ///
    /// As `bind(2)` answers.
    pub async fn bind(
        &self,
        socket: &Socket,
        address: impl Into<Address>,
    ) -> Result<(), OperationError> {
        let bind = Bind { socket: socket.clone(), address: address.into() };
        self.perform(bind.into()).await.0.map(drop)
    }

    /// Waits for one connection, and takes it.
    ///
    /// # Errors
    ///
    /// As `accept4(2)` answers.
    pub async fn accept(&self, listener: &Socket) -> Result<Socket, OperationError> {
        let accept = Accept { listener: listener.clone(), socket: None };
        match self.perform(accept.into()).await {
            (Ok(_), Operation::Accept(Accept { socket: Some(socket), .. })) => Ok(socket),
            (result, _) => Err(failure(result)),
        }
    }

    /// Takes connections as they are made. At most [`ACCEPTED_MAX`] of them wait to be taken out;
    /// more wait in the kernel.
    #[must_use]
    pub fn accept_many(&self, listener: &Socket) -> Connections {
        let accept = AcceptMany { listener: listener.clone() };
        Connections(Parts::new(self.clone(), accept.into(), ACCEPTED_MAX))
    }

    /// Receives what has come, or waits for something; returns the number of bytes, 0 at the end of
    /// the stream, and the buffer.
    pub async fn receive(
        &self,
        socket: &Socket,
        buffer: impl Into<Buffer>,
    ) -> (Result<u32, OperationError>, Buffer) {
        self.receive_rest(socket, buffer.into(), 0).await
    }

    /// Fills a whole buffer; returns the number of bytes, which is less than asked for only if the
    /// stream has ended before, and the buffer. Dropped before it is done, it loses what it received.
    pub async fn receive_exactly(
        &self,
        socket: &Socket,
        buffer: impl Into<Buffer>,
    ) -> (Result<u32, OperationError>, Buffer) {
        let mut buffer = buffer.into();
        let mut filled = 0;
        while filled < buffer.length() {
            let result;
            (result, buffer) = self.receive_rest(socket, buffer, filled).await;
            match result {
                Ok(0) => break,
                Ok(length) => filled += length,
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(filled), buffer)
    }

    async fn receive_rest(
        &self,
        socket: &Socket,
        buffer: Buffer,
        start: u32,
    ) -> (Result<u32, OperationError>, Buffer) {
        let length = buffer.length() - start;
        let receive = Receive { socket: socket.clone(), buffer, start, length, is_peek: false };
        match self.perform(receive.into()).await {
            (result, Operation::Receive(receive)) => (result, receive.buffer),
            _ => unreachable!("an operation comes back as itself"),
        }
    }

    /// Receives into several buffers, each filled before the next.
    pub async fn receive_message(
        &self,
        socket: &Socket,
        buffers: Vec<Buffer>,
    ) -> (Result<u32, OperationError>, Vec<Buffer>) {
        let receive = ReceiveMessage { socket: socket.clone(), buffers };
        match self.perform(receive.into()).await {
            (result, Operation::ReceiveMessage(receive)) => (result, receive.buffers),
            _ => unreachable!("an operation comes back as itself"),
        }
    }

    /// Receives as things come, into buffers of a pool: idle connections have none, and one whose task
    /// does not keep up has not all of them: from [`PIECES_MAX`] on, the peer has to wait.
    #[must_use]
    pub fn receive_many(&self, socket: &Socket, pool: &ReceivePool) -> Pieces {
        let receive = ReceiveMany { socket: socket.clone(), pool: pool.clone() };
        Pieces(Parts::new(self.clone(), receive.into(), PIECES_MAX))
    }

    /// Sends a whole buffer; returns the buffer. Dropped before it is done, it has sent a part that
    /// nobody knows.
    pub async fn send_all(
        &self,
        socket: &Socket,
        buffer: impl Into<Buffer>,
    ) -> (Result<(), OperationError>, Buffer) {
        let mut buffer = buffer.into();
        let mut sent = 0;
        while sent < buffer.length() {
            let length = buffer.length() - sent;
            let send = Send { socket: socket.clone(), buffer, start: sent, length };
            let (result, operation) = self.perform(send.into()).await;
            let Operation::Send(send) = operation else {
                unreachable!("an operation comes back as itself")
            };
            buffer = send.buffer;
            match result {
                Ok(length) => sent += length,
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Sends a whole buffer, and lets the network device read it where it lies; for large pieces that
    /// leave the machine ([`SendZeroCopy`]). The buffer comes back when the device has done with it.
    pub async fn send_all_zero_copy(
        &self,
        socket: &Socket,
        buffer: impl Into<Buffer>,
    ) -> (Result<(), OperationError>, Buffer) {
        let mut buffer = buffer.into();
        let mut sent = 0;
        while sent < buffer.length() {
            let length = buffer.length() - sent;
            let send = SendZeroCopy { socket: socket.clone(), buffer, start: sent, length };
            let (result, operation) = self.perform(send.into()).await;
            let Operation::SendZeroCopy(send) = operation else {
                unreachable!("an operation comes back as itself")
            };
            buffer = send.buffer;
            match result {
                Ok(length) => sent += length,
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Sends several buffers, whole and one after the other; returns them.
    pub async fn send_all_of(
        &self,
        socket: &Socket,
        mut buffers: Vec<Buffer>,
    ) -> (Result<(), OperationError>, Vec<Buffer>) {
        let length = buffers.iter().map(|it| u64::from(it.length())).sum::<u64>();
        let Ok(length) = u32::try_from(length) else { return (Err(Errno::EINVAL.into()), buffers) };
        let mut sent = 0;
        while sent < length {
            let send = SendMessage { socket: socket.clone(), buffers, start: sent };
            let (result, operation) = self.perform(send.into()).await;
            let Operation::SendMessage(send) = operation else {
                unreachable!("an operation comes back as itself")
            };
            buffers = send.buffers;
            match result {
                Ok(length) => sent += length,
                Err(error) => return (Err(error), buffers),
            }
        }
        (Ok(()), buffers)
    }

    /// Ends the traffic of a connection in one direction or both.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if it is not connected.
    pub async fn shut_down(
        &self,
        socket: &Socket,
        direction: Direction,
    ) -> Result<(), OperationError> {
        self.perform(Shutdown { socket: socket.clone(), direction }.into()).await.0.map(drop)
    }

    /// Waits until a socket is ready, and tells what for.
    ///
    /// # Errors
    ///
    /// As `poll(2)` answers.
    pub async fn poll_socket(
        &self,
        socket: &Socket,
        events: PollEvents,
    ) -> Result<PollEvents, OperationError> {
        self.perform(Poll::socket(socket, events).into()).await.0.map(PollEvents::from_bits)
    }

    /// The address that a socket has.
    ///
    /// # Errors
    ///
    /// As `getsockname(2)` answers.
    pub async fn own_address(&self, socket: &Socket) -> Result<Address, OperationError> {
        self.socket_address(socket, Whose::Own).await
    }

    /// The address at the other end of a connection.
    ///
    /// # Errors
    ///
    /// `ENOTCONN` if there is none.
    pub async fn peer_address(&self, socket: &Socket) -> Result<Address, OperationError> {
        self.socket_address(socket, Whose::Peer).await
    }

    async fn socket_address(
        &self,
        socket: &Socket,
        whose: Whose,
    ) -> Result<Address, OperationError> {
        let ask = SocketAddress { socket: socket.clone(), whose, address: None };
        match self.perform(ask.into()).await {
            (Ok(_), Operation::SocketAddress(SocketAddress { address: Some(it), .. })) => Ok(it),
            (result, _) => Err(failure(result)),
        }
    }

    /// Sets an option of a socket.
    ///
    /// # Errors
    ///
    /// As `setsockopt(2)` answers.
    pub async fn set_socket_option(
        &self,
        socket: &Socket,
        option: SocketOption,
    ) -> Result<(), OperationError> {
        self.perform(SetSocketOption { socket: socket.clone(), option }.into()).await.0.map(drop)
    }

    /// Asks for an option of a socket.
    ///
    /// # Errors
    ///
    /// As `getsockopt(2)` answers.
    pub async fn socket_option(
        &self,
        socket: &Socket,
        option: SocketOptionName,
    ) -> Result<u32, OperationError> {
        self.perform(GetSocketOption { socket: socket.clone(), option }.into()).await.0
    }

    /// Lends blocks of memory for sockets to receive into; see
    /// [`crate::OperationProcessor::receive_pool`].
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there is no room for them.
    pub fn receive_pool(&self, count: u32, block_bytes: u32) -> Result<ReceivePool, Errno> {
        self.core().processor.borrow_mut().receive_pool(count, block_bytes)
    }
}

impl Connections {
    /// Waits for the next connection; none once the listener has failed. The future may be dropped:
    /// no connection is lost by that.
    pub async fn next(&mut self) -> Option<Result<Socket, OperationError>> {
        match self.0.next().await? {
            Ok(Part::Socket(socket)) => Some(Ok(socket)),
            Ok(_) => unreachable!("a listener brings sockets"),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Pieces {
    /// Waits for the next piece; none at the end of the stream, or once it has failed. The future may
    /// be dropped: no byte is lost by that.
    pub async fn next(&mut self) -> Option<Result<Lease, OperationError>> {
        match self.0.next().await? {
            Ok(Part::Bytes(bytes)) => Some(Ok(bytes)),
            Ok(_) => unreachable!("a connection brings bytes"),
            Err(error) => Some(Err(error)),
        }
    }
}

/// Why an operation has brought nothing.
fn failure(result: Result<u32, OperationError>) -> OperationError {
    result.err().unwrap_or(OperationError::failed(Errno::EBADF))
}
