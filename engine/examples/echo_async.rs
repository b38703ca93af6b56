//! An echo server by async/await: a task for each connection.
//!
//! `echo_async ADDRESS [uring|threads]` sends back what it receives, for ever.

use std::net::SocketAddr;

use ucp_engine::buffer::ReceivePool;
use ucp_engine::operation::{OperationError, Socket};
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::processor::{Configuration, EngineChoice};
use ucp_engine::{Error, Proactor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let (address, engine) = match arguments.as_slice() {
        [address] => (address, EngineChoice::Auto),
        [address, engine] if engine == "uring" => (address, EngineChoice::Uring),
        [address, engine] if engine == "threads" => (address, EngineChoice::Threads),
        _ => return Err("usage: echo_async ADDRESS [uring|threads]".into()),
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
) -> Result<(), Error> {
    let initiator = proactor.initiator();
    proactor.block_on(async {
        let mut incoming = initiator.accept_many(listener);
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let Some(socket) = incoming.next().await else { break };
            let socket = socket.map_err(|error| Error::from_errno("accept", error.errno))?;
            tasks.push(initiator.spawn(echo(initiator.clone(), pool.clone(), socket))?);
            tasks.retain(|task| !task.is_finished());
        }
        for task in tasks {
            // A connection that broke is over, as one that ended is.
            let _ = task.await;
        }
        Ok(())
    })
}

/// Sends a connection's bytes back, each piece from the buffer that it came in.
async fn echo(
    initiator: TaskInitiator,
    pool: ReceivePool,
    socket: Socket,
) -> Result<(), OperationError> {
    let mut pieces = initiator.receive_many(&socket, &pool);
    while let Some(piece) = pieces.next().await {
        initiator.send_all(&socket, piece?).await.0?;
    }
    Ok(())
}
