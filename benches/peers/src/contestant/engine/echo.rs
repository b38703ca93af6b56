//! The engine's echo servers are its examples.

use std::net::{Ipv4Addr, SocketAddr};

use ucp_engine::Proactor;
use ucp_engine::buffer::ReceivePool;
use ucp_engine::operation::{Address, Socket, SocketOption};

use super::proactor;
use crate::workload::{MESSAGE_BYTES_MAX, Result, announce};

#[path = "../../../../../engine/examples/echo_async.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program of its own")]
mod echo_async;
#[path = "../../../../../engine/examples/echo_handlers.rs"]
#[expect(dead_code, unreachable_pub, reason = "a program of its own")]
mod echo_handlers;

/// A reception and a sending for each of 1,024 connections, and room to spare.
const CAPACITY: u32 = 4096;
/// Buffers for what has been received: one that is being sent back and one that has come meanwhile, for each.
const BUFFERS: u32 = 2048;

pub(crate) fn by_handler() -> Result {
    let (proactor, listener, pool) = start()?;
    Ok(echo_handlers::serve(&proactor, &listener, &pool, u32::MAX)?)
}

pub(crate) fn by_future() -> Result {
    let (proactor, listener, pool) = start()?;
    Ok(echo_async::serve(&proactor, &listener, &pool, u32::MAX)?)
}

fn start() -> Result<(Proactor, Socket, ReceivePool)> {
    let proactor = proactor(CAPACITY)?;
    let initiator = proactor.initiator();
    let pool = initiator.receive_pool(BUFFERS, MESSAGE_BYTES_MAX as u32)?;
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (listener, address) = proactor.block_on(async {
        let listener = initiator.listen(anywhere).await?;
        // Those that it accepts inherit it.
        initiator.set_socket_option(&listener, SocketOption::NoDelay(true)).await?;
        let address = initiator.own_address(&listener).await?;
        Ok::<_, ucp_engine::OperationError>((listener, address))
    })?;
    let Address::Internet(address) = address else { return Err("no internet address".into()) };
    announce(address);
    Ok((proactor, listener, pool))
}
