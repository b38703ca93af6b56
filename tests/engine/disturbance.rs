//! Signals, and answers of the kernel's that mean "not now": work goes on, and nothing is lost.

#![allow(unsafe_code, reason = "installing a signal handler")]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use ucp_engine::buffer::Buffer;
use ucp_engine::operation::*;
use ucp_engine::processor::{KernelProcessor, ThreadProcessor};
use ucp_engine::{Operation, OperationProcessor};

use crate::require_io_uring;
use crate::support::{child, scratch};

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn a_storm_of_signals_loses_nothing() {
    require_io_uring!();
    let handler = SigHandler::Handler(count_signal);
    // Without SA_RESTART: every call that can be interrupted is.
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler only adds to an atomic number.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let is_done = AtomicBool::new(false);
    let victim = pthread_self();
    std::thread::scope(|scope| {
        // Ends the storm even if a copy panics.
        let _calm = Calm(&is_done);
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                pthread_kill(victim, Signal::SIGUSR1).unwrap();
                std::thread::yield_now();
            }
        });
        let processors: [Box<dyn OperationProcessor>; 3] = [
            Box::new(KernelProcessor::new(64, 2).unwrap()),
            Box::new(ThreadProcessor::new(4, 64)),
            Box::new(ThreadProcessor::new(0, 64)),
        ];
        let before = SIGNALS.load(Ordering::Relaxed);
        for mut processor in processors {
            copy(&mut *processor, 256);
        }
        assert!(SIGNALS.load(Ordering::Relaxed) > before, "there were signals");
    });
}

/// Dropping it ends the storm.
struct Calm<'a>(&'a AtomicBool);

impl Drop for Calm<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn refusals_to_submit_or_wait_lose_nothing() {
    if let Some(capacity) = child::setting() {
        let mut kernel = KernelProcessor::new(capacity.parse().unwrap(), 2).unwrap();
        copy(&mut kernel, 256);
        drop(kernel);
        return child::tell("copied");
    }
    require_io_uring!();
    let this = "disturbance::refusals_to_submit_or_wait_lose_nothing";
    for errno in ["EAGAIN", "EBUSY", "EINTR", "ENOMEM"] {
        for when in ["1..20", "1+2", "2+3"] {
            let inject = format!("inject=io_uring_enter:error={errno}:when={when}");
            let strace =
                ["strace", "-f", "-o", "/dev/null", "-e", "trace=io_uring_enter", "-e", &inject];
            assert_eq!(child::run(this, "8", &strace), "copied", "{inject}");
        }
    }
}

/// Copies `count` blocks through a pipeline of reads and writes, through helpers as well, and
/// compares what was copied.
fn copy(processor: &mut dyn OperationProcessor, count: u32) {
    const BLOCK_BYTES: usize = 4096;
    let scratch = scratch::directory();
    let (source_path, target_path) = (scratch.path().join("source"), scratch.path().join("target"));
    let bytes: Vec<u8> =
        (0..count).flat_map(|number| vec![(number % 251) as u8; BLOCK_BYTES]).collect();
    fs::write(&source_path, &bytes).unwrap();
    let source = File::from_fd(fs::File::open(&source_path).unwrap().into());
    let target = File::from_fd(fs::File::create(&target_path).unwrap().into());
    let offset = |number: u32| u64::from(number) * BLOCK_BYTES as u64;

    let mut events = CompletionEventQueue::default();
    let (mut next, mut written) = (0, 0);
    while written < count {
        while next < count && processor.in_flight() < 4 {
            let buffer: Buffer = vec![0; BLOCK_BYTES].into();
            let length = buffer.length();
            let (handle, offset_bytes) = ((&source).into(), offset(next));
            let read = Read { handle, buffer, offset_bytes, start: 0, length };
            processor.accept(read.into(), Token { handler: 0, tag: next }).unwrap();
            next += 1;
        }
        processor.submit_and_wait(1, None, &mut events).unwrap();
        while let Some(event) = events.pop() {
            let (token, result) = (event.token, event.result);
            match event.into_operation().unwrap() {
                Operation::Read(Read { buffer, offset_bytes, length, .. }) => {
                    assert_eq!(result, Ok(length));
                    let handle = (&target).into();
                    let write = Write { handle, buffer, offset_bytes, start: 0, length };
                    processor.accept(write.into(), token).unwrap();
                }
                Operation::Write(Write { length, .. }) => {
                    assert_eq!(result, Ok(length));
                    let file = target.clone();
                    let status = FileSystemStatus { file, magic: 0, available_bytes: 0 };
                    processor.accept(status.into(), token).unwrap();
                }
                Operation::FileSystemStatus(_) => written += 1,
                other => panic!("{other:?} was not started"),
            }
        }
    }
    let mut copied = vec![0; bytes.len()];
    fs::File::open(&target_path).unwrap().read_exact_at(&mut copied, 0).unwrap();
    assert!(copied == bytes, "the copy differs");
}
