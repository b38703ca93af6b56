//! A proxy that forwards the connections of one port to another, in both directions.
//!
//! `proxy ADDRESS UPSTREAM` forwards what comes to ADDRESS, for ever.
//!
//! Each direction has one block of a pool. Bytes are received into it and sent from it, so that
//! nothing is copied; and while it is being sent nothing is received, so that who sends faster than
//! the other receives has to wait. A direction that ends is ended on the other side, and the other
//! direction goes on (half-close); one that breaks breaks both.

use std::cell::Cell;
use std::net::SocketAddr;

use ucp_engine::buffer::{BufferPool, Lease};
use ucp_engine::operation::{Direction, Operation, OperationError, Send as SendBytes, Socket};
use ucp_engine::proactor::{TaskInitiator, join_all};
use ucp_engine::processor::Configuration;
use ucp_engine::{Error, Proactor};

const BLOCK_BYTES: u32 = 64 << 10;
/// Connections at a time. What comes beyond them is closed: each takes two blocks.
const CONNECTIONS_MAX: u32 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, upstream] = arguments.as_slice() else {
        return Err("usage: proxy ADDRESS UPSTREAM".into());
    };
    let (address, upstream): (SocketAddr, SocketAddr) = (address.parse()?, upstream.parse()?);
    let configuration = Configuration { capacity: CONNECTIONS_MAX * 4, ..Configuration::default() };
    let proactor = Proactor::start(&configuration)?;
    let listener = proactor.block_on(proactor.initiator().listen(address))?;
    let pool = proactor.initiator().buffer_pool(CONNECTIONS_MAX * 2, BLOCK_BYTES)?;
    serve(&proactor, &listener, upstream, &pool, u32::MAX)?;
    Ok(())
}

/// Forwards so many connections that come to a listener, with two blocks of a pool for each.
///
/// # Errors
///
/// If the listener fails. What a connection fails with ends that connection only.
pub fn serve(
    proactor: &Proactor,
    listener: &Socket,
    upstream: SocketAddr,
    pool: &BufferPool,
    connections: u32,
) -> Result<(), Error> {
    let initiator = proactor.initiator();
    proactor.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let client = initiator.accept(listener).await;
            let client = client.map_err(|error| Error::from_errno("accept", error.errno))?;
            // With no blocks left, it is closed.
            let (Some(there), Some(back)) = (pool.lease(), pool.lease()) else { continue };
            let forwarding = forward(initiator.clone(), client, upstream, [there, back]);
            tasks.push(initiator.spawn(forwarding)?);
            tasks.retain(|task| !task.is_finished());
        }
        for task in tasks {
            // A connection that broke is over, as one that ended is.
            let _ = task.await;
        }
        Ok(())
    })
}

/// Forwards one connection until both directions have ended.
async fn forward(
    initiator: TaskInitiator,
    client: Socket,
    upstream: SocketAddr,
    [there, back]: [Lease; 2],
) -> Result<(), OperationError> {
    let server = initiator.connect(upstream).await?;
    let outcome = Cell::new(Ok(()));
    let pump = async |from: &Socket, to: &Socket, block| {
        if let Err(error) = pump(&initiator, from, to, block).await {
            outcome.set(Err(error));
            // So that the other direction, which may wait for a peer that is gone, ends as well.
            for socket in [&client, &server] {
                let _ = initiator.shut_down(socket, Direction::Both).await;
            }
        }
    };
    join_all(vec![Box::pin(pump(&client, &server, there)), Box::pin(pump(&server, &client, back))])
        .await;
    outcome.get()
}

/// Moves bytes in one direction until the stream ends, and ends it on the other side.
async fn pump(
    initiator: &TaskInitiator,
    from: &Socket,
    to: &Socket,
    block: Lease,
) -> Result<(), OperationError> {
    let mut buffer = block.into();
    loop {
        let received;
        (received, buffer) = initiator.receive(from, buffer).await;
        let mut send = SendBytes { socket: to.clone(), buffer, start: 0, length: received? };
        if send.length == 0 {
            return initiator.shut_down(to, Direction::Sending).await;
        }
        while send.length > 0 {
            let (sent, operation) = initiator.perform(send.into()).await;
            let Operation::Send(back) = operation else {
                unreachable!("an operation comes back as itself")
            };
            let sent = sent?;
            send = SendBytes { start: back.start + sent, length: back.length - sent, ..back };
        }
        buffer = send.buffer;
    }
}
