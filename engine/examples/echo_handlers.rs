//! An echo server by completion handlers: one handler, many connections, one loop.
//!
//! `echo_handlers ADDRESS [uring|threads]` sends back what it receives, for ever. One operation takes
//! all connections, one for each connection receives all that it brings, and what has come is sent
//! back from the buffer that it came in.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ucp_engine::buffer::{Lease, ReceivePool};
use ucp_engine::operation::{
    AcceptMany, Cause, End, OperationError, OperationId, Part, ReceiveMany, Send, Socket,
};
use ucp_engine::processor::{Configuration, EngineChoice};
use ucp_engine::{
    CompletionEvent, CompletionHandler, Error, ErrorKind, Initiator, Operation, Proactor,
};

type Result<T> = std::result::Result<T, Error>;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (address, engine) = match arguments.as_slice() {
        [address] => (address, EngineChoice::Auto),
        [address, engine] if engine == "uring" => (address, EngineChoice::Uring),
        [address, engine] if engine == "threads" => (address, EngineChoice::Threads),
        _ => return Err("usage: echo_handlers ADDRESS [uring|threads]".into()),
    };
    let address: SocketAddr = address.parse()?;
    let configuration = Configuration { engine, capacity: 4096, ..Configuration::default() };
    let proactor = Proactor::start(&configuration)?;
    let listener = proactor.block_on(proactor.initiator().listen(address))?;
    let pool = proactor.initiator().receive_pool(1024, 16 << 10)?;
    serve(&proactor, &listener, &pool, u32::MAX)?;
    Ok(())
}

/// Serves so many connections that come to a listener, with the buffers of a pool.
///
/// # Errors
///
/// If the listener fails. What a connection fails with ends that connection only.
pub fn serve(
    proactor: &Proactor,
    listener: &Socket,
    pool: &ReceivePool,
    connections: u32,
) -> Result<()> {
    let echo = Echo {
        listener: listener.clone(),
        accepting: None,
        pool: pool.clone(),
        connections: Vec::new(),
        free: Vec::new(),
        left: connections,
    };
    proactor.run(echo).1
}

struct Echo {
    listener: Socket,
    accepting: Option<OperationId>,
    pool: ReceivePool,
    /// By number; none where nobody is connected.
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    /// How many connections are still to come.
    left: u32,
}

struct Connection {
    socket: Socket,
    /// None while nothing is received.
    receiving: Option<OperationId>,
    /// What waits behind the piece that is being sent.
    queue: VecDeque<Lease>,
    is_sending: bool,
    /// There is more to be received: it only paused.
    has_more: bool,
}

/// So many pieces may wait for a peer that does not read: then its own have to wait, and the buffers are
/// there for others.
const QUEUE_MAX: usize = 8;

/// Operations are told apart by their tags: a connection's number, and what it does.
const LISTENER: u32 = u32::MAX;
const RECEIVE: u32 = 0;
const SEND: u32 = 1;

impl CompletionHandler for Echo {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<()> {
        let accept = AcceptMany { listener: self.listener.clone() };
        self.accepting = Some(start(initiator, accept, LISTENER)?);
        Ok(())
    }

    fn on_complete(&mut self, event: CompletionEvent, initiator: &mut Initiator<'_>) -> Result<()> {
        let number = event.token.tag / 2;
        match event.end {
            End::More(Part::Socket(socket)) => self.on_accept_complete(socket, initiator),
            End::Last(Operation::AcceptMany(_)) if self.left == 0 => Ok(()),
            End::Last(Operation::AcceptMany(_)) => match event.result {
                Err(error) => Err(Error::from_errno("accept", error.errno)),
                Ok(_) => Ok(()),
            },
            End::More(Part::Bytes(bytes)) => self.on_receive_complete(number, bytes, initiator),
            End::Last(Operation::Send(send)) => match event.result {
                Ok(length) if length < send.length => {
                    let (start, length) = (send.start + length, send.length - length);
                    self.send(number, Send { start, length, ..send }, initiator)
                }
                result => self.on_send_complete(number, result.is_ok(), initiator),
            },
            _ => self.on_receive_end(number, event.result, initiator),
        }
    }

    fn is_finished(&self) -> bool {
        self.left == 0 && self.connections.iter().all(Option::is_none)
    }
}

impl Echo {
    fn on_accept_complete(&mut self, socket: Socket, initiator: &mut Initiator<'_>) -> Result<()> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        if let (0, Some(accepting)) = (self.left, self.accepting) {
            initiator.cancel(accepting);
        }
        let number = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            u32::try_from(self.connections.len() - 1).expect("slots are fewer")
        });
        self.connections[number as usize] = Some(Connection {
            socket,
            receiving: None,
            queue: VecDeque::new(),
            is_sending: false,
            has_more: true,
        });
        self.receive(number, initiator)
    }

    fn receive(&mut self, number: u32, initiator: &mut Initiator<'_>) -> Result<()> {
        let pool = self.pool.clone();
        let connection = self.connection(number);
        let receive = ReceiveMany { socket: connection.socket.clone(), pool };
        connection.receiving = Some(start(initiator, receive, number * 2 + RECEIVE)?);
        Ok(())
    }

    fn on_receive_complete(
        &mut self,
        number: u32,
        bytes: Lease,
        initiator: &mut Initiator<'_>,
    ) -> Result<()> {
        let connection = self.connection(number);
        if connection.is_sending {
            connection.queue.push_back(bytes);
            if let (QUEUE_MAX, Some(receiving)) = (connection.queue.len(), connection.receiving) {
                initiator.cancel(receiving);
            }
            return Ok(());
        }
        let send = Send::new(&connection.socket, bytes);
        self.send(number, send, initiator)
    }

    fn on_send_complete(
        &mut self,
        number: u32,
        is_sent: bool,
        initiator: &mut Initiator<'_>,
    ) -> Result<()> {
        let connection = self.connection(number);
        connection.is_sending = false;
        if !is_sent {
            // The peer has gone. Nobody reads what it would be sent.
            connection.queue.clear();
            connection.has_more = false;
            connection.receiving.into_iter().for_each(|receiving| initiator.cancel(receiving));
        }
        match connection.queue.pop_front() {
            Some(bytes) => {
                let send = Send::new(&connection.socket, bytes);
                self.send(number, send, initiator)
            }
            None => self.go_on_or_close(number, initiator),
        }
    }

    fn on_receive_end(
        &mut self,
        number: u32,
        result: std::result::Result<u32, OperationError>,
        initiator: &mut Initiator<'_>,
    ) -> Result<()> {
        let connection = self.connection(number);
        connection.receiving = None;
        let has_paused = result.is_err_and(|error| error.cause == Cause::Cancelled);
        connection.has_more &= has_paused;
        self.go_on_or_close(number, initiator)
    }

    /// Goes on receiving once everything is sent; or closes the connection by forgetting it.
    fn go_on_or_close(&mut self, number: u32, initiator: &mut Initiator<'_>) -> Result<()> {
        let connection = self.connection(number);
        if connection.is_sending || connection.receiving.is_some() {
            return Ok(());
        }
        if connection.has_more {
            return self.receive(number, initiator);
        }
        self.connections[number as usize] = None;
        self.free.push(number);
        Ok(())
    }

    fn send(&mut self, number: u32, send: Send, initiator: &mut Initiator<'_>) -> Result<()> {
        self.connection(number).is_sending = true;
        start(initiator, send, number * 2 + SEND)?;
        Ok(())
    }

    fn connection(&mut self, number: u32) -> &mut Connection {
        let connection = self.connections[number as usize].as_mut();
        connection.expect("a connection stays until its operations have ended")
    }
}

fn start(
    initiator: &mut Initiator<'_>,
    operation: impl Into<Operation>,
    tag: u32,
) -> Result<OperationId> {
    let started = initiator.start(operation.into(), tag);
    started.map_err(|_| Error::new(ErrorKind::Io, "start operation", "too many are in flight"))
}
