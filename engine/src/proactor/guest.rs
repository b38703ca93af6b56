//! A proactor as a guest in another program's loop: tokio's, mio's, one around epoll.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::{Core, Proactor};
use crate::error::{Errno, Error};
use crate::units::Moment;

/// A descriptor that is readable when [`Proactor::turn`] has something to do: an operation has
/// completed, an alarm is due, a task was woken from elsewhere. Clones share it.
///
/// It is an epoll instance, so it can be put into another one (`epoll(7)`), into tokio's `AsyncFd`,
/// or into mio's `SourceFd`; edge-triggered or not.
#[derive(Clone)]
pub struct Pollable(Rc<Guest>);

pub(super) struct Guest {
    epoll: Epoll,
    /// Written to by the processor when something completes, and by us to be called again.
    event: Arc<EventFd>,
    timer: TimerFd,
    /// When the timer will ring.
    armed: Cell<Option<Moment>>,
}

/// How often one turn looks whether there is more to do, before the host has its turn.
const ROUNDS: usize = 16;

impl Proactor {
    /// A descriptor to poll, for programs that have a loop of their own: whenever it is readable,
    /// they call [`Proactor::turn`] with no patience, which never blocks.
    ///
    /// What tasks do can be awaited by the host's own tasks on this thread, too: futures of this
    /// engine take any waker.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the processor is simulated: nobody else knows its time. Otherwise as
    /// `epoll_create(2)`, `eventfd(2)` and `timerfd_create(2)` answer.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use ucp_engine::Proactor;
    ///
    /// # use std::os::fd::AsFd;
    /// let proactor = Proactor::start(&Default::default())?;
    /// let pollable = proactor.pollable()?;
    /// let tasks = proactor.initiator();
    /// let done = tasks.spawn({
    ///     let tasks = tasks.clone();
    ///     async move { tasks.sleep(Duration::from_millis(1)).await }
    /// })?;
    /// while !done.is_finished() {
    ///     let mut polled = [PollFd::new(pollable.as_fd(), PollFlags::POLLIN)];
    ///     poll(&mut polled, PollTimeout::NONE)?; // beside the program's own descriptors
    ///     proactor.turn(Duration::ZERO)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pollable(&self) -> Result<Pollable, Error> {
        if let Some(guest) = self.core.guest.get() {
            return Ok(Pollable(Rc::clone(guest)));
        }
        let guest = Guest::new(&self.core);
        let guest = Rc::new(guest.map_err(|errno| Error::from_errno("make pollable", errno))?);
        Ok(Pollable(Rc::clone(self.core.guest.get_or_init(|| guest))))
    }
}

impl Guest {
    fn new(core: &Core) -> Result<Self, Errno> {
        // It rings at once: what was begun before must be submitted.
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = Arc::new(EventFd::from_value_and_flags(1, flags)?);
        let timer = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, timer)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*event, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        core.processor.borrow_mut().notify(Arc::clone(&event))?;
        Ok(Self { epoll, event, timer, armed: Cell::new(None) })
    }

    /// Makes the descriptor readable.
    fn ring(&self) {
        // It fails only if the counter is full, and then it is readable.
        let _ = self.event.write(1);
    }

    /// What is readable now is dealt with from here on.
    fn silence(&self) {
        // Nothing to read is fine: both are non-blocking.
        let _ = self.event.read();
        if self.timer.wait().is_ok() {
            // It may have rung a moment too early, and is to be set again then.
            self.armed.set(None);
        }
    }

    /// Has the timer ring at a moment.
    fn arm(&self, core: &Core) -> Result<(), Errno> {
        let next = [core.timers.next(), core.processor.borrow().next_alarm()];
        let next = next.into_iter().flatten().min();
        if next == self.armed.replace(next) {
            return Ok(());
        }
        let Some(next) = next else { return self.timer.unset() };
        // No time at all would unset it.
        let left = next.since(core.now()).max(std::time::Duration::from_nanos(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(left));
        self.timer.set(once, TimerSetTimeFlags::empty())
    }
}

impl Core {
    /// A turn in a host's loop: all that can be done without waiting, within reason. Afterwards the
    /// descriptor becomes readable when there is more.
    pub(super) fn turn_as_guest(&self, guest: &Guest) -> Result<(), Error> {
        guest.silence();
        let mut is_done = false;
        for _ in 0..ROUNDS {
            self.run_ready_tasks();
            let ended = self.counts.ended();
            self.turn(false, None)?;
            // The kernel may have kept some of what has completed for the next look, and says nothing
            // of it (IO_LOCAL_TW_DEFAULT_MAX).
            is_done =
                self.counts.ended() == ended && self.tasks.are_waiting() && !self.has_news.get();
            if is_done {
                break;
            }
        }
        guest.arm(self).map_err(|errno| Error::from_errno("set timer", errno))?;
        // Whoever is woken from here on rings.
        if !is_done || !self.tasks.fall_asleep() {
            guest.ring();
        }
        Ok(())
    }

    /// There is something for the processor to be told of; if that was outside of the loop, the host
    /// must have it turn.
    #[inline]
    pub(super) fn tell_host(&self) {
        self.has_news.set(true);
        if let Some(guest) = self.guest.get()
            && !self.tasks.is_running()
        {
            guest.ring();
        }
    }
}

impl AsFd for Pollable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.epoll.0.as_fd()
    }
}

impl AsRawFd for Pollable {
    fn as_raw_fd(&self) -> RawFd {
        self.0.epoll.0.as_raw_fd()
    }
}
