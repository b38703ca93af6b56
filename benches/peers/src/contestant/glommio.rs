//! glommio: futures over three rings of one thread. Direct reads go into registered buffers of its own,
//! and what it reads it allocates itself.

use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::{BufferedFile, DmaFile};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};

use crate::workload::{BLOCK_BYTES, MESSAGE_BYTES_MAX, Reading, Result, announce, read_until_over};

/// Room for all that the largest row has in flight. The core is the caller's choice.
fn executor() -> Result<LocalExecutor> {
    Ok(LocalExecutorBuilder::new(Placement::Unbound).ring_depth(2048).make()?)
}

pub(crate) fn read(reading: Reading) -> Result {
    executor()?.run(async {
        if reading.is_direct {
            let file = DmaFile::open(&reading.path).await?;
            let read = async |file: &DmaFile, offset_bytes| {
                let read = file.read_at_aligned(offset_bytes, BLOCK_BYTES).await;
                read.map(|block| block.len())
            };
            read_all(&reading, file, read).await
        } else {
            let file = BufferedFile::open(&reading.path).await?;
            let read = async |file: &BufferedFile, offset_bytes| {
                let read = file.read_at(offset_bytes, BLOCK_BYTES).await;
                read.map(|block| block.len())
            };
            read_all(&reading, file, read).await
        }
    })
}

async fn read_all<F: 'static>(
    reading: &Reading,
    file: F,
    read: impl AsyncFn(&F, u64) -> glommio::Result<usize, ()> + Copy + 'static,
) -> Result {
    let reads = reading.begin_shared();
    let file = Rc::new(file);
    let tasks: Vec<_> = (0..reading.depth)
        .map(|_| {
            let file = Rc::clone(&file);
            let read = async move |(), offset_bytes| {
                (read(&file, offset_bytes).await.map_err(io::Error::from), ())
            };
            glommio::spawn_local(read_until_over(Rc::clone(&reads), (), read))
        })
        .collect();
    for task in tasks {
        task.await?;
    }
    reads.borrow().report()
}

/// It has no listener but of its own making.
pub(crate) fn echo() -> Result {
    executor()?.run(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        announce(listener.local_addr()?);
        loop {
            let stream = listener.accept().await?;
            stream.set_nodelay(true)?;
            glommio::spawn_local(echo_all(stream)).detach();
        }
    })
}

async fn echo_all(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            bytes => stream.write_all(&buffer[..bytes]).await?,
        }
    }
}
