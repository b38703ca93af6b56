//! The engine in other loops: around epoll, and in tokio.

#![allow(unsafe_code, reason = "tokio has its callers promise that a descriptor stays open")]

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::LocalSet;
use ucp_engine::operation::{Chain, File, Handle, Read, Timeout};
use ucp_engine::proactor::{JoinHandle, TaskInitiator, channel};
use ucp_engine::processor::FaultPlan;
use ucp_engine::{CompletionEvent, CompletionHandler, Errno, Error, Initiator, Operation};

use crate::setting::{FOR_EVER, Setting, in_memory, settings, wait_in_slot};
use crate::support::machine;

const MILLISECOND: Duration = Duration::from_millis(1);

/// What takes so long will never happen: nobody was told.
const PATIENCE_MS: u16 = 20_000;

/// Turns whenever the descriptor is readable, until a task is over.
fn drive(setting: &Setting, epoll: &Epoll, task: &JoinHandle<()>) {
    while !task.is_finished() {
        let mut events = [EpollEvent::empty()];
        match epoll.wait(&mut events, EpollTimeout::from(PATIENCE_MS)) {
            Err(Errno::EINTR) => continue,
            waited => assert_eq!(waited, Ok(1), "{}: it waits, and is not readable", setting.name),
        }
        setting.proactor.turn(Duration::ZERO).unwrap();
    }
}

/// Settings that can be guests, each in an epoll of its own.
fn guests(capacity: u32, flags: EpollFlags) -> Vec<(Setting, Epoll)> {
    let real = settings(capacity).into_iter().filter(|setting| setting.world.is_none());
    let guest = |setting: Setting| {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let pollable = setting.proactor.pollable().unwrap();
        epoll.add(&pollable, EpollEvent::new(flags, 0)).unwrap();
        (setting, epoll)
    };
    real.map(guest).collect()
}

/// Does something of each kind that ends a wait.
async fn of_each_kind(tasks: TaskInitiator, file: File) {
    for round in 0..20_u64 {
        assert_eq!(tasks.read_at(&file, vec![0; 16], round).await.0, Ok(16));
        tasks.sleep(Duration::from_micros(300 * (round % 3))).await;
        assert_eq!(wait_in_slot(&tasks, Duration::from_micros(200)).await.0, Ok(0));
        assert_eq!(tasks.offload(move || round).await.unwrap(), round);
        let late = tasks.timeout(Duration::from_micros(100), wait_in_slot(&tasks, FOR_EVER));
        assert!(late.await.is_err());
        ucp_engine::proactor::yield_now().await;
        let (handle, buffer) = (Handle::from(&file), vec![0; 16].into());
        let read = Read { handle, buffer, offset_bytes: 0, start: 0, length: 16 };
        let chain = Chain::with_timeout(read.into(), FOR_EVER);
        assert_eq!(tasks.perform_chain(chain).await[0].result, Ok(16));
        let (sender, mut receiver) = channel(1);
        let other = thread::spawn(move || {
            if round % 2 == 0 {
                thread::sleep(Duration::from_micros(200));
            }
            sender.try_send(round).unwrap();
        });
        assert_eq!(receiver.receive().await, Some(round));
        other.join().unwrap();
    }
}

#[test]
fn whatever_a_task_waits_for_makes_the_descriptor_readable() {
    let _hold = machine::shared();
    for flags in [EpollFlags::EPOLLIN, EpollFlags::EPOLLIN | EpollFlags::EPOLLET] {
        for (setting, epoll) in guests(8, flags) {
            let file = setting.file("file");
            let tasks = setting.proactor.initiator();
            let task = tasks.spawn(of_each_kind(tasks.clone(), file)).unwrap();
            drive(&setting, &epoll, &task);
        }
    }
}

#[test]
fn the_descriptor_is_silent_while_there_is_nothing_to_do() {
    let _hold = machine::shared();
    for (setting, _epoll) in guests(8, EpollFlags::EPOLLIN) {
        let (tasks, name) = (setting.proactor.initiator(), setting.name);
        let pollable = setting.proactor.pollable().unwrap();
        let is_readable = |patience: PollTimeout| {
            let mut polled = [PollFd::new(pollable.as_fd(), PollFlags::POLLIN)];
            poll(&mut polled, patience).unwrap() > 0
        };
        let sleeper = tasks.spawn(tasks.sleep(FOR_EVER)).unwrap();
        let waiter = tasks.spawn(wait_in_slot(&tasks, FOR_EVER)).unwrap();
        let mut turns = 0;
        while is_readable(PollTimeout::ZERO) {
            setting.proactor.turn(Duration::ZERO).unwrap();
            turns += 1;
            assert!(turns < 100, "{name}: it is readable for ever");
        }
        // What is begun or woken from outside of the loop is heard of.
        let quick = tasks.spawn(async {}).unwrap();
        assert!(is_readable(PATIENCE_MS.into()), "{name}: a task can go on");
        setting.proactor.turn(Duration::ZERO).unwrap();
        assert!(quick.is_finished(), "{name}");
        drop((sleeper, waiter));
    }
}

/// A handler that reads so many times, one after the other.
struct Reads {
    handle: Handle,
    left: u32,
}

impl CompletionHandler for Reads {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        let (handle, buffer) = (self.handle.clone(), vec![0; 16].into());
        let read = Read { handle, buffer, offset_bytes: 0, start: 0, length: 16 };
        self.left -= 1;
        assert!(initiator.start(read.into(), 0).is_ok());
        Ok(())
    }

    fn on_complete(
        &mut self,
        event: CompletionEvent,
        initiator: &mut Initiator<'_>,
    ) -> Result<(), Error> {
        assert_eq!(event.result, Ok(16));
        if self.left > 0 { self.start(initiator) } else { Ok(()) }
    }

    fn is_finished(&self) -> bool {
        self.left == 0
    }
}

#[test]
fn what_handlers_start_is_submitted_though_nobody_waits() {
    let _hold = machine::shared();
    for (setting, epoll) in guests(8, EpollFlags::EPOLLIN | EpollFlags::EPOLLET) {
        let (file, tasks) = (setting.file("file"), setting.proactor.initiator());
        let (reads, mine) = (Reads { handle: (&file).into(), left: 500 }, tasks.clone());
        let task = tasks.spawn(async move { mine.run(reads).await.1.unwrap() }).unwrap();
        drive(&setting, &epoll, &task);
    }
}

/// A handler that waits for many things that end together, and starts nothing when they do.
struct Crowd {
    left: u32,
}

impl CompletionHandler for Crowd {
    fn start(&mut self, initiator: &mut Initiator<'_>) -> Result<(), Error> {
        for _ in 0..self.left {
            let timeout = Timeout { duration: MILLISECOND };
            assert!(initiator.start(timeout.into(), 0).is_ok());
        }
        Ok(())
    }

    fn on_complete(&mut self, _: CompletionEvent, _: &mut Initiator<'_>) -> Result<(), Error> {
        self.left -= 1;
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.left == 0
    }
}

#[test]
fn all_of_many_that_complete_together_are_heard_of() {
    let _hold = machine::shared();
    for (setting, epoll) in guests(128, EpollFlags::EPOLLIN | EpollFlags::EPOLLET) {
        let tasks = setting.proactor.initiator();
        let mine = tasks.clone();
        let crowd = async move { mine.run(Crowd { left: 128 }).await.1.unwrap() };
        drive(&setting, &epoll, &tasks.spawn(crowd).unwrap());
    }
}

#[test]
fn a_busy_guest_leaves_its_host_a_turn() {
    let _hold = machine::shared();
    for (setting, _epoll) in guests(8, EpollFlags::EPOLLIN) {
        let (tasks, is_over) = (setting.proactor.initiator(), Rc::new(Cell::new(false)));
        let flag = Rc::clone(&is_over);
        let task = tasks.spawn(async move {
            while !flag.get() {
                ucp_engine::proactor::yield_now().await;
            }
        });
        for _ in 0..3 {
            setting.proactor.turn(Duration::ZERO).unwrap();
        }
        is_over.set(true);
        setting.proactor.turn(Duration::ZERO).unwrap();
        assert!(task.unwrap().is_finished(), "{}", setting.name);
    }
}

#[test]
fn a_simulated_processor_is_no_guest() {
    let setting = in_memory(1, 8, FaultPlan::none());
    let refused = setting.proactor.pollable().err().expect("it has a time of its own");
    assert_eq!(refused.errno(), Some(ucp_engine::Errno::EOPNOTSUPP));
}

#[test]
fn tasks_of_tokio_and_of_the_engine_go_on_side_by_side() {
    let _hold = machine::shared();
    for setting in settings(8).into_iter().filter(|setting| setting.world.is_none()) {
        let (file, name) = (setting.file("file"), setting.name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        runtime.block_on(LocalSet::new().run_until(async {
            let pollable = setting.proactor.pollable().unwrap();
            // SAFETY: a `Pollable` owns its descriptor, the only one that it ever answers with, and the
            // `AsyncFd` owns the `Pollable`.
            let pollable =
                unsafe { AsyncFd::register_with_interest(pollable, Interest::READABLE) }.unwrap();
            let tasks = setting.proactor.initiator();
            let own = tasks.spawn(of_each_kind(tasks.clone(), file.clone())).unwrap();
            let (mine, log) = (tasks.clone(), Rc::clone(&order));
            let foreign = tokio::task::spawn_local(async move {
                for round in 0..20 {
                    // A future of the engine, polled by tokio, beside a timer of tokio's.
                    let (result, _) = tokio::time::timeout(
                        Duration::from_secs(20),
                        mine.read_at(&file, vec![0; 16], round),
                    )
                    .await
                    .expect("the engine was told");
                    assert_eq!(result, Ok(16));
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    mine.sleep(Duration::from_micros(100)).await;
                    let late =
                        tokio::time::timeout(MILLISECOND, wait_in_slot(&mine, FOR_EVER)).await;
                    assert!(late.is_err());
                    log.borrow_mut().push(round);
                }
            });
            let start = Instant::now();
            while !(own.is_finished() && foreign.is_finished()) {
                assert!(start.elapsed() < Duration::from_secs(60), "{name}");
                let readable = tokio::time::timeout(Duration::from_secs(20), pollable.readable());
                readable.await.expect("there is something to do").unwrap().clear_ready();
                setting.proactor.turn(Duration::ZERO).unwrap();
                // The host's own tasks have their turn.
                tokio::task::yield_now().await;
            }
            foreign.await.unwrap();
        }));
        assert_eq!(order.borrow().len(), 20, "{name}");
        setting.drain();
        assert_eq!(setting.proactor.in_flight(), 0, "{name}: what was late has ended");
        let nop = setting.proactor.initiator().perform(Operation::Nop);
        assert_eq!(setting.proactor.block_on(nop).0, Ok(0), "{name}: its own loop still works");
    }
}
