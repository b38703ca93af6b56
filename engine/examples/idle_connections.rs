//! A server that ends connections that are idle for 30 s: nothing came, or nothing could be sent.
//!
//! `idle_connections ADDRESS` sends back what it receives. Each operation on a connection is the first
//! member of a chain whose second is a timeout: the kernel cancels what takes too long. The operation
//! still ends once, with all it owns, and says that it was the timeout that ended it. A test runs
//! this on a simulated processor, where thirty seconds pass in no time.

use std::net::SocketAddr;
use std::time::Duration;

use ucp_engine::operation::{
    Cause, Chain, Operation, OperationError, Receive, Send as SendBytes, Socket,
};
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::{Errno, Error, Proactor};

/// How long a connection may be idle.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
const BUFFER_BYTES: usize = 4096;

/// Why a connection has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// The peer has ended it.
    EndOfStream,
    /// It was idle for [`IDLE_MAX`].
    Idle,
    /// It broke.
    Broken(Errno),
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: idle_connections ADDRESS")?;
    let address: SocketAddr = address.parse()?;
    let proactor = Proactor::start(&Default::default())?;
    let listener = proactor.block_on(proactor.initiator().listen(address))?;
    serve(&proactor, &listener, u32::MAX, |ending| println!("{ending:?}"))?;
    Ok(())
}

/// Serves so many connections that come to a listener, and tells how each has ended.
///
/// # Errors
///
/// If the listener fails.
pub fn serve(
    proactor: &Proactor,
    listener: &Socket,
    connections: u32,
    on_end: impl Fn(Ending) + Clone + 'static,
) -> Result<(), Error> {
    let initiator = proactor.initiator();
    proactor.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let socket = initiator.accept(listener).await;
            let socket = socket.map_err(|error| Error::from_errno("accept", error.errno))?;
            let (initiator, on_end) = (initiator.clone(), on_end.clone());
            tasks.push(initiator.clone().spawn(async move {
                on_end(echo(&initiator, &socket).await);
            })?);
            tasks.retain(|task| !task.is_finished());
        }
        for task in tasks {
            task.await;
        }
        Ok(())
    })
}

async fn echo(initiator: &TaskInitiator, socket: &Socket) -> Ending {
    let mut buffer = vec![0; BUFFER_BYTES].into();
    loop {
        let receive = Receive::new(socket, buffer);
        let mut send = match while_not_idle(initiator, receive.into()).await {
            (Ok(0), _) => return Ending::EndOfStream,
            (Ok(length), Operation::Receive(Receive { socket, buffer, .. })) => {
                SendBytes { socket, buffer, start: 0, length }
            }
            (result, _) => return Ending::of(result),
        };
        while send.length > 0 {
            send = match while_not_idle(initiator, send.into()).await {
                (Ok(sent), Operation::Send(send)) => {
                    SendBytes { start: send.start + sent, length: send.length - sent, ..send }
                }
                (result, _) => return Ending::of(result),
            };
        }
        buffer = send.buffer;
    }
}

/// Performs an operation for [`IDLE_MAX`] at the most. A result that came just in time counts.
async fn while_not_idle(
    initiator: &TaskInitiator,
    operation: Operation,
) -> (Result<u32, OperationError>, Operation) {
    let chain = Chain::with_timeout(operation, IDLE_MAX);
    let first = initiator.perform_chain(chain).await.swap_remove(0);
    let result = first.result;
    (result, first.into_operation().expect("members of a chain end at once"))
}

impl Ending {
    fn of(result: Result<u32, OperationError>) -> Self {
        match result {
            Ok(_) => Self::EndOfStream,
            Err(OperationError { cause: Cause::TimedOut, .. }) => Self::Idle,
            Err(OperationError { errno, .. }) => Self::Broken(errno),
        }
    }
}
