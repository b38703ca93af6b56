//! What only time brings: alarms of tasks, kept by the proactor and not by the kernel.
//!
//! A task that sleeps costs an entry here: no slot, no system call. The loop waits until the
//! earliest alarm at the most, so ten thousand idle timeouts are one deadline of one wait.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};

use super::Core;
use super::executor::Waiter;
use super::scope::Node;
use crate::units::Moment;

/// The alarms of one proactor, by their moments; those of one moment in the order they were set.
///
/// A tree and no heap: most alarms are taken back before they ring, and are gone then.
#[derive(Default)]
pub(super) struct Timers {
    alarms: RefCell<BTreeMap<AlarmKey, Alarm>>,
    next_sequence: Cell<u64>,
}

/// Names an alarm.
pub(super) type AlarmKey = (Moment, u64);

/// What happens when the moment has come.
pub(super) enum Alarm {
    /// A task goes on.
    Wake(Waiter),
    /// A scope's deadline has passed.
    Stop(Weak<Node>),
}

impl Timers {
    pub(super) fn set(&self, moment: Moment, alarm: Alarm) -> AlarmKey {
        let sequence = self.next_sequence.get();
        self.next_sequence.set(sequence + 1);
        self.alarms.borrow_mut().insert((moment, sequence), alarm);
        (moment, sequence)
    }

    /// Takes an alarm back; one that has rung is gone already.
    pub(super) fn take_back(&self, key: AlarmKey) {
        let alarm = self.alarms.borrow_mut().remove(&key);
        drop(alarm);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.alarms.borrow().is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.alarms.borrow().len()
    }

    /// When the next alarm rings.
    pub(super) fn next(&self) -> Option<Moment> {
        self.alarms.borrow().first_key_value().map(|((moment, _), _)| *moment)
    }

    /// Takes an alarm whose moment has come by `now`.
    fn due(&self, now: Moment) -> Option<Alarm> {
        let mut alarms = self.alarms.borrow_mut();
        let earliest = alarms.first_entry()?;
        (earliest.key().0 <= now).then(|| earliest.remove())
    }

    /// Has the alarm wake whoever polls now; false if it has rung.
    fn set_waiter(&self, key: AlarmKey, waiter: Waiter) -> bool {
        let mut alarms = self.alarms.borrow_mut();
        let Some(alarm) = alarms.get_mut(&key) else { return false };
        let before = std::mem::replace(alarm, Alarm::Wake(waiter));
        // What drops with a waker of somebody else's may come back here.
        drop(alarms);
        drop(before);
        true
    }
}

impl Core {
    /// Lets every alarm ring whose moment has come.
    pub(super) fn ring_alarms(&self) {
        if self.timers.is_empty() {
            return;
        }
        let now = self.now();
        while let Some(alarm) = self.timers.due(now) {
            match alarm {
                Alarm::Wake(waiter) => self.tasks.wake(waiter),
                Alarm::Stop(node) => {
                    if let Some(node) = node.upgrade() {
                        node.stop_late(self);
                    }
                }
            }
        }
    }
}

/// A future that waits for a moment of the processor's clock. Dropping it takes its alarm back.
#[must_use = "nobody waits before it is awaited"]
pub struct Sleep {
    core: Rc<Core>,
    until: Moment,
    state: SleepState,
}

#[derive(Clone, Copy)]
enum SleepState {
    New,
    Set(AlarmKey),
    Over,
}

impl Sleep {
    pub(super) fn new(core: Rc<Core>, until: Moment) -> Self {
        Self { core, until, state: SleepState::New }
    }

    /// The moment that it waits for.
    #[must_use]
    pub fn until(&self) -> Moment {
        self.until
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let is_over = match self.state {
            SleepState::New => self.core.now() >= self.until,
            SleepState::Set(key) => {
                !self.core.timers.set_waiter(key, self.core.tasks.waiter(context))
            }
            SleepState::Over => true,
        };
        if is_over {
            self.state = SleepState::Over;
            return Poll::Ready(());
        }
        if let SleepState::New = self.state {
            let alarm = Alarm::Wake(self.core.tasks.waiter(context));
            self.state = SleepState::Set(self.core.timers.set(self.until, alarm));
            self.core.tell_host();
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let SleepState::Set(key) = self.state {
            self.core.timers.take_back(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_ring_in_order_and_not_too_early() {
        let timers = Timers::default();
        let wake = || Alarm::Wake(Waiter::Task(0));
        let late = timers.set(Moment(20), wake());
        timers.set(Moment(10), wake());
        timers.set(Moment(10), wake());
        assert_eq!(timers.next(), Some(Moment(10)));
        assert!(timers.due(Moment(9)).is_none());
        assert!(timers.due(Moment(10)).is_some() && timers.due(Moment(10)).is_some());
        assert!(timers.due(Moment(19)).is_none());
        timers.take_back(late);
        assert!(timers.due(Moment(20)).is_none(), "it was taken back");
        assert!(timers.is_empty());
    }
}
