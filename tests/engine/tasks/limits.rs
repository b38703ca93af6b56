//! Semaphores and channels: bounds that hold, in the order of coming, whoever loses interest.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ucp_engine::Proactor;
use ucp_engine::proactor::{Closed, Semaphore, TrySendError, channel, join, yield_now};
use ucp_engine::processor::{FaultPlan, ThreadProcessor};
use ucp_engine::random::Random;

use crate::setting::{in_memory, poll_once, settings};
use crate::support::machine;

#[test]
fn so_many_do_it_at_a_time_and_all_get_their_turn() {
    let _hold = machine::shared();
    for setting in settings(8) {
        let (tasks, limit) = (setting.proactor.initiator(), Semaphore::new(3));
        let (now, most, order) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::default());
        let order: Rc<RefCell<Vec<u32>>> = order;
        let all: Vec<_> = (0..50)
            .map(|number| {
                let (tasks, limit) = (setting.proactor.initiator(), limit.clone());
                let (now, most, order) = (Rc::clone(&now), Rc::clone(&most), Rc::clone(&order));
                let task = async move {
                    let wanted = 1 + number as usize % 2;
                    let _permit = limit.acquire(wanted).await;
                    order.borrow_mut().push(number);
                    now.set(now.get() + wanted);
                    most.set(most.get().max(now.get()));
                    tasks.sleep(Duration::from_micros(u64::from(number) % 5 * 10)).await;
                    now.set(now.get() - wanted);
                };
                setting.proactor.initiator().spawn(task).unwrap()
            })
            .collect();
        setting.proactor.block_on(async {
            for task in all {
                task.await;
            }
        });
        drop(tasks);
        assert_eq!(most.get(), 3, "{}", setting.name);
        assert!(order.borrow().is_sorted(), "{}: in the order of coming", setting.name);
        assert_eq!(limit.available(), 3, "{}", setting.name);
    }
}

#[test]
fn a_permit_that_was_granted_and_not_fetched_goes_to_the_next() {
    let limit = Semaphore::new(1);
    let held = limit.try_acquire(1).unwrap();
    let (mut first, mut second) = (Box::pin(limit.acquire(1)), pin!(limit.acquire(1)));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    drop(held);
    assert!(limit.try_acquire(1).is_none(), "it is the first's");
    drop(first);
    assert!(poll_once(second).is_ready());
    assert_eq!(limit.available(), 1);
}

#[test]
#[should_panic(expected = "would never come")]
fn more_permits_than_there_are_can_not_be_asked_for() {
    drop(Semaphore::new(2).acquire(3));
}

#[test]
fn a_full_channel_holds_senders_up_and_an_item_that_nobody_takes_comes_back() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let (sender, mut receiver) = channel(2);
    setting.proactor.block_on(async {
        sender.send(1).await.unwrap();
        sender.try_send(2).unwrap();
        assert_eq!(sender.try_send(3), Err(TrySendError::Full(3)));
        let mut third = pin!(sender.send(3));
        assert!(poll_once(third.as_mut()).is_pending());
        let mut fourth = Box::pin(sender.send(4));
        assert!(poll_once(fourth.as_mut()).is_pending());
        assert_eq!(receiver.receive().await, Some(1));
        assert_eq!(sender.try_send(5), Err(TrySendError::Full(5)), "the place is taken");
        third.await.unwrap();
        drop(fourth);
        assert_eq!(receiver.try_receive(), Some(2));
        assert_eq!(receiver.try_receive(), Some(3));
        assert_eq!(receiver.try_receive(), None, "the fourth lost interest");
        for number in [6, 7] {
            sender.send(number).await.unwrap();
        }
        let mut waiting = pin!(sender.send(8));
        assert!(poll_once(waiting.as_mut()).is_pending());
        drop(receiver);
        assert_eq!(waiting.await, Err(Closed(8)));
        assert_eq!(sender.try_send(9), Err(TrySendError::Closed(9)));
        assert_eq!(sender.send(10).await, Err(Closed(10)));
    });
}

#[test]
fn a_channel_is_over_when_it_is_empty_and_nobody_sends() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let tasks = setting.proactor.initiator();
    let (sender, mut receiver) = channel(4);
    let other = sender.clone();
    setting.proactor.block_on(async {
        sender.send("one").await.unwrap();
        drop(sender);
        let late = async {
            tasks.sleep(Duration::from_secs(1)).await;
            other.send("two").await.unwrap();
            tasks.sleep(Duration::from_secs(1)).await;
            drop(other);
        };
        let all = async {
            let mut all = Vec::new();
            while let Some(item) = receiver.receive().await {
                all.push(item);
            }
            all
        };
        assert_eq!(join(late, all).await.1, ["one", "two"]);
    });
}

#[test]
fn what_a_channel_holds_is_dropped_with_its_receiver() {
    let item = Rc::new(());
    let (sender, receiver) = channel(2);
    sender.try_send(Rc::clone(&item)).unwrap();
    drop(receiver);
    assert_eq!(Rc::strong_count(&item), 1);
    drop(sender);
}

#[test]
fn shards_send_each_other_all_and_in_order() {
    let _hold = machine::shared();
    const ITEMS: u32 = 3_000;
    for setting in settings(8).into_iter().filter(|setting| setting.world.is_none()) {
        // There and back, through channels that are full most of the time.
        let (there, mut arriving) = channel::<u32>(3);
        let (back, mut returning) = channel::<u32>(2);
        let other = thread::spawn(move || {
            let proactor = Proactor::new(Box::new(ThreadProcessor::new(0, 8)));
            proactor.block_on(async {
                while let Some(number) = arriving.receive().await {
                    if back.send(number).await.is_err() {
                        return;
                    }
                }
            });
        });
        let send = async {
            for number in 0..ITEMS {
                there.send(number).await.unwrap();
            }
            drop(there);
        };
        let receive = async {
            for want in 0..ITEMS {
                assert_eq!(returning.receive().await, Some(want), "{}", setting.name);
            }
            assert_eq!(returning.receive().await, None);
        };
        setting.proactor.block_on(join(send, receive));
        other.join().unwrap();
    }
}

#[test]
fn a_thread_without_a_proactor_sends_and_waits_for_room() {
    let _hold = machine::shared();
    for setting in settings(8).into_iter().filter(|setting| setting.world.is_none()) {
        let (sender, mut receiver) = channel(1);
        let other = thread::spawn(move || {
            (0..1000).for_each(|number| sender.send_blocking(number).unwrap());
            sender
        });
        setting.proactor.block_on(async {
            for want in 0..1000 {
                assert_eq!(receiver.receive().await, Some(want), "{}", setting.name);
            }
        });
        drop(receiver);
        assert_eq!(other.join().unwrap().send_blocking(1), Err(Closed(1)));
    }
}

#[test]
fn a_semaphore_bounds_several_threads_together() {
    let _hold = machine::shared();
    let (limit, now) = (Semaphore::new(2), Arc::new(AtomicUsize::new(0)));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (limit, now) = (limit.clone(), Arc::clone(&now));
            thread::spawn(move || {
                let proactor = Proactor::new(Box::new(ThreadProcessor::new(0, 8)));
                proactor.block_on(async {
                    for _ in 0..500 {
                        let _permit = limit.acquire(1).await;
                        assert!(now.fetch_add(1, Ordering::SeqCst) < 2, "two at a time");
                        yield_now().await;
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(limit.available(), 2);
}

#[test]
fn no_item_is_lost_or_doubled_whoever_loses_interest() {
    for seed in 0..500 {
        let setting = in_memory(seed, 8, FaultPlan::none());
        let (tasks, mut random) = (setting.proactor.initiator(), Random::new(seed));
        let (sender, mut receiver) = channel(1 + usize::try_from(random.below(3)).unwrap());
        let sent = Rc::new(RefCell::new(Vec::new()));
        let senders: Vec<_> = (0..3_u64)
            .map(|who| {
                let (mine, sender, sent) = (tasks.clone(), sender.clone(), Rc::clone(&sent));
                let mut random = Random::new(seed * 3 + who);
                let task = async move {
                    for number in 0..20 {
                        let patience = Duration::from_micros(random.below(30));
                        let item = (who, number);
                        if mine.timeout(patience, sender.send(item)).await == Ok(Ok(())) {
                            sent.borrow_mut().push(item);
                        }
                    }
                };
                tasks.spawn(task).unwrap()
            })
            .collect();
        drop(sender);
        let mut received = Vec::new();
        setting.proactor.block_on(async {
            loop {
                let patience = Duration::from_micros(random.below(30));
                match tasks.timeout(patience, receiver.receive()).await {
                    Ok(Some(item)) => received.push(item),
                    Ok(None) => break,
                    Err(_) => tasks.sleep(Duration::from_micros(random.below(30))).await,
                }
            }
            for sender in senders {
                sender.await;
            }
        });
        let mut sent = sent.take();
        sent.sort_unstable();
        received.sort_unstable();
        assert_eq!(sent, received, "seed {seed}");
    }
}
