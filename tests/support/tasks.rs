//! What the threads of this process are doing.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use ucp_engine::operation::File;

/// Waits until so many threads of this process are in this system call on the file.
pub(crate) fn wait_until_in_call(call: i64, file: &File, count: usize) {
    let call = format!("{call} {:#x} ", file.fd().unwrap().as_raw_fd());
    let deadline = Instant::now() + Duration::from_secs(30);
    while Instant::now() < deadline {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let calls =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("syscall")).ok());
        if calls.filter(|current| current.starts_with(&call)).count() >= count {
            return;
        }
        std::thread::yield_now();
    }
    panic!("no {count} threads are in system call {call}");
}
