//! The engine by futures: a task for each operation in flight.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ucp_engine::buffer::Buffer;
use ucp_engine::operation::{File, Operation};

use super::{READ_BYTES, failure, proactor};
use crate::workload::{NOP_DEPTH, Reading, Result, Stint, read_until_over};

pub(crate) fn read(reading: Reading) -> Result {
    let proactor = proactor(reading.depth)?;
    let initiator = proactor.initiator();
    let pool = initiator.buffer_pool(reading.depth, READ_BYTES)?;
    let reads = reading.begin_shared();
    let file = initiator.register_file(Some(&File::from_fd(reading.file.into())))?;
    let mut tasks = Vec::new();
    while let Some(lease) = pool.lease() {
        let (initiator_, file) = (initiator.clone(), file.clone());
        let read = async move |buffer: Buffer, offset_bytes| {
            let (result, buffer) = initiator_.read_at(&file, buffer, offset_bytes).await;
            (result.map(|bytes| bytes as usize).map_err(failure), buffer)
        };
        tasks.push(initiator.spawn(read_until_over(Rc::clone(&reads), lease.into(), read))?);
    }
    proactor.block_on(async {
        for task in tasks {
            task.await?;
        }
        reads.borrow().report()
    })
}

pub(crate) fn nop(duration: Duration) -> Result {
    let proactor = proactor(NOP_DEPTH)?;
    let initiator = proactor.initiator();
    let stint = Rc::new(RefCell::new(Stint::new(duration)));
    let mut tasks = Vec::new();
    for _ in 0..NOP_DEPTH {
        let (initiator_, stint) = (initiator.clone(), Rc::clone(&stint));
        tasks.push(initiator.spawn(async move {
            while stint.borrow_mut().goes_on() {
                initiator_.perform(Operation::Nop).await.0.map_err(failure)?;
                stint.borrow_mut().on_end();
            }
            Ok::<_, std::io::Error>(())
        })?);
    }
    proactor.block_on(async {
        for task in tasks {
            task.await?;
        }
        stint.borrow().report()
    })
}
