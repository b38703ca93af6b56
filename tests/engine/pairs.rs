//! Pairs of a read and the write of the same bytes that one helper performs.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use ucp_engine::OperationProcessor;
use ucp_engine::operation::*;
use ucp_engine::processor::{KernelProcessor, ThreadProcessor};

use crate::support::{machine, skip};

/// Processors with one helper.
fn processors() -> Vec<Box<dyn OperationProcessor>> {
    let mut processors: Vec<Box<dyn OperationProcessor>> =
        vec![Box::new(ThreadProcessor::new(1, 16))];
    match KernelProcessor::new(16, 1) {
        Ok(ring) => processors.push(Box::new(ring)),
        Err(errno) => skip::skip(&format!("there is no io_uring: {errno}")),
    }
    processors
}

/// A pair that reads from `source`, and the file that it writes to.
fn pair(source: impl Into<OwnedFd>) -> (Chain, tempfile::NamedTempFile) {
    let target = tempfile::NamedTempFile::new().unwrap();
    let file = File::from_fd(target.reopen().unwrap().into());
    let source = File::from_fd(source.into());
    let (buffer, length) = (vec![b'.'; 5].into(), 5);
    let read =
        Read { handle: source.into(), buffer, offset_bytes: CURRENT_POSITION, start: 0, length };
    (Chain::read_then_write(read, file.into(), 0), target)
}

fn wait(processor: &mut dyn OperationProcessor, count: usize) -> Vec<CompletionEvent> {
    let mut queue = CompletionEventQueue::default();
    while queue.len() < count {
        processor.submit_and_wait(1, None, &mut queue).unwrap();
    }
    std::iter::from_fn(|| queue.pop()).collect()
}

#[test]
fn a_pair_that_no_helper_has_begun_is_given_up_whole() {
    let _hold = machine::shared();
    for mut processor in processors() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (blocking, blocked) = pair(reader);
        processor.accept_chain_beside(blocking, Token { handler: 0, tag: 1 }).unwrap();
        let mut idle = tempfile::tempfile().unwrap();
        idle.write_all(b"never").unwrap();
        let (queued, untouched) = pair(idle);
        let id = processor.accept_chain_beside(queued, Token { handler: 0, tag: 2 }).unwrap();
        processor.cancel(id);
        let given_up = wait(&mut *processor, 2);
        for event in given_up {
            assert_eq!(event.token.tag, 2);
            let error = event.result.unwrap_err();
            assert!(matches!(error.cause, Cause::Cancelled), "{error:?}");
            if let Some(Operation::Read(read)) = event.into_operation() {
                assert_eq!(read.buffer.as_slice(), b".....", "the buffer comes with the read");
            }
        }
        writer.write_all(b"hello").unwrap();
        let moved = wait(&mut *processor, 2);
        assert!(moved.iter().all(|event| event.result == Ok(5)), "{moved:?}");
        assert_eq!(std::fs::read(blocked.path()).unwrap(), b"hello");
        assert_eq!(std::fs::read(untouched.path()).unwrap(), b"");
    }
}

#[test]
fn dropping_a_processor_waits_for_a_pair_that_was_begun() {
    let _hold = machine::shared();
    for mut processor in processors() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let (chain, target) = pair(reader);
        processor.accept_chain_beside(chain, Token::default()).unwrap();
        std::thread::scope(|scope| {
            // The pair may have been given up before it was begun: then nobody reads this.
            scope.spawn(move || drop(writer.write_all(b"hello")));
            drop(processor);
        });
        let written = std::fs::read(target.path()).unwrap();
        assert!(written == b"hello" || written.is_empty(), "{written:?}");
    }
}
