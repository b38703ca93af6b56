//! monoio: completion-based futures on one thread. It registers neither buffers nor files.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;

use monoio::buf::{IoBufMut, SliceMut};
use monoio::fs::File;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

use crate::workload::{
    BLOCK_BYTES, MESSAGE_BYTES_MAX, Reading, Result, block_in_vector, read_until_over,
};

fn runtime() -> io::Result<Runtime<IoUringDriver>> {
    let mut ring = io_uring_06::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    RuntimeBuilder::<IoUringDriver>::new().uring_builder(ring).with_entries(2048).build()
}

pub(crate) fn read(reading: Reading) -> Result {
    runtime()?.block_on(async {
        let reads = reading.begin_shared();
        let file = Rc::new(File::from_std(reading.file)?);
        let tasks: Vec<_> = (0..reading.depth)
            .map(|_| {
                let (memory, start) = block_in_vector();
                let file = Rc::clone(&file);
                let read = async move |block: SliceMut<Vec<u8>>, offset_bytes| {
                    file.read_at(block, offset_bytes).await
                };
                let block = memory.slice_mut(start..start + BLOCK_BYTES);
                monoio::spawn(read_until_over(Rc::clone(&reads), block, read))
            })
            .collect();
        for task in tasks {
            task.await?;
        }
        reads.borrow().report()
    })
}

pub(crate) fn echo(listener: TcpListener) -> Result {
    runtime()?.block_on(async {
        let listener = monoio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(echo_all(stream));
        }
    })
}

async fn echo_all(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(MESSAGE_BYTES_MAX);
    loop {
        let (result, received) = stream.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        let (result, sent) = stream.write_all(received).await;
        result?;
        buffer = sent;
    }
}
