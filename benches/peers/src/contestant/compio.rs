//! compio: completion-based futures on one thread. It registers neither buffers nor, in its files, files.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use compio::BufResult;
use compio::buf::{IoBuf, Slice};
use compio::driver::ProactorBuilder;
use compio::fs::OpenOptions;
use compio::io::{AsyncRead, AsyncReadAt, AsyncWriteExt};
use compio::net::TcpStream;
use compio::runtime::Runtime;

use crate::workload::{
    BLOCK_BYTES, MESSAGE_BYTES_MAX, Reading, Result, block_in_vector, read_until_over,
};

/// With what its documentation calls an optimization for a single thread.
fn runtime() -> io::Result<Runtime> {
    let mut proactor = ProactorBuilder::new();
    proactor.single_issuer(true).defer_taskrun(true);
    Runtime::builder().with_proactor(proactor).build()
}

pub(crate) fn read(reading: Reading) -> Result {
    runtime()?.block_on(async {
        let reads = reading.begin_shared();
        let flags = reading.flags();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(&reading.path).await?;
        let file = Rc::new(file);
        let tasks: Vec<_> = (0..reading.depth)
            .map(|_| {
                let (memory, start) = block_in_vector();
                let file = Rc::clone(&file);
                let read = async move |block: Slice<Vec<u8>>, offset_bytes| {
                    let BufResult(result, block) = file.read_at(block, offset_bytes).await;
                    (result, block)
                };
                let block = memory.slice(start..start + BLOCK_BYTES);
                compio::runtime::spawn(read_until_over(Rc::clone(&reads), block, read))
            })
            .collect();
        for task in tasks {
            task.await.map_err(|_| "a task panicked")??;
        }
        reads.borrow().report()
    })
}

pub(crate) fn echo(listener: TcpListener) -> Result {
    runtime()?.block_on(async {
        let listener = compio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            compio::runtime::spawn(echo_all(stream)).detach();
        }
    })
}

async fn echo_all(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(MESSAGE_BYTES_MAX);
    loop {
        buffer.clear();
        let BufResult(result, received) = stream.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        let BufResult(result, sent) = stream.write_all(received).await;
        result?;
        buffer = sent;
    }
}
