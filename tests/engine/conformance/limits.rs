//! Time, cancels, registered files and buffers, and what is full.

use std::time::Duration;

use ucp_engine::Operation;
use ucp_engine::operation::*;
use ucp_engine::processor::Full;

use super::world::{Ended, World, read, text, told, write};
use super::{Case, conform};

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn time_and_cancels() {
    let cases: [Case; 11] = [
        ("a no-op does nothing", |it| it.tell(Operation::Nop), "0"),
        (
            "a timeout runs out, and not too early",
            |it| {
                let before = it.processor.now();
                let ended = it.tell(Timeout { duration: SOON });
                told([ended, (it.processor.now().since(before) >= SOON).to_string()])
            },
            "0, true",
        ),
        ("a timeout of no time runs out", |it| it.tell(Timeout { duration: Duration::ZERO }), "0"),
        (
            "timeouts run out in the order of their times",
            |it| {
                let tags = [3, 1, 2];
                for tag in tags {
                    let duration = SOON * tag;
                    let token = Token { handler: 0, tag };
                    it.processor.accept(Timeout { duration }.into(), token).unwrap();
                }
                told(it.wait(3).into_iter().map(|event| event.token.tag))
            },
            "1, 2, 3",
        ),
        (
            "a timeout is cancelled",
            |it| {
                let id = it.processor.accept(never(), Token::default()).unwrap();
                it.processor.cancel(id);
                told(it.wait(1).into_iter().map(|event| Ended::from(event).told()))
            },
            "ECANCELED Cancelled",
        ),
        (
            "a timeout is cancelled once it was submitted",
            |it| {
                let id = it.processor.accept(never(), Token::default()).unwrap();
                turn(it);
                it.processor.cancel(id);
                told(it.wait(1).into_iter().map(|event| Ended::from(event).told()))
            },
            "ECANCELED Cancelled",
        ),
        (
            "cancelling twice is once",
            |it| {
                let id = it.processor.accept(never(), Token::default()).unwrap();
                it.processor.cancel(id);
                it.processor.cancel(id);
                told(it.wait(1).into_iter().map(|event| Ended::from(event).told()))
            },
            "ECANCELED Cancelled",
        ),
        (
            "cancelling the first of a chain ends all of it",
            |it| {
                let slow = Timeout { duration: NEVER };
                let chain = Chain::with_timeout(slow.into(), NEVER);
                let id = it.processor.accept_chain(chain, Token::default()).unwrap();
                it.processor.cancel(id);
                told(it.wait(2).into_iter().map(|event| Ended::from(event).told()))
            },
            "ECANCELED Cancelled, 0",
        ),
        (
            "cancelling what has ended does nothing to its successor",
            |it| {
                let stale = it.processor.accept(Operation::Nop, Token::default()).unwrap();
                it.wait(1);
                let file = it.file("a", b"hello");
                it.processor.accept(read(&file, vec![0; 5], 0).into(), Token::default()).unwrap();
                it.processor.cancel(stale);
                told(it.wait(1).into_iter().map(|event| Ended::from(event).told()))
            },
            "5",
        ),
        (
            "a deadline ends a wait",
            |it| {
                let id = it.processor.accept(never(), Token::default()).unwrap();
                let deadline = it.processor.now() + SOON;
                let mut events = CompletionEventQueue::default();
                while it.processor.now() < deadline {
                    it.processor.submit_and_wait(1, Some(deadline), &mut events).unwrap();
                }
                it.processor.cancel(id);
                told([events.len(), it.wait(1).len()])
            },
            "0, 1",
        ),
        (
            "a wait with nothing in flight ends",
            |it| {
                let mut events = CompletionEventQueue::default();
                it.processor.submit_and_wait(1, None, &mut events).unwrap();
                events.len().to_string()
            },
            "0",
        ),
    ];
    conform(&cases);
}

fn never() -> Operation {
    Timeout { duration: NEVER }.into()
}

/// Submits what was accepted, and waits for nothing.
fn turn(it: &mut World) {
    let mut events = CompletionEventQueue::default();
    it.processor.submit_and_wait(0, None, &mut events).unwrap();
    assert!(events.is_empty(), "nothing has ended yet");
}

#[test]
fn registered_files_and_buffers() {
    let cases: [Case; 7] = [
        (
            "a registered file is read and written",
            |it| {
                let file = it.file("a", b"hello");
                let slot = it.processor.register_file(Some(&file)).unwrap();
                let written = it.tell(write(&slot, b"HE".to_vec(), 0));
                let ended = it.run(read(&slot, vec![b'.'; 8], 0));
                told([written, ended.told(), text(ended.bytes())])
            },
            "2, 5, HEllo...",
        ),
        (
            "a registered file lives on when its descriptor is closed",
            |it| {
                let file = it.file("a", b"hello");
                let slot = it.processor.register_file(Some(&file)).unwrap();
                let closed = it.tell(Close::file(file));
                told([closed, it.tell(read(&slot, vec![0; 8], 0))])
            },
            "0, 5",
        ),
        (
            "a slot that was emptied can't be read",
            |it| {
                let file = it.file("a", b"hello");
                let slot = it.processor.register_file(Some(&file)).unwrap();
                told([it.tell(Close::registered(&slot)), it.tell(read(&slot, vec![0; 8], 0))])
            },
            "0, EBADF",
        ),
        (
            "a slot that was emptied can't be emptied again",
            |it| {
                let slot = it.processor.register_file(None).unwrap();
                it.tell(Close::registered(&slot))
            },
            "EBADF",
        ),
        (
            "slots come back when nobody has them",
            |it| {
                let file = it.file("a", b"hello");
                let mut told_results = Vec::new();
                for _ in 0..200 {
                    let slot = it.processor.register_file(Some(&file));
                    told_results.push(
                        slot.map_or("refused".into(), |slot| it.tell(read(&slot, vec![0; 8], 0))),
                    );
                }
                told_results.dedup();
                told(told_results)
            },
            "5",
        ),
        (
            "a lease is read into and written from, in parts",
            |it| {
                let file = it.file("a", b"");
                let pool = it.processor.buffer_pool(2, 4096).unwrap();
                let mut lease = pool.lease().unwrap();
                lease[..5].copy_from_slice(b"hello");
                let written = it.tell(Write { length: 5, ..write(&file, lease, 0) });
                let back = pool.available();
                let part = Read { start: 4090, length: 6, ..read(&file, pool.lease().unwrap(), 2) };
                let ended = it.run(part);
                told([written, back.to_string(), ended.told(), text(&ended.bytes()[4090..4093])])
            },
            "5, 2, 3, llo",
        ),
        (
            "a part outside a lease is refused",
            |it| {
                let file = it.file("a", b"hello");
                let pool = it.processor.buffer_pool(2, 4096).unwrap();
                it.tell(Read { start: 4095, length: 2, ..read(&file, pool.lease().unwrap(), 0) })
            },
            "EINVAL",
        ),
    ];
    conform(&cases);
}

#[test]
fn a_full_processor_gives_operations_back() {
    let cases: [Case; 2] = [
        (
            "an operation too many comes back",
            |it| {
                let ids = fill(it);
                let refused = it.processor.accept(Operation::Nop, Token::default());
                let came_back = matches!(refused, Err(Full(Operation::Nop)));
                told([came_back, empty(it, &ids), it.tell(Operation::Nop) == "0"])
            },
            "true, true, true",
        ),
        (
            "a chain for which there is not enough room comes back whole",
            |it| {
                let (file, target) = (it.file("a", b"hello"), it.file("b", b""));
                let ids = fill(it);
                it.processor.cancel(ids[0]);
                it.wait(1);
                let block = read(&file, vec![0; 5], 0);
                let chain = Chain::read_then_write(block, target.into(), 0);
                let refused = it.processor.accept_chain(chain, Token::default());
                empty(it, &ids[1..]);
                let Err(Full(chain)) = refused else { return "accepted".into() };
                told(it.run_chain(chain).iter().map(Ended::told))
            },
            "5, 5",
        ),
    ];
    conform(&cases);
}

/// Accepts what never ends until there is no more room.
fn fill(it: &mut World) -> Vec<OperationId> {
    let mut ids = Vec::new();
    while let Ok(id) = it.processor.accept(never(), Token::default()) {
        ids.push(id);
        assert!(ids.len() < 100_000, "there is a bound");
    }
    ids
}

fn empty(it: &mut World, ids: &[OperationId]) -> bool {
    for id in ids {
        it.processor.cancel(*id);
    }
    it.wait(ids.len()).len() == ids.len()
}
