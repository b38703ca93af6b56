//! This engine in its three ways: accept and wait, completion handlers, and futures. All read into
//! registered buffers from a registered file.

pub(crate) mod echo;
pub(crate) mod future;
pub(crate) mod handler;
pub(crate) mod wait;

use ucp_engine::processor::{Configuration, EngineChoice};
use ucp_engine::{OperationError, Proactor};

use crate::workload::{BLOCK_BYTES, Result};

const READ_BYTES: u32 = BLOCK_BYTES as u32;

/// A proactor over a ring with room for `capacity` operations.
fn proactor(capacity: u32) -> Result<Proactor> {
    let engine = EngineChoice::Uring;
    let configuration = Configuration { engine, capacity, ..Configuration::default() };
    Ok(Proactor::start(&configuration)?)
}

fn failure(error: OperationError) -> std::io::Error {
    error.errno.into()
}
