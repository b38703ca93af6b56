//! The io-uring crate without an engine: what no-ops are compared with, and what reads could be. Its
//! flags are the engine's, and so are the registered buffers and file.

#![allow(unsafe_code, reason = "the raw ring is unsafe to push to")]

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};
use nix::libc;

use crate::workload::{BLOCK_BYTES, NOP_DEPTH, Reading, Reads, Result, Stint, block_in_vector};

fn ring(depth: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_submit_all();
    builder.setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
    builder.build(depth)
}

pub(crate) fn read(reading: Reading) -> Result {
    let (mut memory, starts): (Vec<_>, Vec<_>) =
        (0..reading.depth).map(|_| block_in_vector()).unzip();
    let blocks: Vec<_> = memory
        .iter_mut()
        .zip(starts)
        .map(|(memory, start)| libc::iovec {
            iov_base: memory[start..].as_mut_ptr().cast(),
            iov_len: BLOCK_BYTES,
        })
        .collect();
    let mut ring = ring(reading.depth)?;
    // SAFETY: the blocks stay where they are until the ring is closed: `memory` is older.
    unsafe { ring.submitter().register_buffers(&blocks) }?;
    ring.submitter().register_files(&[reading.file.as_raw_fd()])?;
    let mut reads = reading.begin();
    let mut in_flight = 0;
    for (index, block) in (0..).zip(&blocks) {
        in_flight += start_read(&mut ring, &mut reads, index, block)?;
    }
    while in_flight > 0 {
        ring.submit_and_wait(1)?;
        loop {
            let entry = ring.completion().next();
            let Some(entry) = entry else { break };
            in_flight -= 1;
            reads.on_end(usize::try_from(entry.result())?)?;
            let index = u16::try_from(entry.user_data())?;
            in_flight += start_read(&mut ring, &mut reads, index, &blocks[usize::from(index)])?;
        }
    }
    reads.report()
}

/// Starts a read into a block that nothing uses, if there is time; returns how many it started.
fn start_read(
    ring: &mut IoUring,
    reads: &mut Reads,
    index: u16,
    block: &libc::iovec,
) -> Result<usize> {
    let Some(offset_bytes) = reads.next_offset() else { return Ok(0) };
    let bytes = u32::try_from(block.iov_len)?;
    let entry = opcode::ReadFixed::new(Fixed(0), block.iov_base.cast(), bytes, index)
        .offset(offset_bytes)
        .build()
        .user_data(index.into());
    // SAFETY: the block outlives the ring, and nobody looks into it.
    unsafe { ring.submission().push(&entry) }?;
    Ok(1)
}

pub(crate) fn nop(duration: Duration) -> Result {
    let mut ring = ring(NOP_DEPTH)?;
    let mut stint = Stint::new(duration);
    loop {
        let mut started = 0;
        while started < NOP_DEPTH && stint.goes_on() {
            let entry = opcode::Nop::new().build().user_data(started.into());
            // SAFETY: a no-op points to no memory.
            unsafe { ring.submission().push(&entry) }?;
            started += 1;
        }
        if started == 0 {
            return stint.report();
        }
        ring.submit_and_wait(started as usize)?;
        for entry in ring.completion() {
            assert_eq!(entry.result(), 0, "no-ops do not fail");
            stint.on_end();
        }
    }
}
