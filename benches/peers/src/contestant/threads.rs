//! Plain threads that make system calls: one for each read in flight, and for each connection.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

use crate::workload::{
    BLOCK_BYTES, MESSAGE_BYTES_MAX, Reading, Reads, Result, block_in_vector, report,
};

/// What a thread that only copies needs, and a thousand of them can have.
const STACK_BYTES: usize = 64 << 10;

pub(crate) fn read(reading: Reading) -> Result {
    if reading.depth == 1 {
        return read_blocks(&reading, reading.begin())?.report();
    }
    let start = Instant::now();
    let ended = thread::scope(|scope| {
        let thread = |seed: u32| {
            let reading = &reading;
            scope.spawn(move || read_blocks(reading, reading.begin_with(seed.into())))
        };
        let threads: Vec<_> = (1..=reading.depth).map(thread).collect();
        let mut ended = 0;
        for thread in threads {
            ended += thread.join().expect("a reader does not panic")?.ended();
        }
        Ok::<_, io::Error>(ended)
    })?;
    report(ended, start.elapsed())
}

fn read_blocks(reading: &Reading, mut reads: Reads) -> io::Result<Reads> {
    let (mut memory, start) = block_in_vector();
    let block = &mut memory[start..start + BLOCK_BYTES];
    while let Some(offset_bytes) = reads.next_offset() {
        let bytes = reading.file.read_at(block, offset_bytes)?;
        reads.on_end(bytes)?;
    }
    Ok(reads)
}

pub(crate) fn echo(listener: TcpListener) -> Result {
    for stream in listener.incoming() {
        let stream = stream?;
        thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // A connection that broke is over, as one that ended is.
            let _ = echo_all(stream);
        })?;
    }
    Ok(())
}

fn echo_all(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            bytes => stream.write_all(&buffer[..bytes])?,
        }
    }
}
