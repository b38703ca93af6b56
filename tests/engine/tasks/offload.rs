//! Closures on other threads: what they return comes back, what they panic with as well.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use ucp_engine::limits::{OFFLOAD_QUEUE_MAX, OFFLOAD_THREADS_MAX};
use ucp_engine::proactor::{join, join_all};
use ucp_engine::processor::FaultPlan;

use crate::setting::{FOR_EVER, in_memory, poll_once, settings, wait_in_slot};
use crate::support::machine;

#[test]
fn what_a_closure_returns_or_panics_with_comes_back_whatever_is_in_flight() {
    let _hold = machine::shared();
    for is_something_in_flight in [false, true] {
        for setting in settings(8) {
            let (tasks, name) = (setting.proactor.initiator(), setting.name);
            let mut waiting = Box::pin(wait_in_slot(&tasks, FOR_EVER));
            if is_something_in_flight {
                assert!(poll_once(waiting.as_mut()).is_pending());
            }
            setting.proactor.block_on(async {
                for number in 0..200_u32 {
                    assert_eq!(tasks.offload(move || number).await.unwrap(), number, "{name}");
                }
                let panicked = tasks.offload(|| panic!("as the test wants")).await;
                assert_eq!(panicked.unwrap_err().message(), Some("as the test wants"), "{name}");
                let panicked = tasks.offload(|| std::panic::panic_any(7)).await;
                let panicked = panicked.map(|()| 0).unwrap_err();
                assert_eq!(panicked.message(), None, "{name}");
                let resumed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                    panicked.resume()
                }));
                assert_eq!(resumed.unwrap_err().downcast_ref(), Some(&7), "{name}");
            });
        }
    }
}

#[test]
fn the_loop_goes_on_while_closures_block_and_so_many_run_at_a_time() {
    let _hold = machine::shared();
    for setting in settings(8).into_iter().filter(|setting| setting.world.is_none()) {
        let tasks = setting.proactor.initiator();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let count = OFFLOAD_QUEUE_MAX + 3 * OFFLOAD_THREADS_MAX;
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let done = Cell::new(0);
        let closures = (0..count).map(|_| -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
            let (running, most, wait) =
                (Arc::clone(&running), Arc::clone(&most), Arc::clone(&wait));
            let closure = move || {
                most.fetch_max(1 + running.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                wait.lock().unwrap().recv().unwrap();
                running.fetch_sub(1, Ordering::SeqCst);
            };
            let (tasks, done) = (&tasks, &done);
            Box::pin(async move {
                tasks.offload(closure).await.unwrap();
                done.set(done.get() + 1);
            })
        });
        let release = async {
            // All of them are blocked, and this goes on.
            tasks.sleep(Duration::from_millis(1)).await;
            assert_eq!(done.get(), 0);
            for _ in 0..count {
                go.send(()).unwrap();
            }
        };
        setting.proactor.block_on(join(join_all(closures.collect()), release));
        assert_eq!(done.get(), count, "{}", setting.name);
        assert!(most.load(Ordering::SeqCst) <= OFFLOAD_THREADS_MAX, "{}", setting.name);
    }
}

#[test]
fn a_closure_whose_future_is_dropped_before_it_begins_never_does() {
    let _hold = machine::shared();
    for setting in settings(8).into_iter().filter(|setting| setting.world.is_none()) {
        let tasks = setting.proactor.initiator();
        let (go, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        // All threads are busy.
        let mut busy: Vec<_> = (0..OFFLOAD_THREADS_MAX)
            .map(|_| {
                let wait = Arc::clone(&wait);
                Box::pin(tasks.offload(move || wait.lock().unwrap().recv().unwrap()))
            })
            .collect();
        for offload in &mut busy {
            assert!(poll_once(offload.as_mut()).is_pending());
        }
        let has_run = Arc::new(AtomicUsize::new(0));
        let flag = Arc::clone(&has_run);
        let mut dropped = Box::pin(tasks.offload(move || flag.store(1, Ordering::SeqCst)));
        assert!(poll_once(dropped.as_mut()).is_pending());
        drop(dropped);
        (0..OFFLOAD_THREADS_MAX).for_each(|_| go.send(()).unwrap());
        setting.proactor.block_on(async {
            for offload in busy {
                offload.await.unwrap();
            }
            tasks.offload(|| ()).await.unwrap();
        });
        // Behind it in the queue: it was looked at by now, or is being dropped.
        while Arc::strong_count(&has_run) > 1 {
            thread::yield_now();
        }
        assert_eq!(has_run.load(Ordering::SeqCst), 0, "{}", setting.name);
    }
}

#[test]
fn in_a_simulation_closures_run_in_an_order_that_the_seed_decides() {
    let order = |seed| {
        let setting = in_memory(seed, 16, FaultPlan::none());
        let (tasks, order) = (setting.proactor.initiator(), std::sync::Arc::default());
        let order: Arc<std::sync::Mutex<Vec<u32>>> = order;
        let this = thread::current().id();
        let closures = (0..6).map(|number| -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>> {
            let (tasks, order) = (&tasks, Arc::clone(&order));
            Box::pin(async move {
                let closure = move || {
                    assert_eq!(thread::current().id(), this);
                    order.lock().unwrap().push(number);
                };
                tasks.offload(closure).await.unwrap();
            })
        });
        setting.proactor.block_on(join_all(closures.collect()));
        Arc::into_inner(order).unwrap().into_inner().unwrap()
    };
    assert_eq!(order(5), order(5));
    let orders: std::collections::BTreeSet<_> = (0..20).map(order).collect();
    assert!(orders.len() > 5, "{orders:?}");
}
