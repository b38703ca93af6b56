//! Sleeping, giving up, noticing that nothing happens, trying again.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ucp_engine::proactor::{Backoff, Either, Elapsed, channel, race, select};
use ucp_engine::processor::FaultPlan;

use crate::setting::{FOR_EVER, in_memory, poll_once, settings, wait_in_slot};
use crate::support::machine;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn sleeps_last_as_long_as_asked_whatever_is_in_flight() {
    let _hold = machine::shared();
    for is_something_in_flight in [false, true] {
        for setting in settings(8) {
            let tasks = setting.proactor.initiator();
            let mut waiting = pin!(wait_in_slot(&tasks, FOR_EVER));
            if is_something_in_flight {
                assert!(poll_once(waiting.as_mut()).is_pending());
            }
            let start = tasks.now();
            setting.proactor.block_on(tasks.sleep(3 * MILLISECOND));
            assert!(tasks.now().since(start) >= 3 * MILLISECOND, "{}", setting.name);
            setting.proactor.block_on(tasks.sleep_until(start));
            setting.proactor.block_on(tasks.sleep(Duration::ZERO));
        }
    }
}

#[test]
fn more_tasks_sleep_than_there_are_slots_and_wake_in_order() {
    let _hold = machine::shared();
    for setting in settings(4) {
        let (tasks, order) = (setting.proactor.initiator(), Rc::new(RefCell::new(Vec::new())));
        let start = tasks.now();
        let sleepers: Vec<_> = (0..2000_u32)
            .map(|number| {
                let order = Rc::clone(&order);
                // Two of each moment, from the last to the first.
                let until = start + MILLISECOND + Duration::from_micros((1000 - number / 2).into());
                let sleep = tasks.sleep_until(until);
                let task = async move {
                    sleep.await;
                    order.borrow_mut().push(until);
                };
                tasks.spawn(task).unwrap()
            })
            .collect();
        setting.proactor.block_on(async {
            for sleeper in sleepers {
                sleeper.await;
            }
        });
        // Where time is real, a moment may have passed before its task first runs.
        assert!(order.borrow().is_sorted() || setting.world.is_none());
        assert_eq!(order.borrow().len(), 2000, "{}", setting.name);
        let stats = setting.proactor.stats();
        assert_eq!((stats.operations_started, stats.alarms), (0, 0), "no operation: {stats:?}");
    }
}

#[test]
fn a_sleep_that_is_dropped_leaves_no_alarm() {
    for setting in settings(8) {
        let tasks = setting.proactor.initiator();
        let mut sleep = Box::pin(tasks.sleep(FOR_EVER));
        assert!(poll_once(sleep.as_mut()).is_pending());
        assert_eq!(setting.proactor.stats().alarms, 1);
        drop(sleep);
        assert_eq!(setting.proactor.stats().alarms, 0, "{}", setting.name);
    }
}

#[test]
fn tasks_that_never_wait_do_not_keep_alarms_from_ringing() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, is_over) = (setting.proactor.initiator(), Rc::new(Cell::new(false)));
        let (mine, flag) = (tasks.clone(), Rc::clone(&is_over));
        let file = setting.file("file");
        let busy = tasks.spawn(async move {
            while !flag.get() {
                // Over "in turn" this is ready at once.
                assert_eq!(mine.read_at(&file, vec![0; 8], 0).await.0, Ok(8));
                ucp_engine::proactor::yield_now().await;
            }
        });
        setting.proactor.block_on(async {
            tasks.sleep(MILLISECOND).await;
            is_over.set(true);
            busy.unwrap().await;
        });
    }
}

#[test]
fn a_turn_waits_for_an_alarm_and_no_longer() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let tasks = setting.proactor.initiator();
        let sleep = tasks.sleep(2 * MILLISECOND);
        let task = tasks.spawn(sleep).unwrap();
        while !task.is_finished() {
            setting.proactor.turn(FOR_EVER).unwrap();
        }
        // Nothing is to come.
        setting.proactor.turn(FOR_EVER).unwrap();
    }
}

#[test]
fn a_timeout_drops_what_is_late_and_what_that_had_in_flight_ends() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, name) = (setting.proactor.initiator(), setting.name);
        let late = tasks.timeout(MILLISECOND, wait_in_slot(&tasks, FOR_EVER));
        assert_eq!(setting.proactor.block_on(late).map(drop), Err(Elapsed), "{name}");
        let in_time = tasks.timeout(FOR_EVER, wait_in_slot(&tasks, MILLISECOND));
        assert_eq!(setting.proactor.block_on(in_time).unwrap().0, Ok(0), "{name}");
        setting.drain();
        setting.assert_at_rest("timed out");
        assert_eq!(setting.proactor.stats().alarms, 0, "{name}");
    }
}

#[test]
fn a_cancelled_operation_tells_what_came_of_it_and_comes_back() {
    use ucp_engine::operation::Cause;

    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, name) = (setting.proactor.initiator(), setting.name);
        setting.proactor.block_on(async {
            let slow = wait_in_slot(&tasks, FOR_EVER);
            let Either::Second((mut slow, ())) = select(slow, tasks.sleep(MILLISECOND)).await
            else {
                panic!("{name}: it takes for ever")
            };
            slow.cancel();
            let (result, _operation) = slow.await;
            assert_eq!(result.unwrap_err().cause, Cause::Cancelled, "{name}");

            // One that has ended meanwhile is a success.
            let mut done = wait_in_slot(&tasks, Duration::ZERO);
            assert!(poll_once(std::pin::Pin::new(&mut done)).is_pending());
            while setting.proactor.in_flight() > 0 {
                ucp_engine::proactor::yield_now().await;
            }
            done.cancel();
            assert_eq!(done.await.0, Ok(0), "{name}");

            // One that was never begun is not begun.
            let before = setting.proactor.stats().operations_started;
            let mut new = wait_in_slot(&tasks, FOR_EVER);
            new.cancel();
            assert_eq!(new.await.0.unwrap_err().cause, Cause::Cancelled, "{name}");
            assert_eq!(setting.proactor.stats().operations_started, before, "{name}");
        });
        setting.assert_at_rest("cancelled");
    }
}

#[test]
fn who_is_idle_for_half_a_minute_is_given_up_and_who_is_not_is_not() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let tasks = setting.proactor.initiator();
    let cases = [
        ("silent from the start", vec![], 30),
        ("a message every 29 s", vec![29; 5], 5 * 29 + 30),
        ("one too late", vec![10, 31, 1], 10 + 30),
        ("at the same moment", vec![29, 0, 0], 29 + 30),
    ];
    for (case, pauses, want_seconds) in cases {
        let (sender, mut receiver) = channel(1);
        let mine = tasks.clone();
        let client = tasks.spawn(async move {
            for pause in pauses {
                mine.sleep(pause * SECOND).await;
                if sender.send(()).await.is_err() {
                    return;
                }
            }
            mine.sleep(1000 * SECOND).await;
        });
        let (idle, start) = (tasks.idle(30 * SECOND), tasks.now());
        let serve = async {
            while receiver.receive().await.is_some() {
                idle.touch();
            }
        };
        let outcome = setting.proactor.block_on(race(serve, idle.expired()));
        assert_eq!(outcome, Either::Second(()), "{case}");
        let taken = tasks.now().since(start);
        assert_eq!(taken.as_secs(), want_seconds, "{case}");
        drop(receiver);
        setting.proactor.block_on(client.unwrap());
    }
}

/// What each attempt comes to.
type Attempt = Result<u32, &'static str>;

#[test]
fn what_fails_is_tried_again_as_often_as_it_is_worth() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let tasks = setting.proactor.initiator();
    let cases: [(&str, &[Attempt], Attempt, u64); 5] = [
        ("at once", &[Ok(1)], Ok(1), 0),
        ("after two failures", &[Err("busy"), Err("busy"), Ok(3)], Ok(3), 3),
        ("fails for good", &[Err("busy"), Err("gone"), Ok(3)], Err("gone"), 1),
        ("too often", &[Err("busy"); 4], Err("busy"), 7),
        ("the last attempt", &[Err("busy"), Err("busy"), Err("busy"), Ok(4)], Ok(4), 7),
    ];
    for (case, results, want, waits_seconds) in cases {
        let (mut results, start) = (results.iter(), tasks.now());
        let waits = Backoff::new(SECOND, 3, 9);
        let got = setting.proactor.block_on(tasks.retry(
            waits,
            |error| *error == "busy",
            async || *results.next().expect("it is not tried more often"),
        ));
        assert_eq!(got, want, "{case}");
        let taken = tasks.now().since(start).as_secs_f64();
        let (least, most) = (0.49 * waits_seconds as f64, waits_seconds as f64 + 0.1);
        assert!(taken >= least && taken <= most, "{case}: {taken} s");
    }
}
