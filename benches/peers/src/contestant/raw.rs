//! The io-uring crate without an engine: what no-ops are compared with. Its flags are the engine's.

#![allow(unsafe_code, reason = "the raw ring is unsafe to push to")]

use std::time::Duration;

use io_uring::{IoUring, opcode};

use crate::workload::{NOP_DEPTH, Result, Stint};

pub(crate) fn nop(duration: Duration) -> Result {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_submit_all();
    builder.setup_single_issuer().setup_defer_taskrun().setup_no_sqarray();
    let mut ring: IoUring = builder.build(NOP_DEPTH)?;
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
