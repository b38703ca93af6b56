//! An echo server by completion handlers: one handler, many connections, one loop.
//!
//! `echo_handlers ADDRESS [uring|threads]` sends back what it receives, for ever. One operation takes
//! all connections, one for each connection receives all that it brings, and what has come is sent
//! back from the buffer that it came in.

use std::collections::VecDeque;
use std::net::SocketAddr;

use ucp_engine::buffer::{Lease, ReceivePool};
use ucp_engine::operation::{AcceptMany, End, OperationId, Part, ReceiveMany, Send, Socket};
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
    receiving: OperationId,
    /// What waits behind the piece that is being sent.
    queue: VecDeque<Lease>,
    is_receiving: bool,
    is_sending: bool,
}

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
        let (number, what) = (event.token.tag / 2, event.token.tag % 2);
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
            _ => {
                assert_eq!(what, RECEIVE, "sends are dealt with");
                self.on_stream_end(number);
                Ok(())
            }
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
        let receive = ReceiveMany { socket: socket.clone(), pool: self.pool.clone() };
        let receiving = start(initiator, receive, number * 2 + RECEIVE)?;
        self.connections[number as usize] = Some(Connection {
            socket,
            receiving,
            queue: VecDeque::new(),
            is_receiving: true,
            is_sending: false,
        });
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
            initiator.cancel(connection.receiving);
        }
        match connection.queue.pop_front() {
            Some(bytes) => {
                let send = Send::new(&connection.socket, bytes);
                self.send(number, send, initiator)
            }
            None => {
                self.close_if_done(number);
                Ok(())
            }
        }
    }

    fn on_stream_end(&mut self, number: u32) {
        self.connection(number).is_receiving = false;
        self.close_if_done(number);
    }

    fn send(&mut self, number: u32, send: Send, initiator: &mut Initiator<'_>) -> Result<()> {
        self.connection(number).is_sending = true;
        start(initiator, send, number * 2 + SEND)?;
        Ok(())
    }

    fn close_if_done(&mut self, number: u32) {
        let connection = self.connection(number);
        if !connection.is_receiving && !connection.is_sending {
            self.connections[number as usize] = None;
            self.free.push(number);
        }
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
