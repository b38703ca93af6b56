//! Many files read concurrently, and their contents written in the order of the arguments.
//!
//! `concatenate FILE…` is `cat FILE…` that reads up to 16 files at a time. A file is begun only when there
//! is room in the window that moves along the arguments: so neither the open files nor what waits to
//! be written are more than 16, however slow the first of them is.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ucp_engine::operation::{Open, Place};
use ucp_engine::proactor::TaskInitiator;
use ucp_engine::{Error, Proactor};

/// Files that are read, or wait to be written, at a time.
const WINDOW: usize = 16;
const BLOCK_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let paths: Vec<OsString> = std::env::args_os().skip(1).collect();
    let proactor = Proactor::start(&Default::default())?;
    concatenate(&proactor, paths.into_iter().map(PathBuf::from), |content| {
        io::stdout().write_all(&content)
    })?;
    Ok(())
}

/// Reads files, and gives the content of each to `write`, in their order.
///
/// # Errors
///
/// The first file, in their order, that can't be read, or what `write` fails with. Nothing behind it
/// is written.
pub fn concatenate(
    proactor: &Proactor,
    paths: impl IntoIterator<Item = PathBuf>,
    mut write: impl FnMut(Vec<u8>) -> io::Result<()>,
) -> Result<(), Box<dyn std::error::Error>> {
    let initiator = proactor.initiator();
    proactor.block_on(async {
        let mut paths = paths.into_iter();
        let mut window = VecDeque::new();
        loop {
            while window.len() < WINDOW {
                let Some(path) = paths.next() else { break };
                let initiator = initiator.clone();
                let read = async move { read_whole(&initiator, &path).await };
                window.push_back(proactor.initiator().spawn(read)?);
            }
            let Some(first) = window.pop_front() else { return Ok(()) };
            write(first.await?)?;
        }
    })
}

/// Reads a file from its start to its end.
async fn read_whole(initiator: &TaskInitiator, path: &Path) -> Result<Vec<u8>, Error> {
    let place = Place::path(path).map_err(|errno| failed("open", path, errno))?;
    let file = initiator.open(Open::read(place)).await;
    let file = file.map_err(|error| failed("open", path, error.errno))?;
    let mut content = Vec::new();
    let mut buffer = vec![0; BLOCK_BYTES].into();
    loop {
        let offset_bytes = content.len() as u64;
        let read;
        (read, buffer) = initiator.read_at(&file, buffer, offset_bytes).await;
        match read.map_err(|error| failed("read", path, error.errno).at(offset_bytes))? {
            0 => return Ok(content),
            length => content.extend_from_slice(&buffer.as_slice()[..length as usize]),
        }
    }
}

fn failed(what: &'static str, path: &Path, errno: ucp_engine::Errno) -> Error {
    Error::from_errno(what, errno).on(path)
}
