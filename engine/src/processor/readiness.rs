//! Waits until sockets are ready: one epoll set for all operations of a processor without a ring.
//!
//! ```text
//! attempt --blocked--> await_ready --(epoll says ready)--> attempt again
//! ```
//!
//! A descriptor is added once, for both directions and edge-triggered, so that nothing has to be
//! changed from operation to operation (`epoll(7)`). An edge that comes while nobody waits is not
//! missed: who comes later attempts first.

use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::error::Errno;
use crate::operation::{Descriptor, PollEvents};

/// An epoll set, and who waits for what in it.
pub(super) struct Readiness {
    epoll: Epoll,
    /// By descriptor's number.
    watched: Vec<Watched>,
    /// Operations that wait.
    waiting: u32,
    events: Vec<EpollEvent>,
}

/// A descriptor in the set.
#[derive(Default)]
struct Watched {
    /// What was added under the number. While this is here, no other descriptor has its address.
    descriptor: Weak<Descriptor>,
    waiters: Vec<Waiter>,
    /// Nothing was left when it was read last, and no edge has come since.
    is_drained: bool,
    /// The peer has sent its last byte, or worse: there may be no edge any more.
    is_ending: bool,
}

/// An operation that waits.
struct Waiter {
    slot: u32,
    events: PollEvents,
}

/// The bell's place among the descriptors.
const BELL: u64 = u64::MAX;
/// How many events one wait takes.
const BATCH: usize = 256;

impl Readiness {
    /// A set with nothing but a bell in it: a descriptor that ends the wait.
    pub(super) fn new(bell: BorrowedFd<'_>) -> Result<Self, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, BELL))?;
        let events = vec![EpollEvent::empty(); BATCH];
        Ok(Self { epoll, watched: Vec::new(), waiting: 0, events })
    }

    /// The set, for who waits for it beside other descriptors.
    pub(super) fn share(&self) -> Result<OwnedFd, Errno> {
        self.epoll.0.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE)
    }

    /// Whether an operation waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting > 0
    }

    /// Has the operation in a slot wait until a descriptor is ready.
    pub(super) fn await_ready(
        &mut self,
        descriptor: &Arc<Descriptor>,
        events: PollEvents,
        slot: u32,
    ) -> Result<(), Errno> {
        let fd = descriptor.fd().ok_or(Errno::EBADF)?;
        let watched = self.watched_mut(fd);
        if !watched.is_of(descriptor) {
            let is_forgotten = watched.waiters.is_empty();
            assert!(is_forgotten, "an operation that waits keeps its descriptor");
            let place = u64::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF)?;
            match self.epoll.add(fd, EpollEvent::new(both_directions(), place)) {
                // Somebody else has the same open file under the same number: a clone of a handle
                // that was made of a descriptor twice. It is in the set.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
            let descriptor = Arc::downgrade(descriptor);
            *self.watched_mut(fd) = Watched { descriptor, ..Watched::default() };
        }
        self.watched_mut(fd).waiters.push(Waiter { slot, events });
        self.waiting += 1;
        Ok(())
    }

    /// Gives up waiting; false if the operation does not.
    pub(super) fn give_up(&mut self, descriptor: &Arc<Descriptor>, slot: u32) -> bool {
        let Some(fd) = descriptor.fd() else { return false };
        let waiters = &mut self.watched_mut(fd).waiters;
        let Some(place) = waiters.iter().position(|waiter| waiter.slot == slot) else {
            return false;
        };
        waiters.remove(place);
        self.waiting -= 1;
        true
    }

    /// Notes that less was received than there was room for: there is nothing until the next edge.
    pub(super) fn note_drained(&mut self, descriptor: &Arc<Descriptor>) {
        let Some(fd) = descriptor.fd() else { return };
        let watched = self.watched_mut(fd);
        watched.is_drained = watched.is_of(descriptor);
    }

    /// Whether there is nothing to receive for sure. Of a stream that has ended, or is about to, that
    /// is never so: its last edge may have come already.
    pub(super) fn is_drained(&self, descriptor: &Arc<Descriptor>) -> bool {
        let place = descriptor.fd().and_then(|fd| usize::try_from(fd.as_raw_fd()).ok());
        let watched = place.and_then(|place| self.watched.get(place));
        watched.is_some_and(|it| it.is_drained && !it.is_ending && it.is_of(descriptor))
    }

    /// Waits until something is ready, or for `patience`, or until the bell rings, and tells whose
    /// turn it is.
    pub(super) fn wait(
        &mut self,
        patience: Option<Duration>,
        mut ready: impl FnMut(u32),
    ) -> Result<(), Errno> {
        let count = match self.epoll.wait(&mut self.events, timeout(patience)) {
            Err(Errno::EINTR) => 0,
            waited => waited?,
        };
        for event in &self.events[..count] {
            let Ok(place) = usize::try_from(event.data()) else { continue };
            let Some(watched) = self.watched.get_mut(place) else { continue };
            watched.is_drained = false;
            let events = event.events();
            let is_ending = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
            watched.is_ending |= events.intersects(is_ending);
            let happened = PollEvents::from_bits(events.bits().cast_unsigned());
            watched.waiters.retain(|waiter| {
                let is_ready = events.intersects(is_ending) || happened.intersects(waiter.events);
                if is_ready {
                    self.waiting -= 1;
                    ready(waiter.slot);
                }
                !is_ready
            });
        }
        Ok(())
    }

    fn watched_mut(&mut self, fd: BorrowedFd<'_>) -> &mut Watched {
        let place = usize::try_from(fd.as_raw_fd()).expect("a descriptor is not negative");
        if place >= self.watched.len() {
            self.watched.resize_with(place + 1, Watched::default);
        }
        &mut self.watched[place]
    }
}

impl Watched {
    fn is_of(&self, descriptor: &Arc<Descriptor>) -> bool {
        std::ptr::eq(self.descriptor.as_ptr(), Arc::as_ptr(descriptor))
    }
}

fn both_directions() -> EpollFlags {
    EpollFlags::EPOLLIN
        | EpollFlags::EPOLLOUT
        | EpollFlags::EPOLLPRI
        | EpollFlags::EPOLLRDHUP
        | EpollFlags::EPOLLET
}

/// Whole milliseconds, and not too few: who wakes too early would have to wait again.
fn timeout(patience: Option<Duration>) -> EpollTimeout {
    let Some(patience) = patience else { return EpollTimeout::NONE };
    let milliseconds = patience.as_nanos().div_ceil(1_000_000);
    i32::try_from(milliseconds)
        .ok()
        .and_then(|it| EpollTimeout::try_from(it).ok())
        .unwrap_or(EpollTimeout::MAX)
}
