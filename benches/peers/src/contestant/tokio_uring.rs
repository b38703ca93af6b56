//! tokio-uring: completion-based futures on tokio's thread. Files are read into registered buffers.

use std::cell::RefCell;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::time::Duration;

use tokio_uring::buf::fixed::{FixedBuf, FixedBufRegistry};
use tokio_uring::buf::{BoundedBuf, Slice};
use tokio_uring::fs::File;
use tokio_uring::net::TcpStream;

use crate::workload::{
    BLOCK_BYTES, MESSAGE_BYTES_MAX, NOP_DEPTH, Reading, Result, Stint, block_in_vector,
    read_until_over,
};

/// Room for all that the largest row has in flight, with completions for all of it.
fn builder() -> tokio_uring::Builder {
    let mut builder = tokio_uring::builder();
    let ring = tokio_uring::uring_builder();
    builder.entries(2048).uring_builder(&ring);
    builder
}

pub(crate) fn read(reading: Reading) -> Result {
    builder().start(async {
        let reads = reading.begin_shared();
        let file = Rc::new(File::from_std(reading.file));
        let (memory, starts): (Vec<_>, Vec<_>) =
            (0..reading.depth).map(|_| block_in_vector()).unzip();
        let registry = FixedBufRegistry::new(memory);
        registry.register()?;
        let mut tasks = Vec::new();
        for (index, start) in starts.into_iter().enumerate() {
            let buffer = registry.check_out(index).ok_or("not all buffers were registered")?;
            let file = Rc::clone(&file);
            let read = async move |block: Slice<FixedBuf>, offset_bytes| {
                file.read_fixed_at(block, offset_bytes).await
            };
            let block = buffer.slice(start..start + BLOCK_BYTES);
            tasks.push(tokio_uring::spawn(read_until_over(Rc::clone(&reads), block, read)));
        }
        for task in tasks {
            task.await??;
        }
        reads.borrow().report()
    })
}

pub(crate) fn nop(duration: Duration) -> Result {
    builder().start(async {
        let stint = Rc::new(RefCell::new(Stint::new(duration)));
        let tasks: Vec<_> = (0..NOP_DEPTH)
            .map(|_| {
                let stint = Rc::clone(&stint);
                tokio_uring::spawn(async move {
                    while stint.borrow_mut().goes_on() {
                        tokio_uring::no_op().await?;
                        stint.borrow_mut().on_end();
                    }
                    Ok::<_, io::Error>(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        stint.borrow().report()
    })
}

pub(crate) fn echo(listener: TcpListener) -> Result {
    builder().start(async {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio_uring::spawn(echo_all(stream));
        }
    })
}

async fn echo_all(stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(MESSAGE_BYTES_MAX);
    loop {
        let (result, received) = stream.read(buffer).await;
        let bytes = result?;
        if bytes == 0 {
            return Ok(());
        }
        let (result, sent) = stream.write_all(received.slice(..bytes)).await;
        result?;
        buffer = sent.into_inner();
    }
}
