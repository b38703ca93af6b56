//! Scopes: what is begun in one is stopped with it, tells what came of it, and has ended when the
//! scope has.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ucp_engine::operation::{Cause, Handle, Operation, Read};
use ucp_engine::proactor::{Semaphore, Stopped, channel, join};
use ucp_engine::processor::FaultPlan;
use ucp_engine::{CompletionEvent, CompletionHandler, Error, Initiator};

use crate::setting::{FOR_EVER, in_memory, settings, wait_in_slot};
use crate::support::machine;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Sets a flag when it is dropped.
struct Dropped(Rc<Cell<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

#[test]
fn what_is_in_flight_tells_its_true_outcome_and_nothing_new_begins() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, name) = (setting.proactor.initiator(), setting.name);
        let heard = Rc::new(RefCell::new(Vec::new()));
        setting.proactor.block_on(async {
            let scope = tasks.scope();
            let (mine, log) = (tasks.clone(), Rc::clone(&heard));
            let task = scope.spawn(async move {
                let (result, _) = wait_in_slot(&mine, FOR_EVER).await;
                log.borrow_mut().push(result.map_err(|error| error.cause));
                let (result, _) = wait_in_slot(&mine, MILLISECOND).await;
                log.borrow_mut().push(result.map_err(|error| error.cause));
            });
            tasks.sleep(MILLISECOND).await;
            assert_eq!(setting.proactor.in_flight(), 1, "{name}");
            let started = setting.proactor.stats().operations_started;
            scope.cancel();
            scope.ended().await;
            assert_eq!(setting.proactor.in_flight(), 0, "{name}: it has ended");
            assert_eq!(task.unwrap().await, Err(Stopped::Cancelled), "{name}");
            assert_eq!(setting.proactor.stats().operations_started, started, "{name}");
        });
        assert_eq!(*heard.borrow(), [Err(Cause::Cancelled)], "{name}");
    }
}

#[test]
fn whoever_waits_for_no_operation_is_dropped_at_once() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let tasks = setting.proactor.initiator();
    let limit = Semaphore::new(1);
    let _held = limit.try_acquire(1);
    let (sender, mut receiver) = channel::<u32>(1);
    setting.proactor.block_on(async {
        let scope = tasks.scope();
        let (clock, queue, never) = (tasks.clone(), limit.clone(), tasks.scope());
        let waits = [
            scope.spawn(clock.sleep(FOR_EVER)),
            scope.spawn(async move { drop(queue.acquire(1).await) }),
            scope.spawn(async move { assert_eq!(receiver.receive().await, None) }),
            scope.spawn(pending()),
            scope.spawn(async move { never.run(pending::<()>()).await.unwrap() }),
        ];
        ucp_engine::proactor::yield_now().await;
        scope.cancel();
        scope.ended().await;
        for (number, wait) in waits.into_iter().enumerate() {
            assert_eq!(wait.unwrap().await, Err(Stopped::Cancelled), "{number}");
        }
        assert!(sender.send(1).await.is_err(), "its receiver is gone");
    });
    let stats = setting.proactor.stats();
    assert_eq!((stats.alarms, stats.tasks), (0, 0));
}

#[test]
fn a_future_that_is_done_when_its_scope_is_stopped_keeps_its_output() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let tasks = setting.proactor.initiator();
    setting.proactor.block_on(async {
        let scope = tasks.scope();
        let mine = tasks.clone();
        // Its operation has ended, and it has not heard of that.
        let task = scope.spawn(async move { mine.perform(Operation::Nop).await.0 }).unwrap();
        while setting.proactor.stats().operations_started == 0 {
            ucp_engine::proactor::yield_now().await;
        }
        while setting.proactor.in_flight() > 0 {
            ucp_engine::proactor::yield_now().await;
        }
        scope.cancel();
        assert_eq!(task.await, Ok(Ok(0)));
        // And in one that is stopped nothing begins.
        assert_eq!(scope.run(async { 1 }).await, Err(Stopped::Cancelled));
    });
}

#[test]
fn a_scope_has_ended_only_when_what_its_futures_dropped_has() {
    let _hold = machine::shared();
    for setting in settings(64) {
        let (tasks, name, file) = (setting.proactor.initiator(), setting.name, setting.file("a"));
        setting.proactor.block_on(async {
            let scope = tasks.scope();
            let outcome = scope.run(async {
                // Begun and dropped: writes run to their ends.
                for number in 0..20 {
                    let write = tasks.write_at(&file, vec![1; 1 << 16], 1 << 16, number << 16);
                    let mut write = Box::pin(write);
                    let _ = crate::setting::poll_once(write.as_mut());
                }
            });
            assert_eq!(outcome.await, Ok(()), "{name}");
            scope.ended().await;
            assert_eq!(setting.proactor.in_flight(), 0, "{name}");
        });
    }
}

#[test]
fn scopes_within_are_stopped_with_it_and_those_beside_are_not() {
    let _hold = machine::shared();
    for setting in settings(16) {
        let (tasks, name) = (setting.proactor.initiator(), setting.name);
        let (inner_heard, is_dropped) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(false)));
        setting.proactor.block_on(async {
            let (outer, beside) = (tasks.scope(), tasks.scope());
            let mine = tasks.clone();
            let unmoved = beside.spawn(async move { wait_in_slot(&mine, 5 * MILLISECOND).await.0 });
            let (mine, heard) = (tasks.clone(), Rc::clone(&inner_heard));
            let dropped = Dropped(Rc::clone(&is_dropped));
            let task = outer.spawn(async move {
                let _dropped = dropped;
                let inner = mine.scope();
                let own = mine.clone();
                let within = inner.spawn(async move {
                    let (result, _) = wait_in_slot(&own, FOR_EVER).await;
                    heard.set(Some(result.map_err(|error| error.cause)));
                });
                inner.ended().await;
                within.unwrap().await
            });
            tasks.sleep(MILLISECOND).await;
            outer.stopper().cancel();
            outer.ended().await;
            assert!(is_dropped.get(), "{name}: nothing of it is left");
            assert_eq!(inner_heard.get(), Some(Err(Cause::Cancelled)), "{name}");
            assert!(task.unwrap().is_finished(), "{name}");
            assert_eq!(unmoved.unwrap().await, Ok(Ok(0)), "{name}: this one goes on");
        });
        setting.assert_at_rest("stopped");
    }
}

#[test]
fn a_deadline_stops_a_scope_unless_it_is_gone_or_moved() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let tasks = setting.proactor.initiator();
    let (second, start) = (Duration::from_secs(1), tasks.now());
    setting.proactor.block_on(async {
        let scope = tasks.scope_for(10 * second);
        let late = scope.run(wait_in_slot(&tasks, FOR_EVER)).await;
        // The operation tells that it was cancelled, and the scope why.
        assert_eq!(late.unwrap().0.unwrap_err().cause, Cause::Cancelled);
        assert_eq!(scope.stopped(), Some(Stopped::DeadlinePassed));
        assert_eq!(tasks.now().since(start).as_secs(), 10);

        let scope = tasks.scope_for(10 * second);
        scope.set_deadline(tasks.now() + 3 * second);
        assert_eq!(scope.run(tasks.sleep(FOR_EVER)).await, Err(Stopped::DeadlinePassed));
        assert_eq!(tasks.now().since(start).as_secs(), 13);

        let scope = tasks.scope_for(second);
        assert_eq!(scope.run(async { 1 }).await, Ok(1));
        drop(scope);
    });
    assert_eq!(setting.proactor.stats().alarms, 0, "a scope takes its deadline with it");
}

#[test]
fn dropping_a_scope_stops_what_is_in_it() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let tasks = setting.proactor.initiator();
        let mine = tasks.clone();
        let task = tasks.scope().spawn(async move { wait_in_slot(&mine, FOR_EVER).await.0 });
        let outcome = setting.proactor.block_on(task.unwrap());
        assert_eq!(outcome, Err(Stopped::Cancelled), "{}: it never began", setting.name);
        setting.assert_at_rest("dropped");
    }
}

#[test]
fn a_future_that_panics_in_a_scope_has_left_it() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let tasks = setting.proactor.initiator();
    let scope = tasks.scope();
    let bad = scope.spawn(async { panic!("as the test wants") });
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        setting.proactor.block_on(bad.unwrap())
    }));
    assert!(panicked.is_err());
    setting.proactor.block_on(scope.ended());
    // And what runs next runs in no scope.
    scope.cancel();
    assert_eq!(setting.proactor.block_on(tasks.perform(Operation::Nop)).0, Ok(0));
}

/// A handler that reads again and again, whatever comes of it, until it may start nothing.
struct Endless {
    handle: Handle,
    is_refused: bool,
}

impl Endless {
    fn read(&mut self, initiator: &mut Initiator<'_>) {
        let (handle, buffer) = (self.handle.clone(), vec![0; 16].into());
        let read = Read { handle, buffer, offset_bytes: 0, start: 0, length: 16 };
        self.is_refused = initiator.start(read.into(), 0).is_err();
    }
}

impl CompletionHandler for Endless {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        self.read(initiator);
        self.read(initiator);
        Ok(())
    }

    fn on_complete(
        &mut self,
        _: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        self.read(initiator);
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.is_refused
    }
}

#[test]
fn a_handler_starts_nothing_any_more_once_its_scope_is_stopped() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, name, file) = (setting.proactor.initiator(), setting.name, setting.file("a"));
        setting.proactor.block_on(async {
            let scope = tasks.scope_for(2 * MILLISECOND);
            let endless = Endless { handle: Handle::from(&file), is_refused: false };
            let (outcome, ()) = join(scope.run(tasks.run(endless)), scope.ended()).await;
            assert!(outcome.is_ok_and(|(_, outcome)| outcome.is_ok()), "{name}");
        });
        drop(file);
        setting.assert_at_rest("stopped");
    }
}
